"""Finished runs in, the content of results.json out."""

from collections.abc import Mapping, Sequence

import numpy as np

from detkit.comparison.differences import all_differences, arm_estimate
from detkit.comparison.draws import Draws, draw
from detkit.comparison.finished import FinishedArm, FinishedRun
from detkit.comparison.measuring import MeasuredRun, Progress, measure_run
from detkit.comparison.verdict import verdict
from detkit.errors import DataError
from detkit.evaluation import GroundTruth, restrict
from detkit.evaluation.compared_metrics import COMPARED_METRICS
from detkit.evaluation.comparison_results import (
    Arm,
    Comparison,
    Curves,
    Difference,
    MissingRun,
    Resampling,
    Run,
)
from detkit.evaluation.detection_curve import DetectionCurve, detection_curve

RECALL_GRID = tuple(np.linspace(0, 1, 101).round(2).tolist())
FALSE_POSITIVE_GRID = tuple(np.logspace(-2, 1, 61).round(6).tolist())
DIGITS = 5
"""Of the curves, which are for plotting; metrics keep all theirs."""


def summarise(
    ground_truth: GroundTruth,
    arms: Sequence[FinishedArm],
    *,
    title: str,
    resamples: int,
    seed: int = 0,
    groups: np.ndarray | None = None,
    missing: Sequence[MissingRun] = (),
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Measure every run, and every difference between arms, with intervals.

    Pictures, versions and the comparison's configuration are the caller's to add (``dataclasses.replace``).

    Args:
        ground_truth: the validation objects.
        arms: with at least one run each, and names that differ.
        resamples, seed: of the bootstrap; the same seed gives the same numbers.
        groups: of the images, see ``draws.draw``; None where images are independent.
        missing: runs that were planned and are not there, which the verdict must say.
        progress: called with how many parts are done, of how many.

    Raises:
        DataError: arms, their seeds, or their detections and the ground truth do not go together.
    """
    draws = draw(len(ground_truth.image_ids), resamples=resamples, seed=seed, groups=groups)
    resampling = Resampling(resamples, seed, None if groups is None else len(np.unique(groups)))
    measured = _measured_arms(ground_truth, arms, draws, progress)
    return _concluded(title, ground_truth, measured, resampling, missing)


def _concluded(
    title: str,
    ground_truth: GroundTruth,
    measured: tuple[tuple[Arm, ...], tuple[Difference, ...]],
    resampling: Resampling,
    missing: Sequence[MissingRun],
) -> Comparison:
    """What was measured, with the verdict."""
    arms, differences = measured
    images = len(ground_truth.image_ids)
    return Comparison(
        title=title,
        images=images,
        objects=sum(ground_truth.objects_per_class()),
        classes=ground_truth.class_names,
        resampling=resampling,
        arms=arms,
        differences=differences,
        verdict=verdict(arms, differences, images=images, groups=resampling.groups, missing=missing),
        recall_grid=RECALL_GRID,
        false_positive_grid=FALSE_POSITIVE_GRID,
        missing=tuple(missing),
    )


def _measured_arms(
    ground_truth: GroundTruth, arms: Sequence[FinishedArm], draws: Draws, progress: Progress
) -> tuple[tuple[Arm, ...], tuple[Difference, ...]]:
    """Every arm, and every pair of them; measuring the runs is one half of the progress, and comparing the other."""
    total = sum(len(arm.runs) for arm in arms)
    measured = _measured(ground_truth, arms, draws, lambda part, _: progress(part, 2 * total))
    summaries = tuple(_arm(ground_truth, arm, measured[arm.name], draws) for arm in arms)
    return summaries, all_differences(measured, draws, lambda part, _: progress(total + part, 2 * total))


def _measured(
    ground_truth: GroundTruth, arms: Sequence[FinishedArm], draws: Draws, progress: Progress
) -> dict[str, dict[int, MeasuredRun]]:
    """Every run, by arm and seed."""
    _check(arms)
    runs = [(arm.name, run) for arm in arms for run in arm.runs]
    measured: dict[str, dict[int, MeasuredRun]] = {arm.name: {} for arm in arms}
    for done, (name, run) in enumerate(runs, 1):
        measured[name][run.seed] = measure_run(ground_truth, run.detections, draws)
        progress(done, len(runs))
    return measured


def _check(arms: Sequence[FinishedArm]) -> None:
    names = [arm.name for arm in arms]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"arms: {repeated[0]!r} is there more than once; give each arm a name of its own")
    for arm in arms:
        seeds = [run.seed for run in arm.runs]
        if not seeds:
            raise DataError(f"arm {arm.name!r}: has no finished run; finish one, or leave the arm out")
        if len(set(seeds)) < len(seeds):
            raise DataError(f"arm {arm.name!r}: seeds {seeds} repeat; give each run a seed of its own")


def _arm(
    ground_truth: GroundTruth, arm: FinishedArm, measured: Mapping[int, MeasuredRun], draws: Draws
) -> Arm:
    return Arm(
        name=arm.name,
        config=arm.config,
        runs=tuple(_run(ground_truth, run, measured[run.seed]) for run in arm.runs),
        estimates={
            metric.name: arm_estimate(
                {seed: run.values[metric.name] for seed, run in measured.items()}, metric, draws
            )
            for metric in COMPARED_METRICS
        },
    )


def _run(ground_truth: GroundTruth, run: FinishedRun, measured: MeasuredRun) -> Run:
    return Run(
        seed=run.seed,
        metrics=measured.metrics(),
        compute=dict(run.compute),
        wall_clock=run.wall_clock,
        learning=tuple(run.learning),
        curves=_curves(detection_curve(ground_truth, restrict(run.detections, ground_truth))),
        rounds=tuple(run.rounds),
        hardest=tuple(run.hardest),
    )


def _curves(curve: DetectionCurve) -> Curves:
    return Curves(
        precision=tuple(_rounded(curve.precision_at(recall)) for recall in RECALL_GRID),
        recall=tuple(_rounded(curve.recall_at(level)) for level in FALSE_POSITIVE_GRID),
        highest_recall=curve.highest_recall,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
