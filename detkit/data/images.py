"""Image files as arrays."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from detkit.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_BROKEN = (
    "is truncated, broken or no image with 8 or 16 bits; "
    "copy the file again or remove its image from the annotations"
)


@dataclass(frozen=True)
class ImageFacts:
    """What an image file holds before ``read_image`` brings it to 8-bit RGB."""

    stored_size: tuple[int, int]
    """(height, width) in pixels, as the file has it."""
    upright_size: tuple[int, int]
    """The same once EXIF orientation is applied."""
    oriented: bool
    """Whether EXIF asks for a rotation or mirroring that changes the picture."""
    channels: int
    """1 is grey, 4 has alpha."""
    bits: int
    """Per channel."""


def read_image(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image file to uint8 RGB [H, W, 3].

    Grey becomes three equal channels, 16 bits are scaled to 8, and a palette is looked up. Alpha is dropped and
    not blended with any background: what a transparent pixel hides is shown.

    EXIF orientation is applied, and the annotations decide about it: where their size is that of the picture as
    it is stored and not that of the picture turned upright, their boxes were drawn on the former, and it stays
    as it is stored. Where the two sizes are equal (a square, a half turn, a mirroring) the picture is turned, as
    viewers show it.

    Args:
        path: any format that OpenCV reads.
        size: (height, width) in pixels that the annotations give; None takes the picture upright.

    Raises:
        DataError: the file is missing, empty, truncated or no image, or has another size than ``size``.
    """
    data = _read_bytes(path)
    image = _decode(path, data, cv2.IMREAD_COLOR)
    if size is not None and image.shape[:2] != tuple(size):
        upright, image = image, _decode(path, data, _STORED)
        if image.shape[:2] != tuple(size):
            raise DataError(
                f"{path}: is {upright.shape[1]} x {upright.shape[0]}, but its annotations say "
                f"{size[1]} x {size[0]}; use the files that were annotated, or correct width and height"
            )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def inspect_image(path: str | os.PathLike) -> ImageFacts:
    """Decode an image file and say what it holds.

    Raises:
        DataError: ``read_image`` could not read it: it is missing, empty, truncated, no image, or of more than 16
            bits.
    """
    data = _read_bytes(path)
    stored = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if stored.itemsize > 2:
        raise DataError(f"{path}: has {8 * stored.itemsize} bits per channel; convert it to 8 or 16")
    upright_size, oriented = _size(stored), False
    # Only files that say something of EXIF (JPEG, PNG and WebP, in this order) are decoded again.
    if any(mark in data for mark in (b"Exif\0\0", b"eXIf", b"EXIF")):
        upright = _decode(path, data, cv2.IMREAD_COLOR)
        upright_size, oriented = _size(upright), not np.array_equal(upright, _decode(path, data, _STORED))
    return ImageFacts(
        stored_size=_size(stored),
        upright_size=upright_size,
        oriented=oriented,
        channels=1 if stored.ndim == 2 else stored.shape[2],
        bits=8 * stored.itemsize,
    )


def find_images(paths: Sequence[str | os.PathLike]) -> list[Path]:
    """The image files among ``paths``: a file stands for itself, a folder for all images in and below it, by name.

    Raises:
        DataError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: there is no such file or folder; give image files or folders of images")
    if not found:
        raise DataError(
            f"{', '.join(map(str, paths))}: no image found; detkit looks for {', '.join(SUFFIXES)}"
        )
    return found


def _read_bytes(path: str | os.PathLike) -> bytes:
    """The file's bytes; OpenCV's own reading cannot say what is wrong, and is blind to some names."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no such file; check the image folder and the file's name"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read: {reason}; check the file") from None
    if not data:
        raise DataError(f"{path}: is empty; copy the file again or remove its image from the annotations")
    # Older OpenCV fills the missing part of a JPEG with grey and says nothing. Both marks (start of scan, end
    # of image) never occur within the compressed data.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DataError(f"{path}: {_BROKEN}")
    return data


def _decode(path: str | os.PathLike, data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded: {error.err}; convert it to PNG or JPEG") from None
    if image is None:
        raise DataError(f"{path}: {_BROKEN}")
    return image


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
