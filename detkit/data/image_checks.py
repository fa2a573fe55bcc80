"""What is wrong with the images of a COCO file, and what reading them takes care of."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from detkit.console import progress
from detkit.data.checks import escapes
from detkit.data.columns import Columns, read_columns
from detkit.data.defects import Defect, Severity
from detkit.data.images import ImageFacts, inspect_image
from detkit.errors import DataError

_Finding = tuple[str, Severity, str, str]
"""Kind, severity, found and remedy."""
_HANDLED = "handled, nothing to mend"


def check_images(tree: dict[str, list], folder: str | os.PathLike) -> list[Defect]:
    """Decode every image of a COCO file (``columns.read_coco_tree``) and compare it with what the file says.

    A file that cannot be read is a defect like any other. Names that leave the folder are not followed.

    Raises:
        DataError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; name the folder that the file names start from")
    columns, _ = read_columns(tree)
    names = columns.file_name.values.tolist()
    rows = [row for row in np.flatnonzero(columns.file_name.valid).tolist() if not escapes(names[row])]
    # OpenCV decodes without holding Python's lock, so threads use every core.
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda row: list(_check_image(columns, row, folder / names[row])), rows)
        return [defect for defects in progress(found, len(rows), "reading images") for defect in defects]


def _check_image(columns: Columns, row: int, path: Path) -> Iterator[Defect]:
    number = int(columns.image_id.values[row]) if columns.image_id.valid[row] else None
    known = columns.height.valid[row] and columns.width.valid[row]
    size = (int(columns.height.values[row]), int(columns.width.values[row])) if known else None
    template = Defect(
        kind="",
        severity="error",
        where=f"images[{row}]" if number is None else f"image {number}",
        found="",
        remedy="",
        section="images",
        row=row,
        image_id=number,
    )
    try:
        facts = inspect_image(path)
    except DataError as error:
        found, _, remedy = str(error).rpartition("; ")
        kind = "file-unreadable" if path.exists() else "file-missing"
        yield replace(template, kind=kind, found=found, remedy=remedy)
        return
    for kind, severity, found, remedy in [*_pixel_findings(facts), *_size_findings(facts, size)]:
        yield replace(
            template,
            kind=kind,
            severity=severity,
            found=f"{path.name} {found}",
            remedy=remedy,
            correction=facts.upright_size,
        )


def _pixel_findings(facts: ImageFacts) -> Iterator[_Finding]:
    if facts.channels == 1:
        yield "grey", "info", "is grey", f"read as three equal channels: {_HANDLED}"
    if facts.channels == 4:
        yield "alpha", "info", "has alpha", f"read without it: {_HANDLED}"
    if facts.bits > 8:
        yield "bits", "info", f"has {facts.bits} bits per channel", f"scaled to 8: {_HANDLED}"


def _size_findings(facts: ImageFacts, size: tuple[int, int] | None) -> Iterator[_Finding]:
    """What there is to say of an image beside the (height, width) of its annotations."""
    found = f"is {facts.upright_size[1]} x {facts.upright_size[0]}"
    if size is None:
        yield "size-known", "info", found, "enter it as width and height"
    elif size == facts.upright_size:
        if facts.oriented:
            yield "exif-turned", "info", "has EXIF orientation", f"turned upright: {_HANDLED}"
    elif size == facts.stored_size:
        found = "has EXIF orientation, but the annotations give its size before the turn"
        yield "exif-ignored", "warning", found, "not turned; see that the boxes fit"
    else:
        found += f", but its annotations say {size[1]} x {size[0]}"
        yield "size-differs", "error", found, "use the files that were annotated, or correct width and height"
