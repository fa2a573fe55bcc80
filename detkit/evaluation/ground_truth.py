"""The objects that detections are measured against, read from COCO annotations."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from detkit.errors import DataError
from detkit.evaluation.json_rows import JsonRows, is_number, some_of, to_coco_boxes
from detkit.files import read_json

REMEDY = "correct the file, or let tools/check_data.py --fix OUT.json write a repaired one"


@dataclass(frozen=True)
class GroundTruth:
    """Objects and crowds of a set of images, in the order of the file.

    An object is known by its row: annotation ids are not kept, for COCO's tools read id 0 as "unmatched".
    """

    image_ids: np.ndarray
    """Every image, with and without objects: int64 [I]."""
    category_ids: tuple[int, ...]
    """The COCO id of each class."""
    class_names: tuple[str, ...]
    object_image_ids: np.ndarray
    """int64 [G]."""
    object_category_ids: np.ndarray
    """int64 [G]."""
    boxes: np.ndarray
    """xyxy in pixels, float64 [G, 4]: metrics are computed on the file's own numbers."""
    areas: np.ndarray
    """Square pixels, by which objects are small, medium or large: float64 [G]. The file's, which is a mask's
    where there is one; else the box's."""
    crowd: np.ndarray
    """Regions that hold many objects and count neither as found nor as missed: bool [G]."""
    dropped_category_ids: tuple[int, ...] = ()
    """Categories of the file that are background here; detections of them are left out."""

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def names(self) -> Mapping[int, str]:
        """The name of each class by its COCO id."""
        return dict(zip(self.category_ids, self.class_names, strict=True))

    def of_classes(self, category_ids: Sequence[int]) -> "GroundTruth":
        """The objects of these classes, in this order and in the same images; all others become background."""
        rows = np.isin(self.object_category_ids, category_ids)
        others = [id_ for id_ in self.category_ids if id_ not in category_ids]
        return replace(
            self,
            category_ids=tuple(category_ids),
            class_names=tuple(self.names[id_] for id_ in category_ids),
            object_image_ids=self.object_image_ids[rows],
            object_category_ids=self.object_category_ids[rows],
            boxes=self.boxes[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            dropped_category_ids=(*self.dropped_category_ids, *others),
        )

    def class_indices(self, category_ids: np.ndarray) -> np.ndarray:
        """The place of each category id in ``category_ids``; int64, of the same length."""
        index = {category_id: index for index, category_id in enumerate(self.category_ids)}
        return np.array([index[category_id] for category_id in category_ids.tolist()], dtype=np.int64)

    def objects_per_class(self) -> list[int]:
        """How many objects, crowds left out, each class has."""
        return [int((self.object_category_ids[~self.crowd] == id_).sum()) for id_ in self.category_ids]


def read_ground_truth(path: str | os.PathLike, classes: Sequence[str] | None = None) -> GroundTruth:
    """Read a COCO annotations file for measuring.

    Args:
        path: the file; ``iscrowd`` of an annotation may be missing, and an ``area`` that is missing, no
            number or negative is width x height, all as ``data.coco.read_coco`` has it.
        classes: names of the classes to measure; all others become background. None measures every class.

    Raises:
        DataError: the file is not COCO annotations, has an unusable box or id, or lacks a class.
    """
    tree = read_json(path)
    if not isinstance(tree, dict):
        found = type(tree).__name__
        raise DataError(f"{path}: COCO annotations were expected, found a {found}; are these the detections?")
    images, annotations, categories = (
        _rows(tree, path, key) for key in ("images", "annotations", "categories")
    )
    boxes = annotations.boxes(with_area=True)
    everything = GroundTruth(
        image_ids=_unique(images.integers("id"), path, "image"),
        category_ids=tuple(_unique(categories.integers("id"), path, "category").tolist()),
        class_names=tuple(str(name) for name in categories.values("name")),
        object_image_ids=annotations.integers("image_id"),
        object_category_ids=annotations.integers("category_id"),
        boxes=boxes,
        areas=_areas(annotations, boxes),
        crowd=annotations.flags("iscrowd"),
    )
    _refuse_unknown(everything.object_image_ids, everything.image_ids, path, "images")
    _refuse_unknown(everything.object_category_ids, everything.category_ids, path, "categories")
    return everything if classes is None else _narrowed(everything, classes, path)


def coco_categories(names: Mapping[int, str]) -> list[dict[str, Any]]:
    """The list ``categories`` of a COCO file, from class names by id."""
    return [{"id": id_, "name": name} for id_, name in names.items()]


def _rows(tree: dict[str, Any], path: str | os.PathLike, key: str) -> JsonRows:
    if key not in tree:
        raise DataError(f"{path}: has no {key!r}, so these are not COCO annotations; {REMEDY}")
    noun = {"images": "image", "annotations": "annotation", "categories": "category"}[key]
    rows = JsonRows(str(path), noun, tree[key], REMEDY)
    if key != "annotations" and not rows.rows:
        raise DataError(f"{path}: {key!r} is empty, so there is nothing to measure; {REMEDY}")
    return rows


def _unique(ids: np.ndarray, path: str | os.PathLike, noun: str) -> np.ndarray:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{path}: {noun} id {some_of(values[counts > 1])}: is there more than once; {REMEDY}")
    return ids


def _refuse_unknown(ids: np.ndarray, known: ArrayLike, path: str | os.PathLike, key: str) -> None:
    unknown = np.setdiff1d(ids, known)
    if len(unknown):
        raise DataError(
            f"{path}: annotations name {key} {some_of(unknown)}, not in its list {key!r}; {REMEDY}"
        )


def _narrowed(everything: GroundTruth, classes: Sequence[str], path: str | os.PathLike) -> GroundTruth:
    """The ground truth of the named classes, in this order."""
    unknown = [repr(name) for name in classes if name not in everything.class_names]
    if unknown or not classes:
        problem = f"has no class {some_of(unknown)}" if unknown else "no class is asked for"
        raise DataError(f"{path}: {problem}; its classes are {', '.join(everything.class_names)}")
    named = list(zip(everything.class_names, everything.category_ids, strict=True))
    kept = dict.fromkeys(id_ for wanted in classes for name, id_ in named if name == wanted)
    return everything.of_classes(list(kept))


def _areas(annotations: JsonRows, boxes: np.ndarray) -> np.ndarray:
    """The annotations' areas, and the boxes' where there is none that can be used; float64 [G]."""
    given = [row.get("area") for row in annotations.rows]
    areas = np.array([area if is_number(area) else np.nan for area in given], dtype=np.float64)
    usable = np.isfinite(areas) & (areas >= 0)
    return np.where(usable, areas, to_coco_boxes(boxes)[:, 2:].prod(axis=1))
