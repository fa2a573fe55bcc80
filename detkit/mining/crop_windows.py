"""Where a crop around a false positive may lie: with context, inside the image, and without any object.

Everything is in whole pixels of the image as the detector sees it. Objects and ignore regions are rounded outward, so
that a crop holds no pixel of one.
"""

from typing import NamedTuple

import numpy as np

from detkit.mining.decision import Decision
from detkit.mining.settings import MiningSettings

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2; the pixels x1 to x2 - 1 and y1 to y2 - 1."""


class Placement(NamedTuple):
    """The window of a crop, or why there is none."""

    window: Box | None
    decision: Decision
    """Pending where there is a window."""
    reason: str
    """What was done to the window to keep objects out, or why that failed; empty where nothing had to be."""


def place_window(
    box: np.ndarray, obstacles: np.ndarray, size: tuple[int, int], settings: MiningSettings
) -> Placement:
    """The window of one false positive.

    It is centred where it can be; else shifted, as little as will do, and still around the whole false positive; else
    cut down; else there is none.

    Args:
        box: the false positive, xyxy float [4].
        obstacles: objects and ignore regions, xyxy float [O, 4].
        size: (height, width) of the image.
        settings: context and limits.
    """
    limit = np.minimum(settings.largest, size)[::-1]  # width, height
    seen = _outward(box[None])[0].clip(0, np.tile(size[::-1], 2))
    if (seen[2:] <= seen[:2]).any():
        return Placement(None, Decision.TOO_SMALL, "has no pixel inside the image")
    core = _middle(seen, limit)
    sides = np.ceil((core[2:] - core[:2]) * settings.context).astype(np.int64)
    sides = np.maximum(sides, settings.least_side).clip(max=limit)
    if (sides < settings.least_side).any():
        reason = f"the image has a side under {settings.least_side} pixels"
        return Placement(None, Decision.TOO_SMALL, reason)
    last = np.array(size[::-1]) - sides
    corner = np.clip(np.floor((core[:2] + core[2:] - sides) / 2).astype(np.int64), 0, last)
    window = np.concatenate([corner, corner + sides])
    blocks = _outward(obstacles)
    if not _touching(window, blocks).any():
        return Placement(_tuple(window), Decision.PENDING, "")
    shifted = _shifted(core, corner, sides, last, blocks)
    if shifted is not None:
        return Placement(_tuple(shifted), Decision.PENDING, "shifted away from an object")
    return _beside_objects(_trimmed(window, core, blocks), core, settings)


def _beside_objects(trimmed: np.ndarray, core: np.ndarray, settings: MiningSettings) -> Placement:
    """A window that was cut down, if it still shows enough."""
    if _visible(trimmed, core) < settings.least_visible:
        return Placement(None, Decision.TOUCHES_OBJECT, "lies on an object, or too near to one")
    if (trimmed[2:] - trimmed[:2] < settings.least_side).any():
        reason = f"an object leaves a side of less than {settings.least_side} pixels"
        return Placement(None, Decision.TOUCHES_OBJECT, reason)
    return Placement(_tuple(trimmed), Decision.PENDING, "trimmed beside an object")


def _middle(box: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The box [4], or of one larger than a crop may be (width, height) the middle."""
    excess = np.maximum(box[2:] - box[:2] - limit, 0)
    return np.concatenate([box[:2] + excess // 2, box[2:] - (excess - excess // 2)])


def _shifted(
    core: np.ndarray, corner: np.ndarray, sides: np.ndarray, last: np.ndarray, blocks: np.ndarray
) -> np.ndarray | None:
    """The free window around the whole core that is nearest to the centred one, or None.

    In each direction that window begins where the centred one does, at a limit, or just where an obstacle ends.
    """
    low = np.maximum(core[2:] - sides, 0)
    high = np.minimum(core[:2], last)
    blocks = blocks[_touching(np.concatenate([low, high + sides]), blocks)]
    starts, apart = [], []
    for axis in (0, 1):
        first, after = blocks[:, axis], blocks[:, axis + 2]
        places = np.concatenate([[corner[axis], low[axis], high[axis]], after, first - sides[axis]])
        places = np.unique(places[(places >= low[axis]) & (places <= high[axis])])
        starts.append(places)
        apart.append((places[:, None] < after) & (places[:, None] + sides[axis] > first))
    blocked = apart[0].astype(np.float32) @ apart[1].T.astype(np.float32) > 0
    distance = (starts[0][:, None] - corner[0]) ** 2 + (starts[1][None, :] - corner[1]) ** 2
    if blocked.all():
        return None
    x, y = np.unravel_index(np.where(blocked, np.inf, distance).argmin(), blocked.shape)
    begin = np.array([starts[0][x], starts[1][y]])
    return np.concatenate([begin, begin + sides])


def _trimmed(window: np.ndarray, core: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The window cut on one side after the other until it is free; each cut keeps as much of the core as it can."""
    while (touching := _touching(window, blocks)).any():
        block = blocks[touching.argmax()]
        cuts = np.tile(window, (4, 1))
        # Begin behind the obstacle, or end before it, in x or in y.
        cuts[[0, 1, 2, 3], [0, 1, 2, 3]] = block[[2, 3, 0, 1]]
        cuts = cuts[(cuts[:, 2:] > cuts[:, :2]).all(axis=1)]
        if not len(cuts):
            return np.zeros(4, dtype=np.int64)
        window = max(cuts, key=lambda cut: (_visible(cut, core), (cut[2:] - cut[:2]).prod()))
    return window


def _touching(window: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Which obstacles share a pixel with the window, bool [O]."""
    return np.all((window[:2] < blocks[:, 2:]) & (window[2:] > blocks[:, :2]), axis=1)


def _visible(window: np.ndarray, core: np.ndarray) -> float:
    """The share of the core that the window holds."""
    inside = np.maximum(np.minimum(window[2:], core[2:]) - np.maximum(window[:2], core[:2]), 0)
    return float(inside.prod() / (core[2:] - core[:2]).prod())


def _outward(boxes: np.ndarray) -> np.ndarray:
    # A box that resizing moved by a rounding error must not cost a whole pixel.
    return np.concatenate([np.floor(boxes[:, :2] + 1e-3), np.ceil(boxes[:, 2:] - 1e-3)], axis=1).astype(
        np.int64
    )


def _tuple(box: np.ndarray) -> Box:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
