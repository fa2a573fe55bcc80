"""Small pools: pictures without two that look alike, and detections in them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from detkit.evaluation import DetectionTable, GroundTruth
from detkit.mining.negative_set import MinedCrops
from detkit.mining.pool import Pool
from detkit.mining.source import MiningSource, lookup


def _write_picture(path: Path, seed: int, size: tuple[int, int] = (64, 96)) -> None:
    """A picture (height, width) of soft blobs; another seed gives another one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def write_picture() -> Callable[..., None]:
    """Call with a path, a seed and a (height, width)."""
    return _write_picture


@pytest.fixture
def make_pool(tmp_path) -> Callable[..., Pool]:
    def make(
        images: int = 4,
        objects: tuple[tuple, ...] = (),
        *,
        state: str = "annotated",
        size: tuple[int, int] = (64, 96),
    ) -> Pool:
        """``objects``: (image's place, category id, xyxy box) and, if not False, crowd; image ids are 10, 11, ..."""
        folder = tmp_path / "pool"
        folder.mkdir(exist_ok=True)
        names = [f"{place:03}.png" for place in range(images)]
        for place, name in enumerate(names):
            _write_picture(folder / name, place, size)
        boxes = np.array([row[2] for row in objects], dtype=np.float64).reshape(-1, 4)
        return Pool(
            name="the pool",
            state=state,
            folder=folder,
            names=np.array(names),
            ground_truth=GroundTruth(
                image_ids=np.arange(10, 10 + images),
                category_ids=(1, 2),
                class_names=("cat", "dog"),
                object_image_ids=np.array([10 + row[0] for row in objects], dtype=np.int64),
                object_category_ids=np.array([row[1] for row in objects], dtype=np.int64),
                boxes=boxes,
                areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                crowd=np.array([len(row) > 3 and row[3] for row in objects], dtype=bool),
            ),
            sizes=np.array([size] * images, dtype=np.int32),
        )

    return make


@pytest.fixture
def make_source() -> Callable[..., MiningSource]:
    def make(pool: Pool, detections: list[tuple], scale: float = 1.0) -> MiningSource:
        """``detections``: (image's place, xyxy box, score) and, if not 1, the category id."""
        table = DetectionTable(
            image_ids=np.array([10 + row[0] for row in detections], dtype=np.int64),
            boxes=np.array([row[1] for row in detections], dtype=np.float64).reshape(-1, 4),
            scores=np.array([row[2] for row in detections], dtype=np.float64),
            category_ids=np.array([row[3] if len(row) > 3 else 1 for row in detections], dtype=np.int64),
        )

        def input_size(size: tuple[int, int]) -> tuple[int, int]:
            return round(size[0] * scale), round(size[1] * scale)

        return MiningSource(pool, lookup(pool, table), input_size, "detector 1")

    return make


@pytest.fixture
def make_crops() -> Callable[..., MinedCrops]:
    def make(scores: list[float], sizes: list[tuple[int, int]] | None = None, number: int = 1) -> MinedCrops:
        """Crops of round ``number`` with these scores and (height, width) sizes, named by their place."""
        count = len(scores)
        boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
        return MinedCrops(
            files=np.array([f"{number}-{place}.png" for place in range(count)], dtype=str),
            sizes=np.array(sizes or [(20, 30)] * count, dtype=np.int32).reshape(-1, 2),
            sources=np.array([f"photo {place}.jpg" for place in range(count)], dtype=str),
            boxes=boxes,
            windows=boxes + 1,
            category_ids=np.ones(count, dtype=np.int64),
            scores=np.array(scores, dtype=np.float32),
            rounds=np.full(count, number, dtype=np.int32),
            hashes=np.arange(count, dtype=np.uint64) << np.uint64(60),
        )

    return make
