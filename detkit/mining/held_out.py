"""Keeps the images of validation and test out of mining: what was trained against cannot measure."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detkit.console import progress
from detkit.data.images import read_image
from detkit.errors import DataError
from detkit.files import sha256_of
from detkit.mining.perceptual_hash import difference_hash, hamming_distances, thumbnail

ALIKE_BITS = 10
ALIKE_GREY = 2.0
"""Mean difference of thumbnails, of 255 levels. Skies have hashes by chance; a copy has the same grey values too."""
_NAMED = 3
_BLOCK = 4096


def refuse_held_out(files: Sequence[str], held_out: Sequence[str], *, near_duplicates: bool) -> None:
    """Check that no image to be mined is also one of validation or test.

    Args:
        files: the images to be mined.
        held_out: the images of validation and test.
        near_duplicates: refuse recompressed and resized copies too. Between the splits of one data set pictures may
            well be alike, as frames of a film are, and that is for who made the splits to judge.

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


@dataclass(frozen=True)
class _Looks:
    """What pictures look like, in a few bytes each."""

    hashes: np.ndarray
    """uint64 [N]."""
    thumbnails: np.ndarray
    """uint8 [N, 256]."""


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


def _look_at(files: Sequence[str], what: str) -> _Looks:
    # OpenCV decodes without holding Python's lock, so threads use every core.
    with ThreadPoolExecutor() as pool:
        looks = list(progress(pool.map(_look_at_one, files), len(files), f"comparing {what}"))
    return _Looks(
        np.array([look[0] for look in looks], dtype=np.uint64),
        np.array([look[1] for look in looks], dtype=np.uint8).reshape(len(files), -1),
    )


def _look_at_one(path: str) -> tuple[int, np.ndarray]:
    try:
        # A JPEG is decoded much faster at a quarter of its size.
        image = cv2.imread(path, cv2.IMREAD_REDUCED_GRAYSCALE_4)
    except cv2.error:
        image = None
    if image is None or min(image.shape) < 32:
        image = read_image(path)
    return difference_hash(image), thumbnail(image).ravel()


def _alike(first: _Looks, second: _Looks) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(first.hashes), _BLOCK):
        near = hamming_distances(first.hashes[start : start + _BLOCK], second.hashes) <= ALIKE_BITS
        for row, column in np.argwhere(near).tolist():
            difference = np.abs(
                first.thumbnails[start + row].astype(np.int16) - second.thumbnails[column].astype(np.int16)
            )
            if difference.mean() <= ALIKE_GREY:
                pairs.append((start + row, column))
    return pairs
