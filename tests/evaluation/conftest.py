"""Small sets of annotations and detections."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detkit.evaluation import DetectionTable, GroundTruth


@pytest.fixture
def make_ground_truth() -> Callable[..., GroundTruth]:
    def make(objects: list[tuple], images: int = 2, classes: tuple[str, ...] = ("face",)) -> GroundTruth:
        """``objects``: (image id, category id, xyxy box) and, if not False, crowd; ids count from 1."""
        boxes = np.array([row[2] for row in objects], dtype=np.float64).reshape(-1, 4)
        return GroundTruth(
            image_ids=np.arange(1, images + 1),
            category_ids=tuple(range(1, len(classes) + 1)),
            class_names=classes,
            object_image_ids=np.array([row[0] for row in objects], dtype=np.int64),
            object_category_ids=np.array([row[1] for row in objects], dtype=np.int64),
            boxes=boxes,
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            crowd=np.array([len(row) > 3 and row[3] for row in objects], dtype=bool),
        )

    return make


@pytest.fixture
def make_table() -> Callable[..., DetectionTable]:
    def make(detections: list[tuple]) -> DetectionTable:
        """``detections``: (image id, category id, xyxy box, score)."""
        return DetectionTable(
            image_ids=np.array([row[0] for row in detections], dtype=np.int64),
            boxes=np.array([row[2] for row in detections], dtype=np.float32).reshape(-1, 4),
            scores=np.array([row[3] for row in detections], dtype=np.float32),
            category_ids=np.array([row[1] for row in detections], dtype=np.int64),
        )

    return make


@pytest.fixture
def tree() -> dict:
    """COCO annotations with an image without boxes, a class without boxes, gaps in the ids and a crowd."""
    return {
        "images": [{"id": 10}, {"id": 30}, {"id": 20}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 3, "name": "bird"}],
        "annotations": [
            {
                "id": 0,
                "image_id": 10,
                "category_id": 7,
                "bbox": [10, 20, 30, 40],
                "area": 900.5,
                "iscrowd": 0,
            },
            {"id": 5, "image_id": 20, "category_id": 0, "bbox": [1.5, 2.5, 10, 20]},
            {"id": 6, "image_id": 20, "category_id": 7, "bbox": [0, 0, 90, 90], "area": None, "iscrowd": 1},
        ],
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_file
