"""Precision, recall and F1 of a detector that is used at one score threshold."""

from dataclasses import dataclass

import numpy as np

from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.matching import match_detections
from detkit.evaluation.results import DetectionTable


@dataclass(frozen=True)
class Counts:
    """Right, wrong and missing; detections on crowds are none of these."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float | None:
        """Share of the detections that find an object; None without detections."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Share of the objects that are found; None without objects."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); None with neither."""
        errors = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + errors)


@dataclass(frozen=True)
class OperatingPoint:
    """What a score threshold gives."""

    score: float
    iou: float
    overall: Counts
    """Summed over the classes (micro average)."""
    per_class: tuple[Counts, ...]
    """In the order of the ground truth's classes."""


def operating_point(
    ground_truth: GroundTruth, table: DetectionTable, *, score: float = 0.5, iou: float = 0.5
) -> OperatingPoint:
    """Count right, wrong and missing detections among those of at least ``score``.

    Args:
        ground_truth: the objects.
        table: detections of images and classes that the ground truth knows (see ``results.restrict``).
        score: the least score of a detection that counts.
        iou: the least overlap of a detection with the object that it finds.
    """
    table = table.select(table.scores >= score)
    matches = match_detections(ground_truth, table, iou=iou)
    right = _per_class(ground_truth, table.category_ids[matches.correct])
    wrong = _per_class(ground_truth, table.category_ids[matches.objects < 0])
    objects = ground_truth.objects_per_class()
    counts = tuple(
        Counts(found, false, present - found)
        for found, false, present in zip(right, wrong, objects, strict=True)
    )
    overall = Counts(sum(right), sum(wrong), sum(objects) - sum(right))
    return OperatingPoint(score, iou, overall, counts)


def _per_class(ground_truth: GroundTruth, category_ids: np.ndarray) -> list[int]:
    return [int((category_ids == id_).sum()) for id_ in ground_truth.category_ids]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
