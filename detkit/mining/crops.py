"""Cutting crops out of images, choosing those that look different, and keeping them as files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from detkit.data.transforms import resize
from detkit.errors import DataError
from detkit.files import written_whole
from detkit.mining.candidates import Candidate
from detkit.mining.crop_windows import Box
from detkit.mining.decision import Decision
from detkit.mining.perceptual_hash import BITS, difference_hash, hash_signs
from detkit.mining.pool import Pool

CropFormat = Literal["png", "jpg"]
"""png keeps every pixel: a detector that sees JPEG's traces in negatives alone could tell them by these."""
_ENCODING = {
    "png": (cv2.IMWRITE_PNG_COMPRESSION, 1),
    "jpg": (
        cv2.IMWRITE_JPEG_QUALITY, 97,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ),
}  # fmt: skip
_LOOK_CONTEXT = 1.5
"""Sides of what a crop's look is taken of, as a multiple of the false positive's."""
_BLOCK = 256
"""Crops that are held in memory at a time."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A picture of background."""

    pixels: np.ndarray
    """uint8 RGB [H, W, 3]."""
    look: int
    """The perceptual hash of the false positive and a little around it: of a small one, the crop is mostly other."""


@dataclass(frozen=True)
class CropWriter:
    """Cuts crops and writes them as files, each named by where it comes from, so that no two have one name."""

    pool: Pool
    input_sizes: dict[int, tuple[int, int]]
    """(height, width) to which each image is resized before it is cut."""
    folder: Path
    prefix: str
    """Of the file names: the round."""
    file_format: CropFormat

    def name_of(self, candidate: Candidate) -> str:
        """The file's name in the folder."""
        place = "-".join(map(str, _window(candidate)))
        return f"{self.prefix}-{candidate.image:06}-{place}.{self.file_format}"

    def cut(self, candidates: Sequence[Candidate]) -> list["Crop"]:
        """The crops of candidates with a window; every image is read once.

        Raises:
            DataError: an image cannot be used.
        """
        crops: dict[int, Crop] = {}

        def cut_image(rows: list[int]) -> None:
            image = candidates[rows[0]].image
            original = self.pool.read(image)
            pixels, _ = resize(original, np.zeros((0, 4), np.float32), self.input_sizes[image])
            scale = np.divide(pixels.shape[:2], original.shape[:2])[[1, 0, 1, 0]]
            for row in rows:
                x1, y1, x2, y2 = _window(candidates[row])
                crop = pixels[y1:y2, x1:x2].copy()
                box = np.array(candidates[row].box) * scale - [x1, y1, x1, y1]
                crops[row] = Crop(crop, difference_hash(surroundings(crop, box, _LOOK_CONTEXT)))

        order = sorted(range(len(candidates)), key=lambda row: candidates[row].image)
        groups = [list(rows) for _, rows in groupby(order, key=lambda row: candidates[row].image)]
        with ThreadPoolExecutor() as threads:
            list(threads.map(cut_image, groups))
        return [crops[row] for row in range(len(candidates))]

    def write(self, candidates: Sequence[Candidate], crops: Sequence["Crop"]) -> None:
        """Write crops, each whole or not at all; one that is there already is written again."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(self._write_one, candidates, crops))

    def _write_one(self, candidate: Candidate, crop: "Crop") -> None:
        path = self.folder / self.name_of(candidate)
        encoded, data = cv2.imencode(path.suffix, crop.pixels[..., ::-1], _ENCODING[self.file_format])
        if not encoded:
            raise DataError(f"{path}: cannot be encoded as {self.file_format}")
        with written_whole(path) as partial:
            partial.write_bytes(data.tobytes())


@dataclass(frozen=True, eq=False)
class ChosenCrops:
    """What became of the candidates of a round."""

    decided: list[Candidate]
    """Kept, near-duplicates or over the round's limit."""
    hashes: np.ndarray
    """Of each that is kept, in their order: uint64 [K]."""


def choose_crops(
    candidates: Sequence[Candidate],
    writer: CropWriter,
    *,
    limit: int,
    alike_bits: int,
    known_hashes: np.ndarray,
) -> ChosenCrops:
    """Choose and write the hardest crops that look different from all harder ones.

    Args:
        candidates: pending, hardest first.
        writer: cuts and writes.
        limit: of the crops that are kept.
        alike_bits: crops whose hashes differ by this or less look alike.
        known_hashes: of crops that there are already, uint64 [N].
    """
    gallery = _Gallery(known_hashes, min(limit, len(candidates)), alike_bits)
    decided: list[Candidate] = []
    for start in range(0, len(candidates), _BLOCK):
        block = candidates[start : start + _BLOCK]
        if gallery.full:
            reason = f"the round has {limit} harder ones"
            decided += [candidate.decided(Decision.OVER_ROUND_LIMIT, reason) for candidate in block]
            continue
        crops = writer.cut(block)
        verdicts = [
            gallery.judge(candidate, crop, writer.name_of(candidate))
            for candidate, crop in zip(block, crops, strict=True)
        ]
        kept = [row for row, verdict in enumerate(verdicts) if verdict.decision == Decision.KEPT]
        writer.write([block[row] for row in kept], [crops[row] for row in kept])
        decided += verdicts
    return ChosenCrops(decided, gallery.hashes())


class _Gallery:
    """The crops kept so far, which others are compared with."""

    def __init__(self, known_hashes: np.ndarray, room: int, alike_bits: int) -> None:
        self._signs = np.concatenate([hash_signs(known_hashes), np.zeros((room, BITS), np.float32)])
        self._known, self._room, self._alike_bits = len(known_hashes), room, alike_bits
        self._hashes: list[int] = []
        self._names: list[str] = []

    @property
    def full(self) -> bool:
        return len(self._hashes) == self._room

    def hashes(self) -> np.ndarray:
        return np.array(self._hashes, dtype=np.uint64)

    def judge(self, candidate: Candidate, crop: Crop, name: str) -> Candidate:
        """Keep a crop unless there is no room for it, or one that looks like it."""
        if self.full:
            reason = f"the round has {self._room} harder ones"
            return candidate.decided(Decision.OVER_ROUND_LIMIT, reason)
        signs = hash_signs(np.array([crop.look], dtype=np.uint64))[0]
        count = self._known + len(self._hashes)
        distances = (BITS - self._signs[:count] @ signs) / 2
        if count and distances.min() <= self._alike_bits:
            nearest = int(distances.argmin()) - self._known
            like = "a crop of an earlier round" if nearest < 0 else self._names[nearest]
            reason = f"looks like {like}: {distances.min():.0f} of {BITS} bits differ"
            return candidate.decided(Decision.NEAR_DUPLICATE, reason)
        self._signs[count] = signs
        self._hashes.append(crop.look)
        self._names.append(name)
        return candidate.decided(Decision.KEPT, candidate.reason)


def surroundings(image: np.ndarray, box: np.ndarray, context: float) -> np.ndarray:
    """What is in a box and around it, as far as the image goes, and at least one pixel.

    Args:
        image: [H, W, 3].
        box: xyxy in its pixels, floating point [4]; it may reach out.
        context: sides of what is taken, as a multiple of the box's.
    """
    margin = (box[2:] - box[:2]) * ((context - 1) / 2)
    height, width = image.shape[:2]
    x1, y1 = np.floor(box[:2] - margin).clip(0, [width - 1, height - 1]).astype(int)
    x2, y2 = np.ceil(box[2:] + margin).clip([x1 + 1, y1 + 1], [width, height]).astype(int)
    return image[y1:y2, x1:x2]


def _window(candidate: Candidate) -> Box:
    assert candidate.window is not None, "pending candidates have a window"
    return candidate.window
