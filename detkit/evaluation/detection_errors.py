"""What each detection is: right, or wrong in one of five ways; and which objects are found.

One table serves everything that asks why a detector is wrong: mining takes the background errors alone, and the
diagnosis counts them all. The first row that holds decides:

=====================================  =============================================================================
``CORRECT``                            it finds an object (see ``matching.match_detections``)
``IGNORED``                            it lies on a crowd or ignore region by ``foreground_iou`` of its area or more
``DUPLICATE``                          it overlaps an object of its class, which a surer detection found
``WRONG_CLASS``                        it overlaps an object of another class
``BAD_LOCALISATION``                   it overlaps an object of its class too little to find it
``WRONG_CLASS_AND_BAD_LOCALISATION``   it overlaps an object of another class, and too little
``BACKGROUND``                         it overlaps no object
=====================================  =============================================================================

"Overlaps" is an IoU of ``foreground_iou`` or more, "too little" one of ``background_iou`` or more. The kinds are those
of TIDE (Bolya et al., 2020, section 2.2). An object is found by the detection that is correct with it, or missed; a
crowd is neither.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from pycocotools import mask

from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.json_rows import to_coco_boxes
from detkit.evaluation.matching import Matches, match_detections
from detkit.evaluation.results import DetectionTable


class DetectionKind(IntEnum):
    """The rows of the table."""

    CORRECT = 0
    IGNORED = 1
    DUPLICATE = 2
    WRONG_CLASS = 3
    BAD_LOCALISATION = 4
    WRONG_CLASS_AND_BAD_LOCALISATION = 5
    BACKGROUND = 6

    @property
    def words(self) -> str:
        """The name as a text has it: "bad localisation"."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class IgnoreRegions:
    """Regions of any number of images that count neither as object nor as background, beside the crowds."""

    image_ids: np.ndarray
    """int64 [R]."""
    boxes: np.ndarray
    """xyxy in pixels, float [R, 4]."""

    @staticmethod
    def none() -> "IgnoreRegions":
        """No region at all."""
        return IgnoreRegions(np.zeros(0, np.int64), np.zeros((0, 4)))

    def followed_by(self, others: "IgnoreRegions") -> "IgnoreRegions":
        """These and then the others."""
        return IgnoreRegions(
            np.concatenate([self.image_ids, others.image_ids]), np.concatenate([self.boxes, others.boxes])
        )

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True)
class ClassifiedDetections:
    """What the detections of a table are; rows as in the table."""

    kinds: np.ndarray
    """Numbers of ``DetectionKind``, int8 [D]."""
    matches: Matches
    """What each detection was matched with."""
    nearest_objects: np.ndarray
    """Row of the object, of any class, with the greatest IoU; -1 where none is overlapped at all: int64 [D]."""
    nearest_ious: np.ndarray
    """The IoU with it, 0 where there is none: float64 [D]."""
    meant_objects: np.ndarray
    """Row of the object that a detection finds or, by its kind, might have found: the one of its class, or of another
    class where the kind says so, that it overlaps most. -1 for what is ignored or on background: int64 [D]."""
    found: np.ndarray
    """The objects that are found, bool [G]; False for a crowd."""
    missed: np.ndarray
    """The objects that are not, bool [G]; False for a crowd."""

    def counts(self) -> dict[str, int]:
        """How many detections there are of each kind, by ``DetectionKind.words``."""
        counts = np.bincount(self.kinds, minlength=len(DetectionKind)).tolist()
        return {kind.words: count for kind, count in zip(DetectionKind, counts, strict=True)}


def classify_detections(
    ground_truth: GroundTruth,
    table: DetectionTable,
    *,
    foreground_iou: float = 0.5,
    background_iou: float = 0.1,
    ignore: IgnoreRegions | None = None,
) -> ClassifiedDetections:
    """Sort detections by what is right or wrong with each (the table above).

    At a ``foreground_iou`` of .5 the correct detections are pycocotools' true positives at IoU .5 (which looks at the
    100 surest of an image and class alone), and those that it ignores are ignored here. A detection that it counts as
    wrong, but that lies on a crowd of another class or on a region of ``ignore``, is ignored here too.

    Args:
        ground_truth: the objects.
        table: detections of images and classes that the ground truth knows (see ``results.restrict``).
        foreground_iou: from which overlap on a detection finds an object.
        background_iou: below which overlap with every object a detection is on background.
        ignore: regions to be ignored beside the crowds.
    """
    matches = match_detections(ground_truth, table, iou=foreground_iou)
    overlaps = _overlaps(_with_regions(ground_truth, ignore), table)
    found = np.zeros(len(ground_truth), dtype=bool)
    found[matches.objects[matches.correct]] = True
    kinds = _kinds(matches, overlaps, foreground_iou, background_iou)
    return ClassifiedDetections(
        kinds=kinds,
        matches=matches,
        nearest_objects=overlaps.nearest,
        nearest_ious=np.maximum(overlaps.same_class, overlaps.other_class),
        meant_objects=_meant(kinds, matches, overlaps),
        found=found,
        missed=~found & ~ground_truth.crowd,
    )


@dataclass(frozen=True)
class _Overlaps:
    """The greatest overlap of each detection with what lies in its image, [D]; 0 where there is nothing."""

    same_class: np.ndarray
    """IoU with the objects of its class."""
    other_class: np.ndarray
    """IoU with the objects of other classes."""
    ignored: np.ndarray
    """Share of the detection that a crowd or ignore region, of any class, holds."""
    same_object: np.ndarray
    """Row of the object of its class with the greatest IoU, -1 where it overlaps none."""
    other_object: np.ndarray
    """The same of other classes."""

    @property
    def nearest(self) -> np.ndarray:
        """Row of the object of any class with the greatest IoU, of equal ones the first; -1 for none."""
        surer = np.where(self.same_class > self.other_class, self.same_object, self.other_object)
        equal = self.same_class == self.other_class
        return np.where(equal, np.minimum(self.same_object, self.other_object), surer)


def _kinds(matches: Matches, overlaps: _Overlaps, foreground_iou: float, background_iou: float) -> np.ndarray:
    """The kind of each detection, the first that fits: int8 [D]."""
    least = min(foreground_iou, 1 - 1e-10)  # as in matching, so that an overlap of 1 can be reached
    kinds = np.select(
        [
            matches.correct,
            matches.ignored | (overlaps.ignored >= least),
            overlaps.same_class >= least,
            overlaps.other_class >= least,
            overlaps.same_class >= background_iou,
            overlaps.other_class >= background_iou,
        ],
        list(DetectionKind)[:-1],
        default=DetectionKind.BACKGROUND,
    )
    return kinds.astype(np.int8)


def _meant(kinds: np.ndarray, matches: Matches, overlaps: _Overlaps) -> np.ndarray:
    """The object that each detection is about, -1 for none: int64 [D]."""
    of_class = (DetectionKind.DUPLICATE, DetectionKind.BAD_LOCALISATION)
    of_another = (DetectionKind.WRONG_CLASS, DetectionKind.WRONG_CLASS_AND_BAD_LOCALISATION)
    places = [kinds == DetectionKind.CORRECT, np.isin(kinds, of_class), np.isin(kinds, of_another)]
    return np.select(places, [matches.objects, overlaps.same_object, overlaps.other_object], default=-1)


def _overlaps(ground_truth: GroundTruth, table: DetectionTable) -> _Overlaps:
    same, other, ignored = np.zeros((3, len(table)))
    same_object, other_object = np.full((2, len(table)), -1, dtype=np.int64)
    object_boxes, detection_boxes = to_coco_boxes(ground_truth.boxes), to_coco_boxes(table.boxes)
    of_objects, of_detections = _rows_by_image(ground_truth.object_image_ids), _rows_by_image(table.image_ids)
    for image_id in of_objects.keys() & of_detections.keys():
        objects, detections = of_objects[image_id], of_detections[image_id]
        crowd = ground_truth.crowd[objects]
        shares = mask.iou(detection_boxes[detections], object_boxes[objects], crowd.astype(np.uint8))
        ignored[detections] = shares[:, crowd].max(axis=1, initial=0)
        objects, ious = objects[~crowd], shares[:, ~crowd]
        equal = ground_truth.object_category_ids[objects] == table.category_ids[detections, None]
        if len(objects):
            same[detections], same_object[detections] = _greatest(np.where(equal, ious, 0), objects)
            other[detections], other_object[detections] = _greatest(np.where(equal, 0, ious), objects)
    return _Overlaps(same, other, ignored, same_object, other_object)


def _greatest(ious: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greatest of each row [D, G], and the object that has it: the first of equals, -1 where all are 0."""
    greatest = ious.max(axis=1)
    return greatest, np.where(greatest > 0, objects[ious.argmax(axis=1)], -1)


def _with_regions(ground_truth: GroundTruth, ignore: IgnoreRegions | None) -> GroundTruth:
    """The ground truth with ignore regions as crowds of a class that no detection has, behind its own rows."""
    if ignore is None or not len(ignore):
        return ground_truth
    count, boxes = len(ignore), ignore.boxes.astype(np.float64)
    return replace(
        ground_truth,
        object_image_ids=np.append(ground_truth.object_image_ids, ignore.image_ids),
        object_category_ids=np.append(ground_truth.object_category_ids, np.full(count, -1)),
        boxes=np.concatenate([ground_truth.boxes, boxes]),
        areas=np.append(ground_truth.areas, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)),
        crowd=np.append(ground_truth.crowd, np.ones(count, dtype=bool)),
    )


def _rows_by_image(image_ids: np.ndarray) -> dict[int, np.ndarray]:
    """Image id -> its rows, ascending."""
    order = np.argsort(image_ids, kind="stable")
    ids, starts = np.unique(image_ids[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts)[1:], strict=True))
