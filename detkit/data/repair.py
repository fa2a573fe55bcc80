"""A repaired copy of a COCO file.

What can be mended without a guess is mended: boxes are clipped, ids given anew, numbers written as text
converted. What cannot be known is dropped: a box, or an image with all its boxes, so that no object is left
unlabelled on purpose. What would change the meaning of classes is left to a person. Every change is told.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from detkit.data.checks import check_annotations
from detkit.data.columns import read_columns
from detkit.data.defects import SINGULAR, Defect
from detkit.errors import DataError

_GONE = object()
_LARGEST = 2**53
"""Whole numbers above it are not exact in other programs."""
_ROUNDS = 3
"""What one round brings to light (a class merged, a size corrected) the next one mends; the last changes nothing."""


@dataclass(frozen=True)
class Change:
    """What was done about a defect."""

    defect: Defect
    done: str

    @property
    def message(self) -> str:
        """Where, found and done, on one line."""
        return f"{self.defect.where}: {self.defect.found}: {self.done}"


def repair(
    tree: dict[str, list], image_defects: Iterable[Defect] = ()
) -> tuple[dict[str, list], list[Change]]:
    """A repaired copy of a COCO file, in which ``check_annotations`` finds no error, and what was changed.

    Args:
        tree: the file, as ``columns.read_coco_tree`` gives it; it is not changed.
        image_defects: what ``check_images`` found: images without a usable file are dropped, sizes corrected.

    Raises:
        DataError: an error remains that only a person can mend, or every image would have to go.
    """
    tree = {**tree, **{name: [_copy(record) for record in tree[name]] for name in SINGULAR}}
    # Values of a wrong type go first: an image whose id is the text "7" makes all its boxes look orphaned.
    changes = _mend(tree, [*read_columns(tree)[1], *image_defects])
    for _ in range(_ROUNDS):
        defects = check_annotations(tree)
        changes += _mend(tree, defects)
    errors = [f"  {defect.message}" for defect in defects if defect.severity == "error"]
    if errors:
        head = f"{len(errors)} defect(s) are left for a person to mend (sizes can be read from the images)"
        raise DataError("\n".join([head, *errors[:10], *(["  ..."] if len(errors) > 10 else [])]))
    _fill_in(tree["annotations"])
    return tree, changes


def _mend(tree: dict[str, list], defects: Iterable[Defect]) -> list[Change]:
    """One round of repairs, in place."""
    repairs = _Repairs(tree)
    changes = []
    for defect in defects:
        action = _ACTIONS.get(defect.kind)
        record = None if defect.section is None else tree[defect.section][defect.row]
        done = action(repairs, defect, record) if action and record is not _GONE else None
        if done:
            changes.append(Change(defect, done))
    repairs.finish()
    return changes


class _Repairs:
    """One round: a value is changed at once, what is dropped leaves its list at the end, so that rows stay."""

    def __init__(self, tree: dict[str, list]) -> None:
        self.tree = tree
        self.gone_images: set[int] = set()
        self.merged_categories: dict[int, int] = {}
        ids = [record["id"] for record in tree["annotations"] if _has_id(record)]
        self.last_id = max((number for number in ids if number < _LARGEST), default=0)
        self.images_before = len(tree["images"])

    @cached_property
    def boxes_of_image(self) -> dict[Any, list[list[float]]]:
        boxes = defaultdict(list)
        for record in self.tree["annotations"]:
            if isinstance(record, dict) and type(record.get("image_id")) is int:
                box = _numbers(record.get("bbox"))
                if box is not None and all(map(math.isfinite, box)):
                    boxes[record["image_id"]].append(box)
        return boxes

    @cached_property
    def images_of_id(self) -> dict[int, list[dict]]:
        images = defaultdict(list)
        for record in self.tree["images"]:
            if _has_id(record):
                images[record["id"]].append(record)
        return images

    def finish(self) -> None:
        """Take out what was dropped."""
        tree, gone = self.tree, self.gone_images
        for name in SINGULAR:
            tree[name] = [record for record in tree[name] if record is not _GONE]
        tree["images"] = [image for image in tree["images"] if not (_has_id(image) and image["id"] in gone)]
        if self.images_before and not tree["images"]:
            raise DataError("no image would be left; is the image folder the right one?")
        if gone:
            tree["annotations"] = [item for item in tree["annotations"] if item.get("image_id") not in gone]
        for record in tree["annotations"] if self.merged_categories else []:
            category = record.get("category_id")
            record["category_id"] = self.merged_categories.get(category, category)

    def drop(self, defect: Defect, record: Any) -> str:
        """Drop an item; an image takes its boxes along."""
        section = defect.section or "annotations"
        self.tree[section][defect.row] = _GONE
        if section == "images" and _has_id(record):
            self.gone_images.add(record["id"])
            return "dropped, with its boxes"
        return "dropped"

    def renumber(self, defect: Defect, record: dict) -> str:
        self.last_id += 1
        record["id"] = self.last_id
        return f"its id is now {self.last_id}"

    def clip(self, defect: Defect, record: dict) -> str:
        """Cut a box at the borders of its image."""
        image = self.images_of_id[record["image_id"]][0]
        x, y, width, height = record["bbox"]
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, image["width"]), min(y + height, image["height"])
        record["bbox"] = [left, top, right - left, bottom - top]
        if "area" in record:
            record["area"] = min(_number(record["area"]) or math.inf, (right - left) * (bottom - top))
        return "clipped to [{:g}, {:g}, {:g}, {:g}]".format(*record["bbox"])

    def leave_out_area(self, defect: Defect, record: dict) -> str:
        del record["area"]
        return "width x height is used"

    def part_images(self, defect: Defect, record: dict) -> str:
        """Two images under one id: the same file twice is one, else no box says which of them it belongs to."""
        names = {image.get("file_name") for image in self.images_of_id[record["id"]]}
        if len(names) > 1:
            return f"{self.drop(defect, record)}: no box says which of the {len(names)} files it is on"
        self.tree["images"][defect.row] = _GONE
        return "the second is dropped, it is the same file"

    def correct_size(self, defect: Defect, record: dict) -> str:
        """The file's size, unless the boxes may have been drawn on another picture."""
        height, width = defect.correction
        swapped = (record.get("height"), record.get("width")) == (width, height)
        boxes = self.boxes_of_image[record.get("id")]
        fit = all(x + w <= width and y + h <= height for x, y, w, h in boxes)
        if defect.kind == "size-differs" and boxes and not (swapped and fit):
            return f"{self.drop(defect, record)}: nobody knows which picture they were drawn on"
        record["width"], record["height"] = width, height
        return f"the size is now {width} x {height}"

    def merge_class(self, defect: Defect, record: dict) -> str:
        """One class under two ids."""
        self.merged_categories[record["id"]] = defect.correction
        self.tree["categories"][defect.row] = _GONE
        return f"its boxes now have category {defect.correction}"

    def drop_equal_class(self, defect: Defect, record: dict) -> str | None:
        """One class listed twice; two classes under one id are left to a person."""
        for other in self.tree["categories"]:
            if (
                other is not _GONE
                and other.get("id") == record["id"]
                and other.get("name") != record.get("name")
            ):
                return None
        return self.drop(defect, record)

    def convert(self, defect: Defect, record: Any) -> str | None:
        """A value that is missing or of a wrong type."""
        if not isinstance(record, dict):
            return self.drop(defect, record)
        key = defect.key or ""
        if (defect.section, key) == ("annotations", "id"):
            return self.renumber(defect, record)
        converted = _CONVERTERS[key](record.get(key))
        if converted is not None:
            record[key] = converted
            return f"{key} is now {converted!r}"
        if key in ("area", "iscrowd"):
            record.pop(key, None)
            return "width x height is used" if key == "area" else "0 is used"
        if defect.section == "categories" or key in ("width", "height"):
            return None
        return self.drop(defect, record)


_ACTIONS: dict[str, Callable[[_Repairs, Defect, Any], str | None]] = {
    "missing-key": _Repairs.convert,
    "wrong-value": _Repairs.convert,
    "image-id-twice": _Repairs.part_images,
    "category-id-twice": _Repairs.drop_equal_class,
    "category-name-twice": _Repairs.merge_class,
    "annotation-id-twice": _Repairs.renumber,
    "annotation-id-zero": _Repairs.renumber,
    "box-partly-outside": _Repairs.clip,
    "area-unusable": _Repairs.leave_out_area,
    "size-known": _Repairs.correct_size,
    "size-differs": _Repairs.correct_size,
    **dict.fromkeys(("file-name-escapes", "file-missing", "file-unreadable"), _Repairs.drop),
    **dict.fromkeys(("unknown-image", "unknown-category", "box-twice"), _Repairs.drop),
    **dict.fromkeys(("box-not-finite", "box-without-area", "box-outside"), _Repairs.drop),
}


def _fill_in(annotations: list[dict]) -> None:
    """The two keys that other programs require."""
    for record in annotations:
        record["iscrowd"] = int(record.get("iscrowd") or 0)
        if record.get("area") is None or math.isnan(record["area"]):
            record["area"] = record["bbox"][2] * record["bbox"][3]


def _copy(record: Any) -> Any:
    return dict(record) if isinstance(record, dict) else record


def _has_id(record: Any) -> bool:
    return isinstance(record, dict) and type(record.get("id")) is int


def _number(value: Any) -> float | None:
    """A number, also one written as text."""
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and abs(number) < _LARGEST else None


def _side(value: Any) -> int | None:
    number = _whole(value)
    return number if number is not None and 0 < number < 2**31 else None


def _flag(value: Any) -> int | None:
    number = _whole(value)
    return number if number in (0, 1) else None


def _numbers(value: Any) -> list[float] | None:
    numbers = [_number(item) for item in value] if isinstance(value, list) else []
    found = [number for number in numbers if number is not None]
    return found if len(numbers) == len(found) == 4 else None


def _text(value: Any) -> str | None:
    return str(value) if type(value) in (int, float) else None


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "id": _whole,
    "image_id": _whole,
    "category_id": _whole,
    "width": _side,
    "height": _side,
    "file_name": _text,
    "name": _text,
    "bbox": _numbers,
    "iscrowd": _flag,
    "area": _number,
}
