"""Filling canvases with rectangles (guillotine cuts: Jylänki, 2010, "A thousand ways to pack the bin", section 3)."""

from dataclasses import dataclass

import numpy as np

_BLOCK = 32
"""Rectangles that are sorted by size before they are laid."""


@dataclass(frozen=True, eq=False)
class PackedCanvas:
    """A canvas, the rectangles on it and what they leave over."""

    items: np.ndarray
    """Which rectangles lie on it, int64 [C]."""
    places: np.ndarray
    """Where each lies, xyxy in pixels, int32 [C, 4]."""
    uncovered: np.ndarray
    """What no rectangle covers, as rectangles that do not overlap, xyxy in pixels, int32 [U, 4]."""


def pack(sizes: np.ndarray, canvas: tuple[int, int]) -> list[PackedCanvas]:
    """Lay rectangles on canvases, roughly in their order: the first ones on the first canvases.

    They are taken a few at a time, of those the largest first, which wastes less. A rectangle goes where, of all the
    room on the canvases so far, it leaves the least of a side; only where it has no room a new canvas begins. What is
    left of the last canvas is filled with the first rectangles again.

    Args:
        sizes: (height, width) of each rectangle in pixels, int [N, 2].
        canvas: (height, width) in pixels.

    Raises:
        ValueError: a rectangle is empty or larger than the canvas.
    """
    if len(sizes) and ((sizes > np.array(canvas)).any() or sizes.min() < 1):
        raise ValueError(f"rectangles of {sizes.min(axis=0)} to {sizes.max(axis=0)} on a canvas of {canvas}")
    canvases = _Canvases(canvas)
    wanted = [(item, tuple(sizes[item].tolist())) for item in _largest_first(sizes)]
    for item, (height, width) in wanted:
        if not canvases.add(item, height, width):
            canvases.begin()
            canvases.add(item, height, width)
    last = len(canvases.items) - 1
    # What does not fit now will not fit later.
    while wanted:
        wanted = [(item, size) for item, size in wanted if canvases.add(item, *size, first_canvas=last)]
    return canvases.packed()


def _largest_first(sizes: np.ndarray) -> list[int]:
    """Every row, block by block; in each block those of the largest area first."""
    areas = sizes[:, 0].astype(np.int64) * sizes[:, 1]
    blocks = np.arange(len(sizes)) // _BLOCK
    return np.lexsort((-areas, blocks)).tolist()


class _Canvases:
    """Canvases that are being filled."""

    def __init__(self, canvas: tuple[int, int]) -> None:
        self.canvas = canvas
        self.items: list[list[int]] = []
        self.places: list[list[list[int]]] = []
        self._room = np.zeros((0, 5), dtype=np.int32)  # canvas, x1, y1, x2, y2

    def begin(self) -> None:
        height, width = self.canvas
        self._room = np.concatenate(
            [self._room, np.array([[len(self.items), 0, 0, width, height]], np.int32)]
        )
        self.items.append([])
        self.places.append([])

    def add(self, item: int, height: int, width: int, *, first_canvas: int = 0) -> bool:
        """Lay a rectangle on a canvas, ``first_canvas`` or a later one, if there is room."""
        room = self._room
        spare = np.minimum(room[:, 3] - room[:, 1] - width, room[:, 4] - room[:, 2] - height)
        fits = (spare >= 0) & (room[:, 0] >= first_canvas)
        if not fits.any():
            return False
        row = int(np.where(fits, spare, np.iinfo(np.int32).max).argmin())
        number, x, y, *_ = room[row].tolist()
        self.items[number].append(item)
        self.places[number].append([x, y, x + width, y + height])
        self._room = np.concatenate([room[:row], room[row + 1 :], _left_over(room[row], height, width)])
        return True

    def packed(self) -> list[PackedCanvas]:
        return [
            PackedCanvas(
                items=np.array(items, dtype=np.int64),
                places=np.array(places, dtype=np.int32),
                uncovered=self._room[self._room[:, 0] == number, 1:],
            )
            for number, (items, places) in enumerate(zip(self.items, self.places, strict=True))
        ]


def _left_over(room: np.ndarray, height: int, width: int) -> np.ndarray:
    """What is left of some room when a rectangle takes its top left corner: up to two rows [2, 5].

    The cut is the one that leaves the larger single rectangle.
    """
    number, x1, y1, x2, y2 = room.tolist()
    right, below = x2 - x1 - width, y2 - y1 - height
    if right * (y2 - y1) > below * (x2 - x1):
        rows = [[number, x1 + width, y1, x2, y2], [number, x1, y1 + height, x1 + width, y2]]
    else:
        rows = [[number, x1 + width, y1, x2, y1 + height], [number, x1, y1 + height, x2, y2]]
    left = np.array(rows, dtype=np.int32)
    return left[(left[:, 3] > left[:, 1]) & (left[:, 4] > left[:, 2])]
