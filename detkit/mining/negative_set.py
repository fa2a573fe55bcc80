"""The crops that are trained against: what the detector took for objects, kept for as long as there is room.

A crop is a picture, cut from a pool or from training images, that is background as a whole. (What counts as a negative
in training images, where it stays, is remembered by ``detkit.negative_regions``.)

The file, format version 1, is a NumPy archive (.npz, no pickled objects) of ``format`` ("detkit negatives"),
``format_version``, ``capacity`` (-1 for none), and a column for each field of ``MinedCrops``, named ``crops.files`` and
so on.
"""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from detkit.errors import DataError
from detkit.files import written_whole

FORMAT = "detkit negatives"
FORMAT_VERSION = 1


def real_paths(files: np.ndarray) -> np.ndarray:
    """Of files [N], each as it is known without links and relative parts: str [N]."""
    return np.array([os.path.realpath(file) for file in files.tolist()], dtype=str)


class _Rows:
    """Columns of equal length; every field of a subclass is one."""

    def __len__(self) -> int:
        return len(self._columns()[0])

    def select(self, rows: np.ndarray) -> Self:
        """These rows: bool [N], or indices."""
        return type(self)(*(column[rows] for column in self._columns()))

    def followed_by(self, others: Self) -> Self:
        """These rows and then the others."""
        return type(self)(*map(_joined, self._columns(), others._columns()))

    def _columns(self) -> list[np.ndarray]:
        return [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]

    def _check(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")


@dataclass(frozen=True, eq=False)
class MinedCrops(_Rows):
    """Pictures of background."""

    files: np.ndarray
    """Name of each picture in the folder of crops, str [N]."""
    sizes: np.ndarray
    """(height, width) of each picture, int32 [N, 2]."""
    sources: np.ndarray
    """The image file that it was cut from, str [N]."""
    boxes: np.ndarray
    """The false positive, xyxy in pixels of the source, float32 [N, 4]."""
    windows: np.ndarray
    """What was cut out, xyxy in pixels of the source, float32 [N, 4]."""
    category_ids: np.ndarray
    """What the detector took it for, int64 [N]."""
    scores: np.ndarray
    """The latest, float32 [N]: how hard it still is."""
    rounds: np.ndarray
    """When it joined, int32 [N]."""
    hashes: np.ndarray
    """What each false positive looks like (see ``crops.Crop``), uint64 [N]."""

    def __post_init__(self) -> None:
        self._check()

    @cached_property
    def real_sources(self) -> np.ndarray:
        """The source of each, however rounds were told its folder: str [N]."""
        return real_paths(self.sources)

    @cached_property
    def false_positives(self) -> np.ndarray:
        """Where each shows its false positive, xyxy in its own pixels, float32 [N, 4]; cut where the crop ends."""
        scale = self.sizes[:, ::-1] / (self.windows[:, 2:] - self.windows[:, :2])
        boxes = (self.boxes - np.tile(self.windows[:, :2], 2)) * np.tile(scale, 2)
        return boxes.clip(0, np.tile(self.sizes[:, ::-1], 2)).astype(np.float32)

    def touching(self, places: Sequence[tuple[str, Sequence[float]]]) -> np.ndarray:
        """Which crops share a pixel or more with one of these boxes, xyxy in pixels of their file: bool [N]."""
        found = np.zeros(len(self), dtype=bool)
        left, top, right, bottom = self.windows.T
        for file, (x1, y1, x2, y2) in places:
            across = np.minimum(right, x2) - np.maximum(left, x1)
            down = np.minimum(bottom, y2) - np.maximum(top, y1)
            found |= (np.minimum(across, down) >= 1) & (self.real_sources == os.path.realpath(file))
        return found

    @staticmethod
    def none() -> "MinedCrops":
        """No crops."""
        text, number, boxes = np.zeros(0, str), np.zeros(0, np.int32), np.zeros((0, 4), np.float32)
        return MinedCrops(
            files=text,
            sizes=np.zeros((0, 2), np.int32),
            sources=text,
            boxes=boxes,
            windows=boxes,
            category_ids=number.astype(np.int64),
            scores=number.astype(np.float32),
            rounds=number,
            hashes=number.astype(np.uint64),
        )


@dataclass(frozen=True, eq=False)
class NegativeSet:
    """The crops of all rounds; methods return another set.

    Nothing is dropped because it has become easy: a detector forgets what it no longer sees. When there is no room, and
    only then, the easiest go.
    """

    crops: MinedCrops
    capacity: int | None = None
    """None has no end."""

    @staticmethod
    def empty(*, capacity: int | None = None) -> "NegativeSet":
        """A set without members."""
        return NegativeSet(MinedCrops.none(), capacity)

    def with_crops(self, crops: MinedCrops) -> tuple["NegativeSet", MinedCrops]:
        """The set with these crops too, and the crops, old or new, that had to make room."""
        stays = np.ones(len(self.crops) + len(crops), dtype=bool)
        everyone = self.crops.followed_by(crops)
        if self.capacity is not None:
            # The lowest scores go, and of equal ones the latest.
            stays[np.argsort(-everyone.scores, kind="stable")[self.capacity :]] = False
        return replace(self, crops=everyone.select(stays)), everyone.select(~stays)

    def without(self, rows: np.ndarray) -> tuple["NegativeSet", MinedCrops]:
        """The set without these of its crops, bool [N], and the crops that left."""
        return replace(self, crops=self.crops.select(~rows)), self.crops.select(rows)

    def with_scores(self, scores: np.ndarray) -> "NegativeSet":
        """The same crops with these latest scores, float32 [N]."""
        return replace(self, crops=replace(self.crops, scores=scores))

    def save(self, path: str | os.PathLike) -> None:
        """Write the set, whole or not at all."""
        columns: dict[str, Any] = {
            f"crops.{field.name}": getattr(self.crops, field.name) for field in fields(self.crops)
        }
        capacity = -1 if self.capacity is None else self.capacity
        with written_whole(path) as partial, partial.open("wb") as stream:
            np.savez(stream, format=FORMAT, format_version=FORMAT_VERSION, capacity=capacity, **columns)


def load_negative_set(path: str | os.PathLike) -> NegativeSet:
    """Read a set.

    Raises:
        DataError: the file is not there, is no negative set, or has a format version that this detkit does not know.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as archive:
            columns = dict(archive)
        if str(columns["format"]) != FORMAT:
            raise ValueError(f"its format is {columns['format']}")
        if int(columns["format_version"]) != FORMAT_VERSION:
            raise DataError(
                f"{path}: has format version {columns['format_version']}, this detkit reads version {FORMAT_VERSION}; "
                "use the detkit that wrote it, or mine again"
            )
        crops = {
            name.removeprefix("crops."): column
            for name, column in columns.items()
            if name.startswith("crops.")
        }
        capacity = int(columns["capacity"])
        return NegativeSet(MinedCrops(**crops), None if capacity < 0 else capacity)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; do the round before") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no negative set ({error}); give the negatives.npz of a round") from None


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second])
