"""Bootstrapping: the rounds of a run, and what their scans go over."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detkit.bootstrap.bootstrapping import Bootstrapping, Watch
from detkit.bootstrap.compute import scan_compute
from detkit.bootstrap.scans import Scans
from detkit.bootstrap.settings import BootstrapSettings
from detkit.builders.background import POOL, TRAIN, canvas_size, scanned_pools
from detkit.builders.data import build_evaluation_transform, split_paths
from detkit.builders.detector import Detector
from detkit.builders.mining import source_of_pool
from detkit.builders.training_images import TrainingImages
from detkit.config import Config
from detkit.data.coco import read_coco
from detkit.evaluation.compared_metrics import recall_at_name
from detkit.mining.pool import Pool
from detkit.mining.settings import MiningSettings
from detkit.mining.source import MiningSource
from detkit.selection import MinedNegatives
from detkit.training.learner import Learner
from detkit.training.resume import ROUNDS
from detkit.training.validation import Validator


def bootstrap_settings(config: Config) -> BootstrapSettings | None:
    """When rounds end, and what ends bootstrapping; None where there is none.

    Raises:
        ConfigError: a value is out of range.
    """
    if config.bootstrap is None:
        return None
    told = config.bootstrap.model_dump(exclude={"crops"})
    return BootstrapSettings(**{**told, "rounds": tuple(told["rounds"])})


def build_bootstrapping(
    config: Config,
    learner: Learner,
    validate: Validator,
    images: TrainingImages,
    *,
    steps: int,
    fresh: Callable[[], Mapping[str, Any]],
) -> Bootstrapping | None:
    """The rounds of a run; None where it has none.

    Args:
        config: the run's.
        learner: whose rounds they are.
        validate: watches recall.
        images: what the run is trained on, of which scans go over a part.
        steps: of the run.
        fresh: the state of a learner that has learned nothing.
    """
    settings = bootstrap_settings(config)
    if settings is None:
        return None
    selection = learner.criterion.selection
    pools = scanned_pools(config, images.pool, images.annotations)
    return Bootstrapping(
        folder=Path(config.output) / ROUNDS,
        settings=settings,
        steps=steps,
        learner=learner,
        regions=selection.regions if isinstance(selection, MinedNegatives) else None,
        scans=_scans(config, learner, pools, images) if pools else None,
        watch=_watch(config, settings, learner, validate) if settings.watched else None,
        fresh=fresh if settings.start == "scratch" else None,
    )


def _scans(config: Config, learner: Learner, pools: Mapping[str, Pool], images: TrainingImages) -> Scans:
    assert config.bootstrap is not None
    told = config.bootstrap.crops
    assert told is not None, "there are pools to scan"

    def source(pool: Pool, name: str) -> MiningSource:
        detector = Detector(
            learner.evaluated_model, config, pool.ground_truth.category_ids, learner.placement
        )
        return source_of_pool(detector, pool, name=name)

    return Scans(
        root=Path(config.output) / ROUNDS,
        pools=pools,
        settings=MiningSettings(
            threshold=told.threshold,
            per_image=told.per_image,
            per_round=told.per_round,
            context=told.context,
            least_side=told.least_side,
            largest=canvas_size(config, images.annotations),
            quarantine_score=told.quarantine_score,
        ),
        capacity=told.capacity,
        parts=config.bootstrap.parts,
        stride=learner.model.stride,
        batch=config.evaluation.batch_size,
        input_size=build_evaluation_transform(config).size_for,
        source=source,
        marks={POOL: images.pool_marks, TRAIN: images.marks},
    )


def _watch(config: Config, settings: BootstrapSettings, learner: Learner, validate: Validator) -> Watch:
    size_for = build_evaluation_transform(config).size_for
    sizes = read_coco(split_paths(config, config.data.val)[0]).sizes.tolist()
    return Watch(
        measure=lambda: validate(learner.evaluated_model),
        recall=recall_at_name(settings.false_positives),
        charge=scan_compute(
            [size_for(tuple(size)) for size in sizes], learner.model.stride, config.evaluation.batch_size
        ),
    )
