"""Which class is taken for which, with background as one more class."""

from dataclasses import dataclass

import numpy as np

from detkit.evaluation.detection_errors import ClassifiedDetections, DetectionKind
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.results import DetectionTable


@dataclass(frozen=True)
class ConfusionMatrix:
    """Objects and detections counted by what is there and what the detector says."""

    category_ids: tuple[int, ...]
    score: float
    """The least score of a detection that counts."""
    counts: np.ndarray
    """int64 [C + 1, C + 1]: rows are what is there, columns what is said. The last column holds the missed objects, the
    last row the detections that tell of no object, or of one that a surer detection tells of. Each object is in its
    row once, each detection in its column once."""


def confusion_matrix(
    ground_truth: GroundTruth,
    table: DetectionTable,
    classified: ClassifiedDetections,
    *,
    score: float,
) -> ConfusionMatrix:
    """Count what is taken for what from a score on.

    An object that is not found is taken for the class of the surest detection of another class that lies on it.
    Detections that are ignored are left out.

    Args:
        ground_truth: the objects.
        table: the detections.
        classified: what each of them is; as less sure ones change nothing, any score can be looked at.
        score: the least of a detection that counts.
    """
    classes = len(ground_truth.category_ids)
    there = ground_truth.class_indices(ground_truth.object_category_ids)
    said = ground_truth.class_indices(table.category_ids)
    counted = (table.scores >= score) & (classified.kinds != DetectionKind.IGNORED)
    correct = counted & (classified.kinds == DetectionKind.CORRECT)
    free = ~ground_truth.crowd
    free[classified.meant_objects[correct]] = False
    mistaken = _first_on_each(table, classified, counted, free)
    free[classified.meant_objects[mistaken]] = False

    counts = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    tells = correct | mistaken
    np.add.at(counts, (there[classified.meant_objects[tells]], said[tells]), 1)
    np.add.at(counts, (classes, said[counted & ~tells]), 1)
    np.add.at(counts, (there[free], classes), 1)
    return ConfusionMatrix(ground_truth.category_ids, score, counts)


def _first_on_each(
    table: DetectionTable, classified: ClassifiedDetections, counted: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """The surest detection of a wrong class on each object that is free: bool [D]."""
    rows = np.flatnonzero(counted & (classified.kinds == DetectionKind.WRONG_CLASS))
    rows = rows[free[classified.meant_objects[rows]]]
    rows = rows[np.argsort(-table.scores[rows], kind="stable")]
    _, first = np.unique(classified.meant_objects[rows], return_index=True)
    chosen = np.zeros(len(table), dtype=bool)
    chosen[rows[first]] = True
    return chosen
