"""What a person needs to know of a data set before training on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from detkit.data.coco import CocoAnnotations
from detkit.labels import BACKGROUND, IGNORE
from detkit.ops import match_anchors

SIZES = ("small", "medium", "large")
"""COCO's sizes: width x height below 32 x 32 pixels of the original image, below 96 x 96, and the rest."""
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class ClassStatistics:
    """The objects of one class; crowds are left out of all but their own number."""

    name: str
    images: int
    """Images with at least one object of it."""
    boxes: int
    crowds: int
    by_size: tuple[int, ...]
    """Boxes of each of ``SIZES``."""
    side_quantiles: tuple[float, ...] | None
    """``QUANTILES`` of sqrt(width x height) in pixels; None without boxes."""


@dataclass(frozen=True)
class DataStatistics:
    """A data set in numbers."""

    images: int
    images_without_objects: int
    """Images with no box, or with crowds alone."""
    boxes: int
    crowds: int
    classes: tuple[ClassStatistics, ...]


@dataclass(frozen=True)
class AnchorStatistics:
    """How the anchors of a configuration meet the boxes of a data set."""

    images: int
    """Images looked at, evenly spread over the set."""
    foreground: int
    """Anchors matched to an object, over all these images, with low-quality matches if configured."""
    background: int
    ignored: int
    boxes: tuple[tuple[int, ...], ...]
    """Boxes looked at, for each class and size of ``SIZES``."""
    never_matched: tuple[tuple[int, ...], ...]
    """Of these, boxes that no anchor is ever trained to find: their objects are background to the network."""
    below_threshold: tuple[tuple[int, ...], ...]
    """Of these, boxes to which no anchor is matched by the foreground IoU: low-quality matches may save them."""


def data_statistics(annotations: CocoAnnotations) -> DataStatistics:
    """Count images and boxes, by class and size."""
    objects = ~annotations.crowd
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.offsets))
    return DataStatistics(
        images=len(annotations),
        images_without_objects=len(annotations) - len(np.unique(images[objects])),
        boxes=int(objects.sum()),
        crowds=int(annotations.crowd.sum()),
        classes=tuple(
            _class_statistics(annotations, name, annotations.labels == label, images)
            for label, name in enumerate(annotations.class_names)
        ),
    )


def anchor_statistics(
    annotations: CocoAnnotations,
    anchors_for: Callable[[tuple[int, int]], Sequence[Tensor]],
    resized: Callable[[tuple[int, int]], tuple[int, int]],
    *,
    foreground_iou: float = 0.5,
    background_iou: float = 0.4,
    low_quality: bool = True,
    images: int = 1000,
) -> AnchorStatistics:
    """Match the anchors of a configuration to the boxes of a set, as training would without augmentation.

    Args:
        annotations: the set; crowds are left out, for training ignores them.
        anchors_for: the anchors of each level on a canvas of (height, width), xyxy float32 [A_l, 4].
        resized: (height, width) on the canvas of an image of (height, width).
        foreground_iou, background_iou, low_quality: as for ``match_anchors``.
        images: how many are looked at, at most.
    """
    anchors_on = lru_cache(maxsize=8)(lambda size: torch.cat(list(anchors_for(size))))
    match = partial(match_anchors, foreground_iou=foreground_iou, background_iou=background_iou)
    chosen = np.linspace(0, len(annotations) - 1, min(images, len(annotations))).round().astype(int)
    seen, matched, above = np.zeros((3, len(annotations.boxes)), dtype=bool)
    counts = np.zeros(3, dtype=np.int64)
    for index in chosen.tolist():
        canvas, rows, boxes = _boxes_on_canvas(annotations, index, resized)
        matches = match(anchors_on(canvas), [boxes], low_quality=low_quality)
        strict = match(anchors_on(canvas), [boxes], low_quality=False)
        counts += [int(kind.sum()) for kind in (matches >= 0, matches == BACKGROUND, matches == IGNORE)]
        seen[rows] = True
        matched[rows[matches[matches >= 0].unique().numpy()]] = True
        above[rows[strict[strict >= 0].unique().numpy()]] = True
    foreground, background, ignored = counts.tolist()
    tables = [_by_class_and_size(annotations, rows) for rows in (seen, seen & ~matched, seen & ~above)]
    return AnchorStatistics(len(chosen), foreground, background, ignored, *tables)


def _boxes_on_canvas(
    annotations: CocoAnnotations, index: int, resized: Callable[[tuple[int, int]], tuple[int, int]]
) -> tuple[tuple[int, int], np.ndarray, Tensor]:
    """(height, width) of an image once resized, the rows of its objects, and their boxes there."""
    span = annotations.rows(index)
    rows = np.arange(span.start, span.stop)
    rows = rows[~annotations.crowd[rows]]
    height, width = annotations.sizes[index].tolist()
    canvas = resized((height, width))
    scale = np.array([canvas[1] / width, canvas[0] / height] * 2, dtype=np.float32)
    return canvas, rows, torch.from_numpy(annotations.boxes[rows] * scale)


def _class_statistics(
    annotations: CocoAnnotations, name: str, rows: np.ndarray, images: np.ndarray
) -> ClassStatistics:
    objects = rows & ~annotations.crowd
    sides = np.sqrt(_areas(annotations.boxes[objects]))
    return ClassStatistics(
        name=name,
        images=len(np.unique(images[objects])),
        boxes=int(objects.sum()),
        crowds=int((rows & annotations.crowd).sum()),
        by_size=tuple(np.bincount(_size_index(annotations.boxes[objects]), minlength=3).tolist()),
        side_quantiles=tuple(np.quantile(sides, QUANTILES).tolist()) if len(sides) else None,
    )


def _by_class_and_size(annotations: CocoAnnotations, chosen: np.ndarray) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((len(annotations.class_names), len(SIZES)), dtype=np.int64)
    np.add.at(counts, (annotations.labels[chosen], _size_index(annotations.boxes[chosen])), 1)
    return tuple(map(tuple, counts.tolist()))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:].astype(np.float64) - boxes[:, :2]).prod(axis=1)


def _size_index(boxes: np.ndarray) -> np.ndarray:
    return np.digitize(_areas(boxes), [32**2, 96**2])
