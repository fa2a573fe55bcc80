"""Lists of JSON objects, read key by key into checked arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from detkit.errors import DataError

NAMED = 3
"""Offenders that a message names; the others are counted."""


def some_of(values: Iterable[Any]) -> str:
    """The first few values as text, and how many more there are."""
    found = [str(value) for value in values]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


@dataclass(frozen=True)
class JsonRows:
    """The rows of one list of a JSON file; every method reads one key of all of them.

    Raises:
        DataError: a row lacks the key or has a value of another kind; the first such rows are named.
    """

    source: str
    """The file, for messages."""
    noun: str
    """What a row is, for messages."""
    rows: list[dict[str, Any]]
    remedy: str
    """What to do about a bad row, for messages."""

    def __post_init__(self) -> None:
        if not isinstance(self.rows, list):
            found = type(self.rows).__name__
            raise DataError(
                f"{self.source}: a list of {self.noun}s was expected, found {found}; {self.remedy}"
            )
        self._refuse([not isinstance(row, dict) for row in self.rows], "is not an object with keys")

    def values(self, key: str) -> list[Any]:
        """The values as they are."""
        try:
            return [row[key] for row in self.rows]
        except KeyError:
            raise self._error([key not in row for row in self.rows], f"has no {key!r}") from None

    def integers(self, key: str) -> np.ndarray:
        """Whole numbers (1.0 is one), int64 [N]."""
        values = self.values(key)
        self._refuse([not _is_whole(value) for value in values], f"{key!r} is not a whole number", values)
        # Not by way of float64, which has no room for the last digits of a long id.
        return np.array([int(value) for value in values], dtype=np.int64)

    def numbers(self, key: str) -> np.ndarray:
        """Finite numbers, float64 [N]."""
        values = self.values(key)
        numbers = _numbers(values, (len(values),))
        if numbers is None:
            raise self._error([not is_number(value) for value in values], f"{key!r} is not a number", values)
        self._refuse(~np.isfinite(numbers), f"{key!r} is not finite", values)
        return numbers

    def flags(self, key: str) -> np.ndarray:
        """0 or 1 (false and true are these), and 0 where the key is missing or null; bool [N]."""
        values = [row.get(key) for row in self.rows]
        self._refuse([not _is_flag(value) for value in values], f"{key!r} is not 0 or 1", values)
        return np.array(values, dtype=bool)

    def boxes(self, *, with_area: bool = False) -> np.ndarray:
        """The key bbox, [x, y, width, height] as COCO has it, as xyxy float64 [N, 4].

        float64, unlike boxes elsewhere: float32 would part overlaps that are equal, or move them over a
        threshold, and change the metrics.

        Args:
            with_area: refuse a width or height of 0 too.
        """
        values = self.values("bbox")
        boxes = _numbers(values, (len(values), 4))
        if boxes is None:
            raise self._error([not _is_box(value) for value in values], "'bbox' is not four numbers", values)
        self._refuse(~np.isfinite(boxes).all(axis=1), "'bbox' is not finite", values)
        self._refuse((boxes[:, 2:] < 0).any(axis=1), "'bbox' has a negative width or height", values)
        if with_area:
            self._refuse((boxes[:, 2:] == 0).any(axis=1), "'bbox' has a width or height of 0", values)
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    def _refuse(self, bad: Any, problem: str, values: list[Any] | None = None) -> None:
        if np.any(bad):
            raise self._error(bad, problem, values)

    def _error(self, bad: Any, problem: str, values: list[Any] | None = None) -> DataError:
        rows = np.flatnonzero(bad).tolist()
        found = f", found {values[rows[0]]!r}" if values is not None and rows else ""
        return DataError(
            f"{self.source}: {self.noun} {some_of(rows)} (counted from 0): {problem}{found}; {self.remedy}"
        )


def to_coco_boxes(boxes: np.ndarray) -> np.ndarray:
    """xyxy [N, 4] to [x, y, width, height] float64 [N, 4], as the file had them.

    Adding a width to x and taking x away again leaves an error in the last digit; nine decimals remove it, so
    that a box of 32 by 32 stays on its side of the limit between small and medium.
    """
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], np.round(boxes[:, 2:] - boxes[:, :2], 9)], axis=1)


def _numbers(values: list[Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """``values`` as float64 of this shape, or None where they are anything else."""
    if not values:
        return np.zeros(shape)
    try:
        numbers = np.asarray(values)
    except ValueError:
        return None
    if numbers.shape != shape or numbers.dtype.kind not in "if":
        return None
    return numbers.astype(np.float64)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that fits 64 bits; NaN and infinity are."""
    if isinstance(value, int):
        return not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, float)


def _is_whole(value: Any) -> bool:
    return is_number(value) and -(2**63) <= value < 2**63 and value == int(value)


def _is_flag(value: Any) -> bool:
    return value is None or (type(value) in (int, bool) and value in (0, 1))


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(is_number(item) for item in value)
