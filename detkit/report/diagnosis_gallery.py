"""Which errors a diagnosis shows, and which of them first: the worst of every kind."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from detkit.evaluation.detection_errors import DetectionKind
from detkit.evaluation.diagnosed import Diagnosed
from detkit.evaluation.error_costs import MISSED

OF_EACH_KIND = 100
"""Errors of each kind that are shown if nothing else is asked for."""
OF_EACH_CLASS = 3
"""Beside them so many of each kind and class, that a rare class has its own."""
FOREGROUND_IOU, NEAR = 0.5, 0.1
"""A near miss falls short of the IoU that finds an object by no more than this."""
Box = tuple[float, float, float, float]
WRONG = tuple(kind for kind in DetectionKind if kind > DetectionKind.IGNORED)


@dataclass(frozen=True)
class Item:
    """A wrong detection, or a missed object."""

    kind: str
    """One of ``error_costs.ERRORS``."""
    row: int
    """Of the detection, or of the missed object."""
    image_id: int
    category_id: int
    box: Box
    """xyxy in pixels of the image."""
    score: float | None
    """The detection's; of a missed object that of the detection nearest to it, None where there is none."""
    iou: float
    """Of a detection with the object that it is about, or the nearest; of an object with the detection nearest to it;
    0 where there is none."""
    other_box: Box | None
    """That object or detection."""
    other_category_id: int | None
    near: bool
    """A near miss: of the right class, and within NEAR of the IoU that would have found the object. Both the detection
    and the object that is missed for it are."""
    suspect: int | None = None
    """Its place among the suspected missing labels."""


def choose_items(diagnosed: Diagnosed, of_each_kind: int = OF_EACH_KIND) -> list[Item]:
    """The errors to be shown, the worst of all kinds in turn.

    Of wrong detections the surest are the worst, of missed objects the largest, of near misses the nearest; suspected
    missing labels come in their own order. Beside so many of each there are ``OF_EACH_CLASS`` of each kind and class.
    Other detections that are less sure than the score of the best F1 stand behind all else.
    """
    errors = _Errors(diagnosed)
    suspects = diagnosed.suspects.rows[:of_each_kind]
    near_objects = errors.missed[errors.near_objects[errors.missed]]
    near_objects = near_objects[np.argsort(-errors.object_ious[near_objects], kind="stable")]
    near_rows = np.flatnonzero(errors.near_rows)
    near_rows = near_rows[np.argsort(-errors.ious[near_rows], kind="stable")]
    lists: list[Iterable[tuple[bool, int]]] = [_keys(True, suspects)]
    for kind in reversed(WRONG):
        rows = errors.surest(kind)
        lists.append(_keys(True, _worst(rows, diagnosed.table.category_ids[rows], of_each_kind)))
    categories = diagnosed.ground_truth.object_category_ids[errors.missed]
    lists.append(_keys(False, _worst(errors.missed, categories, of_each_kind)))
    lists += [_keys(False, near_objects[:of_each_kind]), _keys(True, near_rows[:of_each_kind])]
    in_turn = (key for turn in zip_longest(*lists) for key in turn if key is not None)
    places = {row: place for place, row in enumerate(diagnosed.suspects.rows.tolist())}
    items = [
        errors.detection(row, places.get(row)) if is_detection else errors.object(row)
        for is_detection, row in dict.fromkeys(in_turn)
    ]
    # What nobody would see at the score that the detector is used at comes last; the order stays otherwise.
    used = diagnosed.diagnosis.score
    return sorted(
        items,
        key=lambda item: item.kind != MISSED and item.suspect is None and (item.score or 0.0) < used,
    )


def _keys(is_detection: bool, rows: np.ndarray) -> Iterator[tuple[bool, int]]:
    return ((is_detection, row) for row in rows.tolist())


def _worst(rows: np.ndarray, categories: np.ndarray, count: int) -> np.ndarray:
    """The first rows, and the first of each class."""
    order = np.argsort(categories, kind="stable")
    _, starts, counts = np.unique(categories[order], return_index=True, return_counts=True)
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[order] = np.arange(len(rows)) - np.repeat(starts, counts)
    return rows[(np.arange(len(rows)) < count) | (ranks < OF_EACH_CLASS)]


class _Errors:
    """What is asked of the detections and objects of a diagnosis, once."""

    def __init__(self, diagnosed: Diagnosed) -> None:
        self.diagnosed = diagnosed
        table, truth, classified = diagnosed.table, diagnosed.ground_truth, diagnosed.classified
        about = np.where(classified.meant_objects >= 0, classified.meant_objects, classified.nearest_objects)
        self.about = about
        self.ious = _ious(table.boxes, np.append(truth.boxes, np.zeros((1, 4)), axis=0)[about])
        self.missed = _largest(np.flatnonzero(classified.missed), truth.areas)
        self.near_rows = (classified.kinds == DetectionKind.BAD_LOCALISATION) & self._short(self.ious)
        self.nearest, self.object_ious = self._nearest_to_objects()
        self.near_objects = classified.missed & (self.nearest >= 0)
        self.near_objects[self.near_objects] = self.near_rows[self.nearest[self.near_objects]]

    @staticmethod
    def _short(ious: np.ndarray) -> np.ndarray:
        return (ious >= FOREGROUND_IOU - NEAR) & (ious < FOREGROUND_IOU)

    def _nearest_to_objects(self) -> tuple[np.ndarray, np.ndarray]:
        """The wrong detection that is about each object and overlaps it most, -1 for none, and its IoU: [G] each."""
        classified = self.diagnosed.classified
        nearest, ious = np.full(len(classified.found), -1), np.zeros(len(classified.found))
        rows = np.flatnonzero(np.isin(classified.kinds, WRONG) & (classified.meant_objects >= 0))
        rows = rows[np.argsort(self.ious[rows], kind="stable")]
        nearest[self.about[rows]] = rows  # of several on one object the last stays, which overlaps most
        ious[self.about[rows]] = self.ious[rows]
        return nearest, ious

    def surest(self, kind: DetectionKind) -> np.ndarray:
        rows = np.flatnonzero(self.diagnosed.classified.kinds == kind)
        return rows[np.argsort(-self.diagnosed.table.scores[rows], kind="stable")]

    def detection(self, row: int, suspect: int | None) -> Item:
        table, truth = self.diagnosed.table, self.diagnosed.ground_truth
        about = int(self.about[row])
        return Item(
            kind=DetectionKind(int(self.diagnosed.classified.kinds[row])).words,
            row=row,
            image_id=int(table.image_ids[row]),
            category_id=int(table.category_ids[row]),
            box=_box(table.boxes[row]),
            score=float(table.scores[row]),
            iou=float(self.ious[row]),
            other_box=_box(truth.boxes[about]) if about >= 0 else None,
            other_category_id=int(truth.object_category_ids[about]) if about >= 0 else None,
            near=bool(self.near_rows[row]),
            suspect=suspect,
        )

    def object(self, row: int) -> Item:
        table, truth = self.diagnosed.table, self.diagnosed.ground_truth
        nearest = int(self.nearest[row])
        return Item(
            kind=MISSED,
            row=row,
            image_id=int(truth.object_image_ids[row]),
            category_id=int(truth.object_category_ids[row]),
            box=_box(truth.boxes[row]),
            score=float(table.scores[nearest]) if nearest >= 0 else None,
            iou=float(self.object_ious[row]),
            other_box=_box(table.boxes[nearest]) if nearest >= 0 else None,
            other_category_id=int(table.category_ids[nearest]) if nearest >= 0 else None,
            near=bool(self.near_objects[row]),
        )


def _largest(rows: np.ndarray, areas: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-areas[rows], kind="stable")]


def _box(box: np.ndarray) -> Box:
    x0, y0, x1, y1 = box.astype(np.float64).tolist()
    return x0, y0, x1, y1


def _ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each box with the other of its row, xyxy [N, 4] both; 0 where the other has no area: float64 [N]."""
    boxes = boxes.astype(np.float64)
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1)
    return shared / np.maximum(areas - shared, np.finfo(np.float64).tiny)
