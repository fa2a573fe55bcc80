"""A run of a comparison, from its configuration to what is left of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detkit.bootstrap.bootstrapping import Bootstrapping
from detkit.bootstrap.rounds import FinishedRound
from detkit.builders.detector import Detector, detect_coco
from detkit.builders.hard_negatives import write_hardest
from detkit.builders.identity import versions
from detkit.builders.run import begin_run
from detkit.comparison.finished import FinishedRun, rounded
from detkit.config import Config
from detkit.errors import ConfigError, DataError, TrainingError
from detkit.evaluation import DetectionTable
from detkit.evaluation.compared_metrics import COMPARED_METRICS
from detkit.evaluation.comparison_results import LearningPoint, RoundResult
from detkit.evaluation.joining import join_tables
from detkit.files import read_json, write_json
from detkit.training.loop import LAST, Position, Run
from detkit.training.run_log import read_log

IDENTITY = "identity.json"
"""In a run's folder: what the run is made from."""


def train(
    config: Config, after_validation: Callable[[Position], bool] | None = None
) -> tuple[Run, Position] | None:
    """Train a run, or go on with it; None where it was asked to stop. The hook is the run's."""
    try:
        run, checkpoint = begin_run(config, resume=True, after_validation=after_validation)
    except TrainingError as error:
        raise ConfigError(f"{error}\n{config.output}: to begin this run anew, remove the folder") from None
    position = run.fit(checkpoint)
    return (run, position) if position.finished else None


def begin_as(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make sure that a run is gone on with only as what it was begun as: its checkpoint does not know the data.

    Raises:
        DataError: it was begun with other data, weights or torch.
    """
    file = folder / IDENTITY
    told = json.loads(json.dumps(dict(identity)))
    begun = read_json(file) if file.exists() and (folder / LAST).exists() else told
    changed = [key for key in sorted({*begun, *told}) if begun.get(key) != told.get(key)]
    if changed:
        key = changed[0]
        raise DataError(
            f"{folder}: was begun with another {', '.join(changed)} ({key} was {begun.get(key)!r}, is "
            f"{told.get(key)!r}); remove the folder to begin this run anew"
        )
    write_json(file, told)


def finished_run(
    config: Config,
    run: Run,
    position: Position,
    *,
    splits: Sequence[tuple[Path, Path]],
    folder: Path,
    name: str,
    gallery: int,
    show_pool: bool,
) -> FinishedRun:
    """What is left of a run that has ended.

    Args:
        config: the run's.
        run: its last weights, or their average, are those that are judged.
        position: where it ended.
        splits: annotations and images that it is judged on.
        folder: of the comparison, where pictures of its hardest negatives are kept.
        name: what their names begin with.
        gallery: how many.
        show_pool: crops of the pool may be among them.
    """
    rows = read_log(run.folder / "metrics.jsonl")
    rounds = run.at_pause.rounds(len(run.plan.pauses)) if isinstance(run.at_pause, Bootstrapping) else []
    mining = sum(one.charged for one in rounds)
    return FinishedRun(
        seed=config.seed,
        detections=_detections(config, run, splits),
        compute={"training": position.compute - mining, "mining": mining},
        wall_clock=round(sum(row.get("seconds", 0.0) for row in rows if row["event"] != "look"), 1),
        learning=[
            LearningPoint(row["compute"], {metric.name: row.get(metric.name) for metric in COMPARED_METRICS})
            for row in rows
            if row["event"] == "validate"
        ],
        rounds=[_as_result(one) for one in rounds],
        versions=versions(),
        hardest=write_hardest(config, run, folder, name, count=gallery, show_pool=show_pool),
    )


def _detections(config: Config, run: Run, splits: Sequence[tuple[Path, Path]]) -> DetectionTable:
    learner = run.learner
    detector = Detector(
        learner.evaluated_model, config, tuple(run.identity["category_ids"]), learner.placement
    )
    truths, tables = zip(*(detect_coco(detector, *split) for split in splits), strict=True)
    return rounded(join_tables(truths, tables))


def _as_result(round_: FinishedRound) -> RoundResult:
    return RoundResult(
        number=round_.number,
        compute=round_.compute,
        scanned=round_.scanned + round_.seen,
        false_positives=round_.false_positives + round_.noted,
        added=round_.crops + round_.regions,
        negatives=round_.negatives,
        acceptance=round_.acceptance_ratio,
        rolled_back=round_.undone,
        reason=round_.reason,
    )
