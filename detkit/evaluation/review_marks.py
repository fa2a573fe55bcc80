"""What a person said of places where a detector fires and no object is labelled: review_marks.json.

The file, format version 1, is an object of JSON: ``format`` ("detkit review marks"), ``format_version`` and ``marks``,
a list of objects with ``file_name`` (as the annotations have it, or relative to the folder of a pool), ``box`` (xyxy in
pixels of the original image), ``category`` (the class that the detector saw there), ``score``, ``sha256`` (the first 16
digits of the image file's, so that a file of that name elsewhere is not taken for it; it may be left out) and ``mark``:

- ``accepted``: it is background, and right to be learned against. Mining takes it however sure the detector is.
- ``rejected``: it is, or may be, an object that nobody labelled. It is never a negative, neither a mined one nor an
  anchor of a training image.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from detkit.errors import DataError
from detkit.files import read_json, sha256_of, write_text

Mark = Literal["accepted", "rejected"]


class ReviewMark(BaseModel):
    """One place."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    file_name: str
    box: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]
    category: str
    score: FiniteFloat
    mark: Mark
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> "ReviewMark":
        x1, y1, x2, y2 = self.box
        if not self.file_name:
            raise ValueError("file_name is empty")
        if not (x1 < x2 and y1 < y2):
            raise ValueError(f"box {self.box} must be [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
        return self


class ReviewMarks(BaseModel):
    """All of a file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal["detkit review marks"] = "detkit review marks"
    format_version: Literal[1] = 1
    marks: list[ReviewMark] = []

    def boxes(self, mark: Mark) -> dict[str, np.ndarray]:
        """The boxes with this mark, xyxy float64 [M, 4], by the name of their image."""
        found: dict[str, list[list[float]]] = {}
        for one in self.marks:
            if one.mark == mark:
                found.setdefault(one.file_name, []).append(one.box)
        return {name: np.array(boxes, dtype=np.float64) for name, boxes in found.items()}

    @property
    def digest(self) -> str:
        """Tells these marks from others."""
        return hashlib.sha256(json.dumps(self.model_dump()).encode()).hexdigest()[:16]

    def of_images(self, folder: str | os.PathLike, names: Iterable[str]) -> "ReviewMarks":
        """The marks of these images, and not of others of the same name.

        Args:
            folder: what the names start from; only files with marks are looked at.
            names: of the images.

        Raises:
            DataError: a file with marks cannot be read.
        """
        known = set(names)
        digests: dict[str, str] = {}

        def is_of(mark: ReviewMark) -> bool:
            name = mark.file_name
            if name not in known or mark.sha256 is None:
                return name in known
            if name not in digests:
                digests[name] = sha256_of(Path(folder, name))[:16]
            return digests[name] == mark.sha256

        return ReviewMarks(marks=[mark for mark in self.marks if is_of(mark)])

    def without(self, *others: "ReviewMarks") -> list[ReviewMark]:
        """The marks that are in none of these."""
        known = [mark for other in others for mark in other.marks]
        return [mark for mark in self.marks if mark not in known]


NO_MARKS = ReviewMarks()


def read_review_marks(path: str | os.PathLike) -> ReviewMarks:
    """Read the marks of a file.

    Raises:
        DataError: the file is not there, or is no such file.
    """
    tree = read_json(path)
    if not isinstance(tree, dict) or tree.get("format") != NO_MARKS.format:
        raise DataError(
            f"{path}: is no file of review marks; save one from diagnosis.html (tools/diagnose.py)"
        )
    try:
        return ReviewMarks.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {place}: {first['msg']}; save the file anew from diagnosis.html") from None


def write_review_marks(path: str | os.PathLike, marks: Sequence[ReviewMark]) -> None:
    """Write marks, whole or not at all."""
    tree = ReviewMarks(marks=list(marks)).model_dump()
    write_text(Path(path), json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
