"""A training run."""

from collections.abc import Callable, Iterator
from pathlib import Path

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.builders.background import (
    POOL,
    background_counts,
    background_parts,
    background_pool,
    canvas_size,
    scanned_pools,
)
from detkit.builders.data import (
    build_evaluation_loader,
    build_evaluation_transform,
    build_training_transform,
    split_paths,
)
from detkit.builders.learner import build_learner
from detkit.builders.rounds import bootstrap_settings, build_bootstrapping
from detkit.config import Config
from detkit.data.coco import CocoAnnotations, read_coco
from detkit.data.dataset import DetectionDataset
from detkit.data.loader import BatchOrder, training_loader
from detkit.data.mixing import JoinedDataset, MixedOrder, Stream
from detkit.devices import place
from detkit.errors import ConfigError
from detkit.evaluation import read_ground_truth
from detkit.evaluation.compared_metrics import FALSE_POSITIVE_LEVELS
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.mining.negative_set import MinedCrops
from detkit.mining.pool import Pool
from detkit.training.learner import Batch, Learner
from detkit.training.loop import Plan, Run
from detkit.training.validation import Validator


def build_run(config: Config, *, resumed: bool = False) -> Run:
    """Everything of a training run, from its configuration.

    A ``resumed`` run does not read ``model.weights``: a checkpoint follows.
    """
    placement = place(config.device, config.precision)
    annotations = read_coco(split_paths(config, config.data.train)[0], config.data.classes)
    order = BatchOrder(len(annotations), background_counts(config).images, seed=config.seed)
    plan = _plan(config, order.steps_per_epoch)
    names = annotations.class_names
    learner = build_learner(config, names, plan, placement, read_weights=not resumed)
    validate = _validator(config, learner)
    pool = background_pool(config, annotations)
    bootstrapping = build_bootstrapping(
        config,
        learner,
        validate,
        scanned_pools(config, pool, annotations),
        canvas_size(config, annotations),
        steps=plan.steps,
        fresh=lambda: build_learner(config, names, plan, placement, read_weights=True).state_dict(),
    )
    return Run(
        folder=Path(config.output),
        plan=plan,
        learner=learner,
        batches_from=_batches(
            config,
            annotations,
            order=order,
            plan=plan,
            learner=learner,
            pool=pool,
            bootstrapping=bootstrapping,
        ),
        validate=validate,
        identity={
            "config": config.model_dump(mode="json"),
            "class_names": list(names),
            "category_ids": list(annotations.category_ids),
        },
        tensorboard=config.training.tensorboard,
        at_pause=bootstrapping,
    )


def _batches(
    config: Config,
    annotations: CocoAnnotations,
    *,
    order: BatchOrder,
    plan: Plan,
    learner: Learner,
    pool: Pool | None,
    bootstrapping: Bootstrapping | None,
) -> Callable[[int], Iterator[Batch]]:
    """The batches from an optimiser step on, up to the next pause at least."""
    images = DetectionDataset(
        annotations,
        split_paths(config, config.data.train)[1],
        build_training_transform(config),
        seed=config.seed,
        tracked=config.selection.name == "mined",
    )
    canvas = canvas_size(config, annotations)

    def batches_from(step: int) -> Iterator[Batch]:
        rounds = sum(pause <= step for pause in plan.pauses)
        crops, suspects, folder = MinedCrops.none(), IgnoreRegions.none(), Path(config.output)
        if bootstrapping is not None and bootstrapping.scans is not None:
            crops, folder = bootstrapping.crops(rounds), bootstrapping.scans.crops_folder
            if POOL in bootstrapping.scans.pools:
                suspects = bootstrapping.scans.suspects(POOL, rounds + 1)
        background = background_parts(
            config, pool, crops=crops, folder=folder, canvas=canvas, suspects=suspects
        )
        joined = JoinedDataset([images, *(part.dataset for part in background)])
        keys = MixedOrder(
            order.between(step, plan.steps, parts=plan.accumulate),
            [
                (int(start), Stream(part.size, part.per_step, config.seed))
                for start, part in zip(joined.starts[1:], background, strict=False)
            ],
            first=step,
            parts=plan.accumulate,
        )
        loader = training_loader(
            joined,
            keys,
            workers=config.data.workers,
            stride=learner.model.stride,
            pin_memory=learner.placement.device.type == "cuda",
        )
        return iter(loader)

    return batches_from


def _plan(config: Config, steps_per_epoch: int) -> Plan:
    training = config.training
    stopping = training.early_stopping
    steps = training.steps or training.epochs * steps_per_epoch
    if config.schedule.name != "constant" and config.schedule.warmup_steps >= steps:
        raise ConfigError(
            f"schedule.warmup_steps: {config.schedule.warmup_steps} steps of warm-up leave nothing of a run of "
            f"{steps}; warm up for less, or train for more epochs"
        )
    settings = bootstrap_settings(config)
    return Plan(
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        accumulate=training.accumulate,
        validate_every=training.validate_every,
        metric=training.metric,
        patience=stopping.patience if stopping else None,
        min_gain=stopping.min_gain if stopping else 0.0,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
        pauses=settings.pauses(steps) if settings else (),
    )


def _validator(config: Config, learner: Learner) -> Validator:
    # In the order of the training classes; a class that validation does not know is refused by name.
    names = learner.model.class_names
    file, images = split_paths(config, config.data.val)
    annotations = read_coco(file, names)
    dataset = DetectionDataset(annotations, images, build_evaluation_transform(config))
    settings = bootstrap_settings(config)
    watched = {settings.false_positives} if settings else set()
    return Validator(
        loader=build_evaluation_loader(
            config, dataset, learner.model, learner.placement, config.data.workers
        ),
        ground_truth=read_ground_truth(file, names),
        criterion=learner.criterion,
        category_ids=annotations.category_ids,
        placement=learner.placement,
        backend=config.evaluation.backend,
        false_positives=sorted({*FALSE_POSITIVE_LEVELS, *watched}),
    )
