"""Where detections come from: a model that looks at the images, or a file of any program's results."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detkit.data.transforms import resized_size
from detkit.evaluation import DetectionTable, read_results
from detkit.files import sha256_of
from detkit.mining.pool import Pool
from detkit.mining.scan import Detect, DetectedImages

InputSize = Callable[[tuple[int, int]], tuple[int, int]]
"""(height, width) of a file to that at which the detector sees it, which is that of the crops."""
_BLOCK = 256
"""Images whose detections are sorted out at a time."""


@dataclass(frozen=True, eq=False)
class MiningSource:
    """Images, and what finds objects in them."""

    pool: Pool
    detect: Detect
    input_size: InputSize
    name: str
    """The checkpoint or results file, for the record (see ``named_file``)."""


def results_source(
    detections: str | os.PathLike, pool: Pool, *, resize: tuple[int, int] | None = None
) -> MiningSource:
    """Any program's detections on the images of a COCO file.

    Args:
        detections: COCO results of boxes.
        pool: of the COCO file (see ``pool.coco_pool``).
        resize: the limits of the shorter and the longer side, as the detector had them, for the scale of the
            crops; None cuts them out of the images as they are.

    Raises:
        DataError: the file is no list of detections, or names an image or category that the COCO file has not.
    """
    table = read_results(detections, pool.ground_truth)

    def input_size(size: tuple[int, int]) -> tuple[int, int]:
        return size if resize is None else resized_size(size, *resize)

    return MiningSource(pool, lookup(pool, table), input_size, named_file(detections))


def named_file(path: str | os.PathLike) -> str:
    """A file's path and the first digits of its SHA-256, which tell it from other files of that name."""
    return f"{os.fspath(path)} (sha256 {sha256_of(os.fspath(path))[:16]})"


def lookup(pool: Pool, table: DetectionTable) -> Detect:
    """Looks detections up in a table; the pool has the sizes of its images, as one of a COCO file does."""
    sizes = pool.sizes
    assert sizes is not None, "a COCO file has the sizes of its images"
    places = pool.places_of(table.image_ids)
    order = np.argsort(places, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=len(pool)))])

    def detect(images: Sequence[int]) -> Iterator[DetectedImages]:
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK]
            rows = np.concatenate([order[starts[image] : starts[image + 1]] for image in block])
            yield DetectedImages(block, list(map(tuple, sizes[list(block)].tolist())), table.select(rows))

    return detect
