"""A trial of a search, from its values to what is kept of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from detkit.builders.compared_run import train
from detkit.builders.search import SearchedExperiment
from detkit.config import Metric
from detkit.errors import ConfigError, DataError, TrainingError
from detkit.evaluation.search_results import CurvePoint, SearchTrial, cost_front
from detkit.search.running import TrialError
from detkit.search.study import COST, CURVE, SPENT, Trial
from detkit.training.loop import BEST, LAST, Position
from detkit.training.run_log import read_log


def run_trial(experiment: SearchedExperiment, trial: Trial) -> float | None:
    """Train a trial, or go on from its checkpoint; its best validation, None where it was pruned or asked to stop.

    Raises:
        TrialError: nothing can be trained with its values.
        ConfigError, DataError, WeightsError: no trial could be trained, or this one not now.
    """
    # Data that are not there, as on a disk that is not mounted, must not cost the search one trial after another.
    experiment.require_data()
    try:
        config = experiment.config(trial.values, trial.number)
        cost = experiment.cost_of(config)
    except ConfigError as error:
        raise TrialError(str(error)) from None
    trial.keep(COST, asdict(cost))
    try:
        trained = train(config, _watch(trial, Path(config.output), experiment.metric))
    except TrainingError as error:
        raise TrialError(str(error)) from None
    except torch.OutOfMemoryError as error:
        raise TrialError(f"out of memory: {error}") from None
    if trained is None or trial.ended:
        return None
    return trained[1].best


def _watch(trial: Trial, folder: Path, metric: Metric) -> Callable[[Position], bool]:
    """What tells the study of each validation; True where the trial is pruned."""

    def after_validation(position: Position) -> bool:
        rows = read_log(folder / "metrics.jsonl")
        curve = [
            CurvePoint(math.ceil(row["epoch"]), row["compute"], row[metric])
            for row in rows
            if row["event"] == "validate"
        ]
        trial.keep(CURVE, [asdict(point) for point in curve])
        seconds = sum(row.get("seconds", 0.0) for row in rows if row["event"] != "look")
        trial.keep(SPENT, {"compute": position.compute, "seconds": round(seconds, 1)})
        value = curve[-1].value
        if value is None:
            raise DataError(
                f"{metric}: validation has no objects to measure it on; choose another metric, and another output"
            )
        if not trial.report(curve[-1].epoch, value) or position.finished:
            return False
        trial.prune()
        return True

    return after_validation


def drop_checkpoints(experiment: SearchedExperiment, trials: Sequence[SearchTrial]) -> None:
    """Remove what nobody can want of trials that have ended: what they would resume from, and models that another
    trial's is both as good as and as cheap as."""
    front = {one.number for one in cost_front(trials)}
    for one in trials:
        if one.state == "running":
            continue
        folder = experiment.trial_folder(one.number)
        (folder / LAST).unlink(missing_ok=True)
        if one.number not in front:
            (folder / BEST).unlink(missing_ok=True)
