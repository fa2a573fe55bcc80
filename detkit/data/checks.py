"""What is wrong with a COCO file, found all at once, without looking at the images."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from detkit.data.columns import Column, Columns, read_columns
from detkit.data.defects import SINGULAR, Defect, Section, Severity

ROUNDING = 0.02
"""Pixels by which a box may pass its image's border unmentioned: coordinates are often rounded to two decimals."""


def check_annotations(tree: dict[str, list]) -> list[Defect]:
    """Every defect of a COCO file as ``columns.read_coco_tree`` gives it: errors, then warnings, then infos."""
    columns, defects = read_columns(tree)
    defects += [*find_errors(columns), *_warnings(columns), *_infos(columns)]
    return sorted(defects, key=lambda defect: defect.rank)


def find_errors(columns: Columns) -> list[Defect]:
    """The defects of well-typed values that make training or evaluation wrong."""
    return [*_image_errors(columns), *_category_errors(columns), *_annotation_errors(columns)]


def float32_corners(boxes: np.ndarray) -> np.ndarray:
    """COCO's x, y, width, height [B, 4] as xyxy float32 [B, 4], added in double precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32)


def rows_of_ids(ids: Column, wanted: Column) -> np.ndarray:
    """First row of ``ids`` that holds each of ``wanted``, int64; -1 where none does."""
    rows = np.flatnonzero(ids.valid)
    if not len(rows):
        return np.full(len(wanted.values), -1)
    order = rows[np.argsort(ids.values[rows], kind="stable")]
    found = order[np.searchsorted(ids.values[order], wanted.values).clip(max=len(order) - 1)]
    return np.where(wanted.valid & (ids.values[found] == wanted.values), found, -1)


def escapes(file_name: str) -> bool:
    """Whether a file name, written on any system, is absolute or steps out of its folder."""
    parts = re.split(r"[/\\]", file_name)
    return parts[0] == "" or re.match(r"[A-Za-z]:", file_name) is not None or ".." in parts


@dataclass(frozen=True, eq=False)
class _Geometry:
    """Every box beside its image."""

    corners: np.ndarray
    """xyxy, float32 [B, 4]."""
    sides: np.ndarray
    """Width and height of the box's image, float64 [B, 2]; infinite where they are not known."""
    finite: np.ndarray
    """Whether all four numbers can be used, bool [B]; False where there is no box either."""
    solid: np.ndarray
    """Finite and with an area, bool [B]."""
    visible: np.ndarray
    """Solid, and some of it is inside the image, bool [B]."""


def _geometry(columns: Columns) -> _Geometry:
    boxes, corners = columns.box.values, float32_corners(columns.box.values)
    finite = columns.box.valid & np.isfinite(boxes).all(axis=1) & np.isfinite(corners).all(axis=1)
    # Corners decide too: a sliver can be lost when its corners are rounded to float32.
    with np.errstate(invalid="ignore"):
        solid = finite & (boxes[:, 2:] > 0).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    known = columns.width.valid & columns.height.valid
    sides = np.stack([columns.width.values, columns.height.values], axis=1).astype(np.float64)
    sides = np.concatenate([np.where(known[:, None], sides, np.inf), [[np.inf, np.inf]]])
    sides = sides[rows_of_ids(columns.image_id, columns.annotation_image)]
    inside = np.clip(corners, 0, np.tile(sides, 2))
    with np.errstate(invalid="ignore"):
        visible = solid & (np.isinf(sides) | (inside[:, 2:] > inside[:, :2])).all(axis=1)
    return _Geometry(corners, sides, finite, solid, visible)


def _image_errors(columns: Columns) -> Iterator[Defect]:
    names = columns.file_name.values.tolist()
    if not names:
        yield Defect("no-images", "error", "images", "the list is empty", "give a file with images")
    for row, first in _repeated(columns.image_id):
        found = f"the id is used twice, by {names[first]!r} and {names[row]!r}"
        yield _defect(columns, "images", row, "image-id-twice", found, remedy="give every image its own id")
    for row in np.flatnonzero(columns.file_name.valid).tolist():
        if escapes(names[row]):
            found = f"file name {names[row]!r} leaves the image folder"
            remedy = "move the file into the folder and name it from there"
            yield _defect(columns, "images", row, "file-name-escapes", found, remedy=remedy)


def _category_errors(columns: Columns) -> Iterator[Defect]:
    ids, names = columns.category_id.values.tolist(), columns.category_name.values.tolist()
    if not ids:
        yield Defect("no-categories", "error", "categories", "the list is empty", "name at least one class")
    for row, first in _repeated(columns.category_id):
        found = f"the id is used twice, by {names[first]!r} and {names[row]!r}"
        yield _defect(
            columns, "categories", row, "category-id-twice", found, remedy="give every class its own id"
        )
    for row, first in _repeated(columns.category_name):
        if ids[first] != ids[row] and columns.category_id.valid[[first, row]].all():
            found = f"the name {names[row]!r} is that of category {ids[first]} too"
            remedy = "rename it, or use one id for both"
            yield replace(
                _defect(columns, "categories", row, "category-name-twice", found, remedy=remedy),
                correction=ids[first],
            )


def _annotation_errors(columns: Columns) -> Iterator[Defect]:
    for row, _ in _repeated(columns.annotation_id):
        found, remedy = "the id is used twice", "give every annotation its own id"
        yield _defect(columns, "annotations", row, "annotation-id-twice", found, remedy=remedy)
    yield from _orphans(columns)
    geometry, boxes, remedy = _geometry(columns), columns.box.values, "correct or remove the box"
    for row in np.flatnonzero(columns.box.valid & ~geometry.finite).tolist():
        found = f"box {_numbers(boxes[row])} is not finite"
        yield _defect(columns, "annotations", row, "box-not-finite", found, remedy=remedy)
    for row in np.flatnonzero(geometry.finite & ~geometry.solid).tolist():
        corners = geometry.corners[row]
        wide = boxes[row, 2] > 0 and corners[2] > corners[0]
        found = f"height is {boxes[row, 3]:g}" if wide else f"width is {boxes[row, 2]:g}"
        yield _defect(columns, "annotations", row, "box-without-area", found, remedy=remedy)
    for row in np.flatnonzero(geometry.solid & ~geometry.visible).tolist():
        found = f"box {_numbers(boxes[row])} lies outside its image of {_size(geometry.sides[row])}"
        yield _defect(columns, "annotations", row, "box-outside", found, remedy=remedy)


def _orphans(columns: Columns) -> Iterator[Defect]:
    parents: list[tuple[Section, Column]] = [
        ("images", columns.annotation_image),
        ("categories", columns.annotation_category),
    ]
    for section, wanted in parents:
        what = SINGULAR[section]
        for row in np.flatnonzero(wanted.valid & (rows_of_ids(columns.ids(section), wanted) < 0)).tolist():
            found = f"{what}_id is {wanted.values[row]}, but there is no such {what}"
            remedy = f"add the {what} or remove the annotation"
            yield _defect(columns, "annotations", row, f"unknown-{what}", found, remedy=remedy)


def _warnings(columns: Columns) -> Iterator[Defect]:
    for row, first in _repeated(columns.file_name):
        name, other = columns.file_name.values[row], columns.image_id.values[first]
        if other != columns.image_id.values[row]:
            found = f"{name!s} is the file of image {other} too"
            remedy = "merge the two: each teaches that the other's objects are background"
            yield _defect(columns, "images", row, "file-name-twice", found, remedy=remedy, severity="warning")
    yield from _annotation_warnings(columns)


def _annotation_warnings(columns: Columns) -> Iterator[Defect]:
    def warning(row: int, kind: str, found: str, remedy: str) -> Defect:
        return _defect(columns, "annotations", row, kind, found, remedy=remedy, severity="warning")

    ids, areas, boxes = columns.annotation_id, columns.area.values, columns.box.values
    for row in np.flatnonzero(ids.valid & (ids.values == 0)).tolist():
        found = "the id is 0, which pycocotools reads as 'not matched': it counts the object as missed"
        yield warning(row, "annotation-id-zero", found, "count from 1")
    for row in np.flatnonzero((areas < 0) | np.isinf(areas)).tolist():
        yield warning(row, "area-unusable", f"area is {areas[row]:g}", "use width x height")
    geometry = _geometry(columns)
    over = np.concatenate([-geometry.corners[:, :2], geometry.corners[:, 2:] - geometry.sides], axis=1)
    known = np.isfinite(geometry.sides).all(axis=1)
    for row in np.flatnonzero(known & geometry.visible & (over > ROUNDING).any(axis=1)).tolist():
        found = f"box {_numbers(boxes[row])} reaches out of its image of {_size(geometry.sides[row])}"
        yield warning(row, "box-partly-outside", found, "clip it")
    for row, first in _same_boxes(columns, geometry.solid):
        found = f"has the same image, class and box as annotation {ids.values[first]}"
        yield warning(row, "box-twice", found, "remove one of the two")


def _same_boxes(columns: Columns, solid: np.ndarray) -> list[tuple[int, int]]:
    """(row, an earlier row) of annotations that are equal in image, class and box."""
    image, category, box = columns.annotation_image, columns.annotation_category, columns.box.values
    rows = np.flatnonzero(solid & image.valid & category.valid)
    keys = [image.values[rows], category.values[rows], *box[rows].T]
    order = np.lexsort(keys[::-1])
    equal = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        equal &= key[order[1:]] == key[order[:-1]]
    places = np.flatnonzero(equal)
    return list(zip(rows[order[places + 1]].tolist(), rows[order[places]].tolist(), strict=True))


def _infos(columns: Columns) -> Iterator[Defect]:
    missing = int(np.isnan(columns.area.values[columns.area.valid]).sum())
    if missing:
        found = f"{missing} have no area"
        yield Defect("area-missing", "info", "annotations", found, "width x height is used")
    ids = np.unique(columns.category_id.values[columns.category_id.valid])
    if len(ids) and (ids[0] != 1 or ids[-1] != len(ids)):
        found = f"the ids of {len(ids)} classes run from {ids[0]} to {ids[-1]}"
        yield Defect("category-ids", "info", "categories", found, "any ids will do, nothing to mend")
    used = np.isin(columns.category_id.values, columns.annotation_category.values)
    empty = columns.category_name.values[columns.category_name.valid & ~used].tolist()
    if empty:
        found = f"{len(empty)} without a box: {', '.join(empty[:10])}{', ...' if len(empty) > 10 else ''}"
        remedy = "leave them out with a list of classes, or find their objects"
        yield Defect("category-without-boxes", "info", "categories", found, remedy)


def _repeated(column: Column) -> list[tuple[int, int]]:
    """(row, first row with the same value) of every value that was there before."""
    rows = np.flatnonzero(column.valid)
    _, first, inverse = np.unique(column.values[rows], return_index=True, return_inverse=True)
    firsts = rows[first[inverse]]
    again = rows != firsts
    return list(zip(rows[again].tolist(), firsts[again].tolist(), strict=True))


def _defect(
    columns: Columns,
    section: Section,
    row: int,
    kind: str,
    found: str,
    *,
    remedy: str,
    severity: Severity = "error",
) -> Defect:
    ids = columns.ids(section)
    number = int(ids.values[row]) if ids.valid[row] else None
    image_id = number if section == "images" else None
    if section == "annotations" and columns.annotation_image.valid[row]:
        image_id = int(columns.annotation_image.values[row])
    return Defect(
        kind=kind,
        severity=severity,
        where=f"{section}[{row}]" if number is None else f"{SINGULAR[section]} {number}",
        found=found,
        remedy=remedy,
        section=section,
        row=row,
        image_id=image_id,
        annotation_id=number if section == "annotations" else None,
    )


def _numbers(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"


def _size(sides: np.ndarray) -> str:
    return f"{sides[0]:.0f} x {sides[1]:.0f}"
