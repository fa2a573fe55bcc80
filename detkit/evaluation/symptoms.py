"""What the detections of a validation show of a detector that gets lazy, or learns the wrong names."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detkit.evaluation.detection_errors import classify_detections
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.results import DetectionTable


@dataclass(frozen=True)
class Symptoms:
    """Shares are fractions; None where there is nothing to count."""

    objects: int
    """How many there are."""
    silent_images: float | None
    """Of the images with objects, those without any detection."""
    never_predicted: tuple[str, ...]
    """Classes that have objects, and no detection anywhere."""
    localised: float | None
    """Of the objects, those that a detection of any class overlaps by an IoU of .5 or more."""
    named_right: float | None
    """Of the localised objects, those whose surest such detection has their class."""
    taken_for: dict[str, str]
    """Classes most of whose localised objects are called by one and the same other name: that name."""

    def record(self) -> dict[str, Any]:
        """JSON values by name."""
        return {**asdict(self), "never_predicted": list(self.never_predicted)}


def symptoms(ground_truth: GroundTruth, table: DetectionTable) -> Symptoms:
    """Count them.

    Args:
        ground_truth: the objects; crowds are left out.
        table: detections of its images and classes (see ``results.restrict``).
    """
    there = ~ground_truth.crowd
    with_objects = np.unique(ground_truth.object_image_ids[there])
    present = np.unique(ground_truth.object_category_ids[there])
    names = ground_truth.names
    objects, said = _surest_on_each(ground_truth, table)
    meant = ground_truth.object_category_ids[objects]
    return Symptoms(
        objects=int(there.sum()),
        silent_images=_share(~np.isin(with_objects, table.image_ids)),
        never_predicted=tuple(names[id_] for id_ in np.setdiff1d(present, table.category_ids).tolist()),
        localised=len(objects) / int(there.sum()) if there.any() else None,
        named_right=_share(meant == said),
        taken_for={
            names[id_]: names[other]
            for id_ in present.tolist()
            if (other := _mostly(said[meant == id_])) not in (None, id_)
        },
    )


def _surest_on_each(ground_truth: GroundTruth, table: DetectionTable) -> tuple[np.ndarray, np.ndarray]:
    """The objects that a detection lies on, and the category of the surest of those: both int64 [L]."""
    classified = classify_detections(ground_truth, table)
    rows = np.flatnonzero(classified.nearest_ious >= 0.5)
    rows = rows[np.argsort(-table.scores[rows], kind="stable")]
    objects, first = np.unique(classified.nearest_objects[rows], return_index=True)
    return objects, table.category_ids[rows[first]]


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _mostly(categories: np.ndarray) -> int | None:
    """The category that more than half of them are; None where there is none."""
    if not len(categories):
        return None
    category, count = Counter(categories.tolist()).most_common(1)[0]
    return category if 2 * count > len(categories) else None
