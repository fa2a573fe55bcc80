"""Keeps the images of validation and test out of mining: what was trained against cannot measure."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from detkit.console import progress
from detkit.data.images import read_image
from detkit.errors import DataError
from detkit.files import sha256_of
from detkit.mining.perceptual_hash import thumbnail

ALIKE = 0.92
"""The correlation of patterns from which two pictures are one. Measured on photographs, frames of films and microscope
fields: copies of what is more than sky have more, all but 4 in 10 000, and pictures of alike scenes less. Frames of a
camera that stands still are one."""
ALIKE_GREY = 1.0
"""Of a plain sky only the grey values tell: in copies they differ by less, of 255 levels (root mean square)."""
SUSPECT = 0.7
"""The correlation of coarse patterns below which fine ones are not looked at."""
PLAIN = 1.0
"""In patterns of a smaller standard deviation, of 255 levels, noise is what correlates."""
CROP = 0.025
"""The share left out at a side where a crop is looked for: a copy that lost 0 to 3 % there matches."""
_SIDE, _FINE, _COARSE = 64, 16, 8
_Part = tuple[tuple[float, float], tuple[float, float]]
"""From where to where, as shares of the height and of the width."""
_SPANS = ((0.0, 1.0), (CROP, 1.0), (0.0, 1.0 - CROP), (CROP, 1.0 - CROP))
_WHOLE, *_CROPPED = product(_SPANS, _SPANS)
_NAMED = 3
_BLOCK = 1024


def refuse_held_out(files: Sequence[str], held_out: Sequence[str], *, near_duplicates: bool) -> None:
    """Check that no image to be mined is also one of validation or test.

    Args:
        files: the images to be mined.
        held_out: the images of validation and test.
        near_duplicates: refuse copies too that were recompressed, resized, mirrored, made a little brighter or darker
            or of another contrast, or lost up to 3 % at each side. Of nothing but sky, copies of
            other grey values are not found. Frames of one film are such copies where nothing large moves: between the
            splits of one data set pictures may well be alike so, and that is for who made the splits to judge.

    Raises:
        DataError: an image is in both, whatever its name; both files are named.
    """
    if not held_out:
        return
    both = _equal_files(files, held_out)
    verb = "is the very same file as"
    if not both and near_duplicates:
        both, verb = (
            _alike(_look_at(files, "the pool"), _look_at(held_out, "validation and test")),
            "looks like",
        )
    if both:
        lines = [f"  {files[first]} {verb} {held_out[second]}" for first, second in both[:_NAMED]]
        more = [f"  and {len(both) - _NAMED} more"] if len(both) > _NAMED else []
        raise DataError(
            "\n".join(
                [
                    f"{len(both)} image(s) to be mined belong to validation or test:",
                    *lines,
                    *more,
                    "  take them out: a detector that was trained against them cannot be measured on them",
                ]
            )
        )


def _equal_files(files: Sequence[str], held_out: Sequence[str]) -> list[tuple[int, int]]:
    sizes = {_size_of(name) for name in held_out}
    # Files of different sizes are different, and most are.
    suspects = [index for index, name in enumerate(files) if _size_of(name) in sizes]
    if not suspects:
        return []
    with ThreadPoolExecutor() as pool:
        known = {digest: index for index, digest in enumerate(pool.map(sha256_of, held_out))}
        digests = list(pool.map(sha256_of, [files[index] for index in suspects]))
    return [
        (index, known[digest]) for index, digest in zip(suspects, digests, strict=True) if digest in known
    ]


def _size_of(name: str) -> int:
    try:
        return Path(name).stat().st_size
    except OSError as error:
        raise DataError(
            f"{name}: cannot be read: {error.strerror}; check the folder that file names start from"
        ) from None


def _look_at(files: Sequence[str], what: str) -> np.ndarray:
    """Thumbnails, uint8 [N, 64, 64]."""
    # OpenCV decodes without holding Python's lock, so threads use every core.
    with ThreadPoolExecutor() as pool:
        looks = list(progress(pool.map(_look_at_one, files), len(files), f"comparing {what}"))
    return np.array(looks, dtype=np.uint8).reshape(len(files), _SIDE, _SIDE)


def _look_at_one(path: str) -> np.ndarray:
    try:
        # A JPEG is decoded much faster at a quarter of its size.
        image = cv2.imread(path, cv2.IMREAD_REDUCED_GRAYSCALE_4)
    except cv2.error:
        image = None
    if image is None or min(image.shape) < _SIDE:
        image = read_image(path)
    return thumbnail(image, _SIDE)


def _alike(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Which thumbnails of the first, uint8 [N, 64, 64], show what one of the second, [M, 64, 64], does, and which."""
    best, places = np.zeros(len(first), np.float32), np.zeros(len(first), np.int64)
    for row, column in product(range(0, len(first), _BLOCK), range(0, len(second), _BLOCK)):
        likeness = _likeness(first[row : row + _BLOCK], second[column : column + _BLOCK])
        block, closest = slice(row, row + len(likeness)), likeness.argmax(axis=1)
        highest = likeness.max(axis=1)
        places[block] = np.where(highest > best[block], column + closest, places[block])
        best[block] = np.maximum(best[block], highest)
    return [(index, int(places[index])) for index in np.flatnonzero(best >= ALIKE).tolist()]


def _likeness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How alike two pictures are, one of them mirrored or not: thumbnails to float32 [N, M], 1 is equal."""
    likeness = np.zeros((len(first), len(second)), np.float32)
    for turned in (second, second[:, :, ::-1]):
        likeness[_equal_grey(first, turned)] = 1
        # Most pictures are like no other, and need no closer look.
        suspect = _patterns(first, _COARSE) @ _patterns(turned, _COARSE).T >= SUSPECT
        rows, columns = np.flatnonzero(suspect.any(axis=1)), np.flatnonzero(suspect.any(axis=0))
        suspects = np.ix_(rows, columns)
        likeness[suspects] = np.maximum(likeness[suspects], _correlations(first[rows], turned[columns]))
    return likeness


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The highest correlation of two pictures' patterns, where one of the two may be a crop: float32 [N, M]."""
    first_whole, second_whole = _patterns(first, _FINE), _patterns(second, _FINE)
    highest = first_whole @ second_whole.T
    for part in _CROPPED:
        np.maximum(highest, first_whole @ _patterns(second, _FINE, part).T, out=highest)
        np.maximum(highest, _patterns(first, _FINE, part) @ second_whole.T, out=highest)
    return highest


def _patterns(thumbnails: np.ndarray, cells: int, part: _Part = _WHOLE) -> np.ndarray:
    """What stands where in pictures, at any brightness and contrast, so that products of two are correlations.

    Each row's and each column's mean is taken away: skies, horizons and lamps make many different pictures alike.

    Args:
        thumbnails: uint8 [N, 64, 64].
        cells: how many there are in a row and in a column of the pattern.
        part: what is looked at, from top to bottom and from left to right.

    Returns:
        float32 [N, cells * cells], each of length 1, or shorter if the picture is plain.
    """
    grey = _shrunk(thumbnails, cells, part)
    grey -= grey.mean(axis=1, keepdims=True)
    grey -= grey.mean(axis=2, keepdims=True)
    patterns = grey.reshape(len(grey), cells * cells)
    return patterns / np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), PLAIN * cells)


def _equal_grey(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether coarse grey values hardly differ: thumbnails to bool [N, M]."""
    # Near 0, squares lose less to rounding.
    grey, other = (_shrunk(each, _COARSE).reshape(len(each), _COARSE**2) - 128 for each in (first, second))
    squares, limit = (grey**2).sum(axis=1)[:, None] + (other**2).sum(axis=1), (ALIKE_GREY * _COARSE) ** 2
    return squares - 2 * grey @ other.T <= limit


def _shrunk(thumbnails: np.ndarray, cells: int, part: _Part = _WHOLE) -> np.ndarray:
    """The means of equal cells of a part of each thumbnail: float32 [N, cells, cells]."""
    rows, columns = part
    return _cell_means(*rows, cells) @ thumbnails.astype(np.float32) @ _cell_means(*columns, cells).T


def _cell_means(start: float, stop: float, cells: int) -> np.ndarray:
    """The matrix [cells, 64] whose product with a column of pixels are the means of equal cells from start to stop."""
    edges = np.linspace(start, stop, cells + 1)[:, None] * _SIDE
    pixels = np.arange(_SIDE)
    inside = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.maximum(inside, 0) * cells / (stop - start) / _SIDE).astype(np.float32)
