"""The negatives that are trained against: what the detector took for objects, kept for as long as there is room.

Members are of two kinds. *Crops* are pictures, cut from a pool or from training images, that are background as a whole.
*Regions* are boxes in training images, where they stay: any anchor on one counts as a negative.

The file, format version 1, is a NumPy archive (.npz, no pickled objects) of ``format`` ("detkit negatives"),
``format_version``, ``crop_capacity`` and ``region_capacity`` (-1 for none), and a column for each field of
``MinedCrops`` and ``MinedRegions``, named ``crops.files``, ``regions.boxes`` and so on.
"""

import os
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from detkit.errors import DataError
from detkit.files import written_whole

FORMAT = "detkit negatives"
FORMAT_VERSION = 1


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
class MinedRegions(_Rows):
    """Boxes on background, in training images."""

    image_ids: np.ndarray
    """int64 [N]."""
    boxes: np.ndarray
    """xyxy in pixels of the original image, float32 [N, 4]."""
    scores: np.ndarray
    """The latest, float32 [N]: how hard it still is."""
    rounds: np.ndarray
    """When it joined, int32 [N]."""

    def __post_init__(self) -> None:
        self._check()

    @staticmethod
    def none() -> "MinedRegions":
        """No regions."""
        number = np.zeros(0, np.int32)
        return MinedRegions(
            number.astype(np.int64), np.zeros((0, 4), np.float32), number.astype(np.float32), number
        )


@dataclass(frozen=True, eq=False)
class NegativeSet:
    """All negatives; methods return another set.

    Nothing is dropped because it has become easy: a detector forgets what it no longer sees. When there is no room, and
    only then, the easiest go. Each kind has room of its own, or a flood of regions would wash the crops out.
    """

    crops: MinedCrops
    regions: MinedRegions
    crop_capacity: int | None = None
    """None has no end."""
    region_capacity: int | None = None
    """None has no end."""

    @staticmethod
    def empty(*, crop_capacity: int | None = None, region_capacity: int | None = None) -> "NegativeSet":
        """A set without members."""
        return NegativeSet(MinedCrops.none(), MinedRegions.none(), crop_capacity, region_capacity)

    def with_crops(self, crops: MinedCrops) -> tuple["NegativeSet", MinedCrops]:
        """The set with these crops too, and the crops, old or new, that had to make room."""
        kept, evicted = _make_room(self.crops.followed_by(crops), self.crop_capacity)
        return replace(self, crops=kept), evicted

    def with_regions(self, regions: MinedRegions) -> tuple["NegativeSet", MinedRegions]:
        """The set with these regions too, and the regions, old or new, that had to make room."""
        kept, evicted = _make_room(self.regions.followed_by(regions), self.region_capacity)
        return replace(self, regions=kept), evicted

    def with_scores(
        self, *, crops: np.ndarray | None = None, regions: np.ndarray | None = None
    ) -> "NegativeSet":
        """The same members with these latest scores, float32 [N] each; None leaves the scores of a kind."""
        changed = self
        if crops is not None:
            changed = replace(changed, crops=replace(self.crops, scores=crops))
        if regions is not None:
            changed = replace(changed, regions=replace(self.regions, scores=regions))
        return changed

    def save(self, path: str | os.PathLike) -> None:
        """Write the set, whole or not at all."""
        columns: dict[str, Any] = {
            f"{kind}.{field.name}": getattr(rows, field.name)
            for kind, rows in (("crops", self.crops), ("regions", self.regions))
            for field in fields(rows)
        }
        columns |= {
            name: -1 if getattr(self, name) is None else getattr(self, name)
            for name in ("crop_capacity", "region_capacity")
        }
        with written_whole(path) as partial, partial.open("wb") as stream:
            np.savez(stream, format=FORMAT, format_version=FORMAT_VERSION, **columns)


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
        return NegativeSet(
            MinedCrops(**_columns_of("crops", columns)),
            MinedRegions(**_columns_of("regions", columns)),
            _capacity(columns["crop_capacity"]),
            _capacity(columns["region_capacity"]),
        )
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; do the round before") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no negative set ({error}); give the negatives.npz of a round") from None


def _columns_of(kind: str, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        name.removeprefix(f"{kind}."): column
        for name, column in columns.items()
        if name.startswith(f"{kind}.")
    }


def _capacity(number: np.ndarray) -> int | None:
    return None if number < 0 else int(number)


def _make_room(members: Any, capacity: int | None) -> tuple[Any, Any]:
    """The members that stay, in their order, and those that go: the lowest scores, and of equal ones the latest."""
    stays = np.ones(len(members), dtype=bool)
    if capacity is not None:
        stays[np.argsort(-members.scores, kind="stable")[capacity:]] = False
    return members.select(stays), members.select(~stays)


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second])
