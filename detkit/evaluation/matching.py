"""Which detection finds which object, decided as COCO decides it."""

from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.json_rows import to_coco_boxes
from detkit.evaluation.results import DetectionTable


@dataclass(frozen=True)
class Matches:
    """What each detection of a table was matched with; rows as in the table."""

    objects: np.ndarray
    """Row of the object or crowd in the ground truth, -1 for none: int64 [D]."""
    ignored: np.ndarray
    """The match is a crowd, so that the detection is neither right nor wrong: bool [D]."""

    @property
    def correct(self) -> np.ndarray:
        """The detection finds an object: bool [D]."""
        return (self.objects >= 0) & ~self.ignored


def match_detections(ground_truth: GroundTruth, table: DetectionTable, *, iou: float = 0.5) -> Matches:
    """Match greedily within each image and class.

    The surest detection goes first and takes the free object it overlaps most, if by ``iou`` or more; with no
    such object, a crowd that holds that share of it. A crowd takes any number of detections. A detection's
    match does not depend on less sure ones, so that matching and then raising the score threshold is the same
    as the other way round.

    Args:
        ground_truth: the objects.
        table: detections of images and classes that the ground truth knows (see ``results.restrict``).
        iou: the least overlap, from 0 to 1.
    """
    objects = np.full(len(table), -1, dtype=np.int64)
    ignored = np.zeros(len(table), dtype=bool)
    object_keys, detection_keys = _image_and_class(ground_truth, table)
    object_order = np.lexsort((ground_truth.crowd, object_keys))
    detection_order = np.lexsort((-table.scores, detection_keys))
    object_boxes, detection_boxes = to_coco_boxes(ground_truth.boxes), to_coco_boxes(table.boxes)

    shared = np.intersect1d(object_keys, detection_keys)
    object_rows = _groups(object_order, object_keys, shared)
    detection_rows = _groups(detection_order, detection_keys, shared)
    for of_objects, of_detections in zip(object_rows, detection_rows, strict=True):
        crowd = ground_truth.crowd[of_objects]
        overlaps = mask.iou(detection_boxes[of_detections], object_boxes[of_objects], crowd.astype(np.uint8))
        matched = _match_group(overlaps, int((~crowd).sum()), iou)
        found = matched >= 0
        objects[of_detections[found]] = of_objects[matched[found]]
        ignored[of_detections[found]] = crowd[matched[found]]
    return Matches(objects, ignored)


def _image_and_class(ground_truth: GroundTruth, table: DetectionTable) -> tuple[np.ndarray, np.ndarray]:
    """One number for each pair of image and class: of the objects int64 [G], of the detections int64 [D]."""
    images, categories = np.sort(ground_truth.image_ids), np.sort(ground_truth.category_ids)

    def keys(image_ids: np.ndarray, category_ids: np.ndarray) -> np.ndarray:
        return np.searchsorted(images, image_ids) * len(categories) + np.searchsorted(
            categories, category_ids
        )

    return (
        keys(ground_truth.object_image_ids, ground_truth.object_category_ids),
        keys(table.image_ids, table.category_ids),
    )


def _groups(order: np.ndarray, keys: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """For each wanted key the rows that have it, in the given order."""
    ordered = keys[order]
    starts, stops = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    return [order[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def _match_group(overlaps: np.ndarray, objects: int, iou: float) -> np.ndarray:
    """Match the detections of one image and class.

    Args:
        overlaps: float64 [D, G], surest detection first, crowds last.
        objects: how many of the G are no crowds.
        iou: the least overlap.

    Returns:
        int64 [D], the column matched, or -1.
    """
    least = min(iou, 1 - 1e-10)  # as pycocotools has it, so that 1 can be reached
    matched = np.full(len(overlaps), -1, dtype=np.int64)
    taken = np.zeros(objects, dtype=bool)
    for row in np.flatnonzero((overlaps >= least).any(axis=1)).tolist():
        free = np.where(taken, -1.0, overlaps[row, :objects])
        for candidates, offset in ((free, 0), (overlaps[row, objects:], objects)):
            if candidates.size and candidates.max() >= least:
                # The last of equals, as pycocotools takes it.
                matched[row] = offset + candidates.size - 1 - np.argmax(candidates[::-1])
                break
        if 0 <= matched[row] < objects:
            taken[matched[row]] = True
    return matched
