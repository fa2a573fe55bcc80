"""Compose one demo scene: faces and clutter, pasted into a photograph so that the seam gives nothing away.

A scene is laid out before anyone knows what is a face: places and sizes are drawn first, then a few of the
places are given to faces and the rest to clutter. All pieces start as 25 x 25 patches and go through one and
the same mirroring, turning, resampling, contrast, brightness and elliptic soft mask, and the finished scene gets
one common blur and grain. What remains to tell a face by is the face.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from detkit.data.demo.sources import PATCH, Sources

FACE_COUNTS = (0.2, 0.35, 0.25, 0.2)
"""Probabilities of 0, 1, 2 and 3 faces in a scene."""
CLUTTER_COUNT = (6, 12)
"""Fewest and most pieces of clutter (fewer where the scene has no room left)."""
SIDES = (22.0, 60.0)
"""Smallest and largest side of a pasted patch, pixels; a face's box is 0.75 of it wide and 0.875 high."""
CONTRASTS = (0.14, 0.24)
"""Lowest and highest standard deviation of a pasted patch, black to white being 1."""
RADII = (0.43, 0.5)
"""Half axes (x, y) of the elliptic mask as shares of the patch, where it has faded to nothing."""
FADE = 0.75
"""The mask is full up to this share of its radius."""
_HALF_FADED = (1 + FADE) / 2

Random = np.random.Generator


@dataclass(frozen=True)
class Piece:
    """A rectangle that a patch is pasted into, whole pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """xyxy of what is visible: the ellipse on which the mask is half faded."""
        half_width, half_height = (
            radius * _HALF_FADED * side for radius, side in zip(RADII, (self.width, self.height), strict=True)
        )
        x, y = self.x + self.width / 2, self.y + self.height / 2
        return x - half_width, y - half_height, x + half_width, y + half_height

    def meets(self, other: "Piece") -> bool:
        """Whether two rectangles share a pixel."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True)
class Scene:
    """A composed picture and what is in it."""

    image: np.ndarray
    """Grey, uint8 [S, S]."""
    faces: tuple[Piece, ...]
    clutter: tuple[tuple[str, Piece], ...]
    """Kind (a key of CLUTTER) and place."""


def compose_scene(sources: Sources, rng: Random, size: int) -> Scene:
    """Compose a scene of ``size`` x ``size`` pixels; equal generators give equal scenes."""
    canvas = _background(sources, rng, size)
    face_count = int(rng.choice(len(FACE_COUNTS), p=FACE_COUNTS))
    pieces = _layout(rng, size, face_count + int(rng.integers(CLUTTER_COUNT[0], CLUTTER_COUNT[1] + 1)))
    faces, places = pieces[:face_count], pieces[face_count:]
    for piece in faces:
        _paste(canvas, piece, _one_of(sources.faces, rng), rng)
    clutter = []
    for piece in places:
        kind = str(rng.choice(list(CLUTTER), p=[share for share, _ in CLUTTER.values()]))
        _, draw = CLUTTER[kind]
        _paste(canvas, piece, draw(sources, rng), rng)
        clutter.append((kind, piece))
    return Scene(image=_photographed(canvas, rng), faces=tuple(faces), clutter=tuple(clutter))


def resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cubic resampling (Keys, a = -0.5), with the kernel widened where the image shrinks.

    Written out in float64 NumPy because image libraries pick other code on other processors, and a seed
    should give the same picture on all.
    """
    return _weights(image.shape[0], height) @ image @ _weights(image.shape[1], width).T


@lru_cache(maxsize=256)
def _weights(before: int, after: int) -> np.ndarray:
    """Share of each old pixel in each new one, [after, before]; rows sum to 1."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(before)) / max(scale, 1.0)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _one_of(patches: np.ndarray, rng: Random) -> np.ndarray:
    return patches[rng.integers(len(patches))]


def _background(sources: Sources, rng: Random, size: int) -> np.ndarray:
    """A square cut of a photograph at a random scale, turn, mirror and contrast, [S, S]."""
    photograph = sources.photographs[rng.integers(len(sources.photographs))]
    cut = _cut(photograph, rng, 0.7 * size, 2.5 * size)
    canvas = np.rot90(resample(cut, size, size), int(rng.integers(4)))
    canvas = canvas[:, ::-1] if rng.random() < 0.5 else canvas
    level = rng.uniform(0.25, 0.7)
    return np.clip((canvas - canvas.mean()) * rng.uniform(0.5, 0.9) + level, 0, 1)


def _cut(photograph: np.ndarray, rng: Random, smallest: float, largest: float) -> np.ndarray:
    """A random square of a random side, uniform in its logarithm and no larger than the photograph."""
    height, width = photograph.shape
    limit = min(height, width)
    side = round(_log_uniform(rng, min(smallest, limit), min(largest, limit)))
    y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return photograph[y : y + side, x : x + side]


def _layout(rng: Random, size: int, count: int) -> list[Piece]:
    """Up to ``count`` rectangles that do not meet, in random order; the largest find their place first."""
    pieces: list[Piece] = []
    for side in sorted((_log_uniform(rng, *SIDES) for _ in range(count)), reverse=True):
        width, height = round(side * rng.uniform(0.95, 1.05)), round(side)
        for _ in range(30):
            x, y = rng.integers(size - width + 1), rng.integers(size - height + 1)
            piece = Piece(int(x), int(y), width, height)
            if not any(piece.meets(other) for other in pieces):
                pieces.append(piece)
                break
    return [pieces[index] for index in rng.permutation(len(pieces))]


def _varied(patch: np.ndarray, rng: Random) -> np.ndarray:
    """A patch mirrored or not, a little turned, scaled and moved, its tones bent; [25, 25]."""
    from skimage.transform import AffineTransform, warp

    patch = patch[:, ::-1] if rng.random() < 0.5 else patch
    centre = (PATCH - 1) / 2
    change = AffineTransform(
        scale=rng.uniform(0.92, 1.08, 2), rotation=rng.uniform(-0.2, 0.2), translation=rng.uniform(-1, 1, 2)
    )
    around_centre = AffineTransform(translation=(-centre, -centre)) + change
    around_centre += AffineTransform(translation=(centre, centre))
    patch = warp(patch, around_centre, order=3, mode="edge")
    return np.clip(patch, 0, 1) ** rng.uniform(0.75, 1.33)


def _paste(canvas: np.ndarray, piece: Piece, patch: np.ndarray, rng: Random) -> None:
    """Blend a patch into the canvas: random contrast, brightness near that of the surroundings."""
    patch = resample(_varied(patch, rng), piece.height, piece.width)
    mask = _mask(piece)
    region = canvas[piece.y : piece.y + piece.height, piece.x : piece.x + piece.width]
    mean = np.average(patch, weights=mask)
    deviation = np.sqrt(np.average((patch - mean) ** 2, weights=mask))
    level = np.clip(np.average(region, weights=1 - mask) + rng.normal(0, 0.08), 0.15, 0.85)
    contrast = _log_uniform(rng, *CONTRASTS) / max(deviation, 1e-3)
    patch = np.clip(level + (patch - mean) * contrast, 0, 1)
    region += mask * (patch - region)


def _mask(piece: Piece) -> np.ndarray:
    """Opacity from 0 to 1: an ellipse whose rim fades along a smooth step, [height, width]."""
    y = (np.arange(piece.height) + 0.5) / piece.height - 0.5
    x = (np.arange(piece.width) + 0.5) / piece.width - 0.5
    radius = np.hypot(x[None] / RADII[0], y[:, None] / RADII[1])
    inside = np.clip((1 - radius) / (1 - FADE), 0, 1)
    return inside * inside * (3 - 2 * inside)


def _photographed(canvas: np.ndarray, rng: Random) -> np.ndarray:
    """The picture that a camera would take of the canvas: a little blur, then grain; uint8."""
    blur = rng.uniform(0, 0.2)
    for axis in (0, 1):
        before, after = (np.roll(canvas, shift, axis) for shift in (1, -1))
        canvas = (1 - 2 * blur) * canvas + blur * (before + after)
    canvas = canvas + rng.normal(0, rng.uniform(0.004, 0.015), canvas.shape)
    return np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)


def _upside_down(sources: Sources, rng: Random) -> np.ndarray:
    return _one_of(sources.faces, rng)[::-1]


def _sideways(sources: Sources, rng: Random) -> np.ndarray:
    return np.rot90(_one_of(sources.faces, rng), int(rng.choice([1, 3])))


def _negative(sources: Sources, rng: Random) -> np.ndarray:
    return 1 - _one_of(sources.faces, rng)


def _shuffled(sources: Sources, rng: Random) -> np.ndarray:
    """A face whose four quarters have all changed places."""
    face = _one_of(sources.faces, rng)
    order = rng.permutation(4)
    while (order == np.arange(4)).any():
        order = rng.permutation(4)
    ramp = _ramp()
    sides = (1 - ramp, ramp)
    shuffled = np.zeros_like(face)
    for here, there in enumerate(order):
        shift = [(here // 2 - there // 2) * (PATCH // 2), (here % 2 - there % 2) * (PATCH // 2)]
        shuffled += np.outer(sides[here // 2], sides[here % 2]) * np.roll(face, shift, axis=(0, 1))
    return shuffled


def _half(sources: Sources, rng: Random) -> np.ndarray:
    """A face of which the left, the right or the upper half gives way to something else."""
    face, other = _one_of(sources.faces, rng), _texture(sources, rng)
    other = face.mean() + (other - other.mean()) * (face.std() / max(other.std(), 1e-3))
    kept = np.broadcast_to(_ramp(), face.shape)
    kept = (kept, kept[:, ::-1], kept.T)[rng.integers(3)]
    return kept * face + (1 - kept) * other


def _texture(sources: Sources, rng: Random) -> np.ndarray:
    """A piece of a photograph with something in it: the most varied of four cuts."""
    photograph = sources.photographs[rng.integers(len(sources.photographs))]
    cuts = [resample(_cut(photograph, rng, PATCH, 6 * PATCH), PATCH, PATCH) for _ in range(4)]
    return max(cuts, key=np.std)


def _non_face(sources: Sources, rng: Random) -> np.ndarray:
    return _one_of(sources.non_faces, rng)


def _ramp() -> np.ndarray:
    """From 0 to 1 across the middle of a patch, [25]: a soft inner seam."""
    return np.clip((np.arange(PATCH) - PATCH // 2) / 4 + 0.5, 0, 1)


CLUTTER: dict[str, tuple[float, Callable[[Sources, Random], np.ndarray]]] = {
    "texture": (0.4, _texture),
    "non-face": (0.15, _non_face),
    "upside-down face": (0.15, _upside_down),
    "shuffled face": (0.075, _shuffled),
    "half face": (0.075, _half),
    "negative face": (0.075, _negative),
    "sideways face": (0.075, _sideways),
}
"""Kinds of clutter: the share of each, and what draws one 25 x 25 patch of it."""
