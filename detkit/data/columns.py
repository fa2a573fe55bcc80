"""A COCO file as columns: one array per key, with what could not be read set apart.

JSON arrives as millions of small Python objects; checks and reading want arrays. A value that is missing or
of a wrong type is reported once, here, and masked, so that later checks see well-typed values alone.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detkit.data.defects import SINGULAR, Defect, Section
from detkit.errors import DataError
from detkit.files import read_json

_SECTIONS: tuple[Section, ...] = ("images", "annotations", "categories")


@dataclass(frozen=True, eq=False)
class Column:
    """The values of one key; where ``valid`` is False the value is a neutral stand-in."""

    values: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, eq=False)
class Columns:
    """The keys of a COCO file that detection needs; row i is item i of the file's list."""

    image_id: Column
    file_name: Column
    height: Column
    width: Column
    annotation_id: Column
    annotation_image: Column
    annotation_category: Column
    box: Column
    """float64 [B, 4], COCO's x, y, width, height."""
    crowd: Column
    area: Column
    """NaN where it is missing."""
    category_id: Column
    category_name: Column

    def ids(self, section: Section) -> Column:
        """The ids of one of the file's three lists."""
        return {"images": self.image_id, "annotations": self.annotation_id, "categories": self.category_id}[
            section
        ]


@dataclass(frozen=True)
class _Kind:
    """What is expected of a value, and how it is stored."""

    accepts: Callable[[Any], bool]
    expected: str
    neutral: Any
    dtype: Any
    default: Any = None
    """Stands for a key that is missing or null; None makes the key required."""


def _is_integer(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**62


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_integer(value)


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_text(value: Any) -> bool:
    return type(value) is str and bool(value.strip()) and "\0" not in value


def _is_flag(value: Any) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


_INTEGER = _Kind(_is_integer, "a whole number", 0, np.int64)
_SIDE = _Kind(_is_side, "a whole number of pixels above 0", 0, np.int64)
_TEXT = _Kind(_is_text, "a text", "", np.str_)
_BOX = _Kind(_is_box, "four numbers [x, y, width, height]", [0, 0, 0, 0], np.float64)
_FLAG = _Kind(_is_flag, "0 or 1", 0, np.bool_, default=0)
_AREA = _Kind(_is_number, "a number", math.nan, np.float64, default=math.nan)


def read_coco_tree(path: str | os.PathLike) -> dict[str, list]:
    """Read a COCO file as it is: an object with at least the lists images, annotations and categories.

    Raises:
        DataError: the file cannot be read, is not JSON (with line and column), or is no COCO ground truth.
    """
    tree = read_json(path)
    if not isinstance(tree, dict):
        found = "a list, as results files do" if isinstance(tree, list) else f"a {type(tree).__name__}"
        raise DataError(f"{path}: holds {found}; COCO annotations are an object with {', '.join(_SECTIONS)}")
    wrong = [name for name in _SECTIONS if not isinstance(tree.get(name), list)]
    if wrong:
        raise DataError(f"{path}: has no list {' and no list '.join(wrong)}; COCO annotations need all three")
    return tree


def read_columns(tree: dict[str, list]) -> tuple[Columns, list[Defect]]:
    """The columns of a COCO file, and a defect for every value that is missing or of a wrong type."""
    defects: list[Defect] = []

    def column(section: Section, key: str, kind: _Kind) -> Column:
        return _read_column(tree[section], section, key, kind, defects)

    columns = Columns(
        image_id=column("images", "id", _INTEGER),
        file_name=column("images", "file_name", _TEXT),
        height=column("images", "height", _SIDE),
        width=column("images", "width", _SIDE),
        annotation_id=column("annotations", "id", _INTEGER),
        annotation_image=column("annotations", "image_id", _INTEGER),
        annotation_category=column("annotations", "category_id", _INTEGER),
        box=column("annotations", "bbox", _BOX),
        crowd=column("annotations", "iscrowd", _FLAG),
        area=column("annotations", "area", _AREA),
        category_id=column("categories", "id", _INTEGER),
        category_name=column("categories", "name", _TEXT),
    )
    return columns, defects


def _read_column(
    records: Sequence[Any], section: Section, key: str, kind: _Kind, defects: list[Defect]
) -> Column:
    values = [record.get(key) if isinstance(record, dict) else None for record in records]
    if kind.default is not None:
        values = [kind.default if value is None else value for value in values]
    valid = np.fromiter(map(kind.accepts, values), bool, len(values))
    for row in np.flatnonzero(~valid).tolist():
        defects.append(_bad_value(section, row, records[row], key, kind))
        values[row] = kind.neutral
    array = np.array(values, dtype=kind.dtype)
    return Column(array.reshape(-1, 4) if kind is _BOX else array, valid)


def _bad_value(section: Section, row: int, record: Any, key: str, kind: _Kind) -> Defect:
    is_object = isinstance(record, dict)
    number = record["id"] if is_object and key != "id" and _is_integer(record.get("id")) else None
    if not is_object:
        found = f"is {_shown(record)}, not an object with the key {key}"
    elif key not in record:
        found = f"{key} is missing"
    else:
        found = f"{key} is {_shown(record[key])}, not {kind.expected}"
    return Defect(
        kind="missing-key" if is_object and key not in record else "wrong-value",
        # The area decides in which size a box is measured and no more, and width x height can stand for it.
        severity="warning" if key == "area" else "error",
        where=f"{section}[{row}]" if number is None else f"{SINGULAR[section]} {number}",
        found=found,
        remedy="width x height is used" if key == "area" else f"give {kind.expected}",
        section=section,
        row=row,
        key=key,
        image_id=number if section == "images" else None,
        annotation_id=number if section == "annotations" else None,
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
