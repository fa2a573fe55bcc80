"""Every run measured on every resample of the images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detkit.comparison.draws import Draws
from detkit.evaluation import DetectionTable, GroundTruth, restrict
from detkit.evaluation.compared_metrics import (
    COMMON_RECALL,
    FALSE_POSITIVE_LEVELS,
    RECALL_LEVELS,
    false_positives_at_name,
    recall_at_name,
)
from detkit.evaluation.resampling import MatchedDetections, match_once

Progress = Callable[[int, int], None]
"""Called with how many parts are done, and of how many."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class MeasuredRun:
    """A run's metrics, on the images as they are (row 0) and on each resample."""

    matched: MatchedDetections
    values: dict[str, np.ndarray]
    """By metric, float64 [1 + R]; NaN where there is nothing to measure."""
    highest_recall: np.ndarray
    """float64 [1 + R]."""

    def metrics(self) -> dict[str, float | None]:
        """On the images as they are."""
        return {
            name: None if np.isnan(values[0]) else float(values[0]) for name, values in self.values.items()
        }


MeasuredArms = Mapping[str, Mapping[int, MeasuredRun]]
"""By arm and seed."""


def measure_run(ground_truth: GroundTruth, table: DetectionTable, draws: Draws) -> MeasuredRun:
    """Match a run's detections, and measure them on every draw of images.

    Raises:
        DataError: a detection is of an image or category that the ground truth does not know.
    """
    matched = match_once(ground_truth, restrict(table, ground_truth))
    recalls = matched.recall_at(draws.images, FALSE_POSITIVE_LEVELS)
    false_positives = matched.false_positives_at(draws.images, np.array(RECALL_LEVELS))
    return MeasuredRun(
        matched=matched,
        values={
            **matched.precision_and_recall(draws.images),
            **{recall_at_name(level): recalls[:, i] for i, level in enumerate(FALSE_POSITIVE_LEVELS)},
            **{
                false_positives_at_name(level): false_positives[:, i] for i, level in enumerate(RECALL_LEVELS)
            },
        },
        highest_recall=matched.highest_recall(draws.images),
    )


def common_recalls(arms: MeasuredArms, pair: Pair, seeds: Sequence[int]) -> np.ndarray:
    """The recall at which a pair's false positives are compared: COMMON_RECALL, or the highest both reach.

    In each resample it is that resample's own, so that it is always reached; float64 [1 + R].
    """
    reached = [arms[name][seed].highest_recall for name in pair for seed in seeds]
    return np.fmin(COMMON_RECALL, np.min(reached, axis=0))


def false_positives_of_pairs(
    arms: MeasuredArms, recalls: Mapping[Pair, np.ndarray], draws: Draws, progress: Progress
) -> dict[Pair, dict[str, dict[int, np.ndarray]]]:
    """False positives per image of each run at the recall of each pair that its arm is in.

    Args:
        recalls: of each pair, float64 [1 + R].

    Returns:
        By pair, arm and seed: float64 [1 + R].
    """
    found: dict[Pair, dict[str, dict[int, np.ndarray]]] = {
        pair: {name: {} for name in pair} for pair in recalls
    }
    runs = [(name, seed, run) for name, of_seed in arms.items() for seed, run in of_seed.items()]
    for done, (name, seed, run) in enumerate(runs, 1):
        pairs = [pair for pair in recalls if name in pair]
        if pairs:
            levels = np.stack([recalls[pair] for pair in pairs], axis=1)
            columns = run.matched.false_positives_at(draws.images, levels)
            for index, pair in enumerate(pairs):
                found[pair][name][seed] = columns[:, index]
        progress(done, len(runs))
    return found
