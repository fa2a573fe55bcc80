"""Suspected missing labels: where a detector is as sure as of real objects, again and again, and no object is marked.

A detection on background whose score is that of a found object is either a mistake of the detector or one of the
labels. Mistakes change as training goes on; an object that nobody marked is found again by other checkpoints and in
other rounds of mining. None of this decides anything: a person looks and says what it is (see ``review_marks``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from detkit.evaluation.detection_errors import ClassifiedDetections, DetectionKind
from detkit.evaluation.json_rows import to_coco_boxes
from detkit.evaluation.results import DetectionTable

PERCENTILE = 10
"""Of the scores of correct detections: what is as sure as nine in ten of them is looked at. A percentile, as thresholds
of mining may be, for what is a high score differs from loss to loss. It is not the median, for on images that it was
trained on a detector has learned to be less sure of an object that nobody marked than of those that somebody did."""
SAME_PLACE = 0.5
"""The least IoU of two detections of one place."""


@dataclass(frozen=True)
class Suspects:
    """Detections of a table that may be objects nobody marked: persistent ones first, then by score."""

    rows: np.ndarray
    """Of the table, int64 [S]."""
    witnesses: tuple[str, ...]
    """Who else looked: other checkpoints, rounds of mining."""
    seen: np.ndarray
    """Which of them saw the same class in the same place: bool [S, W]."""
    score: float | None
    """The least score of a suspect; None where nothing is correct, so that no score is known to be high."""
    score_given: bool
    """It was asked for, and is not what nine in ten correct detections reach."""

    @property
    def persistence(self) -> np.ndarray:
        """How many witnesses saw each: int64 [S]."""
        return self.seen.sum(axis=1)


def high_score(table: DetectionTable, classified: ClassifiedDetections) -> float | None:
    """What nine in ten correct detections score or more; None without any."""
    scores = table.scores[classified.kinds == DetectionKind.CORRECT]
    return float(np.percentile(scores, PERCENTILE)) if len(scores) else None


def sure_backgrounds(
    table: DetectionTable, classified: ClassifiedDetections, *, score: float | None = None
) -> np.ndarray:
    """The background errors with a high score, each place once: rows of the table, surest first, int64 [S].

    Args:
        table: the detections.
        classified: what each of them is.
        score: the least; ``high_score`` if not given.
    """
    least = high_score(table, classified) if score is None else score
    if least is None:
        return np.zeros(0, np.int64)
    some_area = (table.boxes[:, 2:] > table.boxes[:, :2]).all(axis=1)  # a mark is about a place
    rows = np.flatnonzero(
        (classified.kinds == DetectionKind.BACKGROUND) & (table.scores >= least) & some_area
    )
    rows = rows[np.argsort(-table.scores[rows], kind="stable")]
    kept = np.ones(len(rows), dtype=bool)
    for places in _same_image_and_class(table.select(rows)):
        boxes = to_coco_boxes(table.boxes[rows[places]])
        alike = _ious(boxes, boxes) >= SAME_PLACE
        for place, others in enumerate(np.tril(alike, -1)):
            kept[places[place]] = not (others & kept[places]).any()
    return rows[kept]


def suspected_missing_labels(
    table: DetectionTable,
    classified: ClassifiedDetections,
    witnesses: Sequence[tuple[str, DetectionTable]] = (),
    *,
    score: float | None = None,
) -> Suspects:
    """The background errors that look like objects, and who else saw each.

    Args:
        table: the detections.
        classified: what each of them is.
        witnesses: the name and the sure background errors of each other checkpoint (see ``sure_backgrounds``: a high
            score is its own) or mining round, on the same images.
        score: the least of a suspect; ``high_score`` if not given.
    """
    rows = sure_backgrounds(table, classified, score=score)
    suspects = table.select(rows)
    seen = np.zeros((len(rows), len(witnesses)), dtype=bool)
    for place, (_, other) in enumerate(witnesses):
        seen[:, place] = _seen_again(suspects, other)
    order = np.lexsort((-suspects.scores, -seen.sum(axis=1)))
    return Suspects(
        rows[order],
        tuple(name for name, _ in witnesses),
        seen[order],
        high_score(table, classified) if score is None else score,
        score_given=score is not None,
    )


def _seen_again(table: DetectionTable, other: DetectionTable) -> np.ndarray:
    """Which detections have one of the same class in the same place among the others: bool [D]."""
    seen = np.zeros(len(table), dtype=bool)
    theirs = {_key(other, places[0]): places for places in _same_image_and_class(other)}
    for mine in _same_image_and_class(table):
        places = theirs.get(_key(table, mine[0]))
        if places is not None:
            overlaps = _ious(to_coco_boxes(table.boxes[mine]), to_coco_boxes(other.boxes[places]))
            seen[mine] = (overlaps >= SAME_PLACE).any(axis=1)
    return seen


def _key(table: DetectionTable, row: int) -> tuple[int, int]:
    return int(table.image_ids[row]), int(table.category_ids[row])


def _same_image_and_class(table: DetectionTable) -> list[np.ndarray]:
    """The rows of each image and class that has any, in the table's order."""
    order = np.lexsort((table.category_ids, table.image_ids))
    images, categories = table.image_ids[order], table.category_ids[order]
    changes = np.flatnonzero((images[1:] != images[:-1]) | (categories[1:] != categories[:-1])) + 1
    return np.split(order, changes) if len(order) else []


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[D, O], of boxes as COCO has them."""
    return np.asarray(mask.iou(boxes, others, np.zeros(len(others), np.uint8))).reshape(len(boxes), -1)
