"""Pools: of a folder, of a COCO file, and in parts."""

import json

import cv2
import numpy as np
import pytest

from detkit.data.dataset import SampleKey
from detkit.data.transforms import EvaluationTransform
from detkit.errors import DataError
from detkit.mining.pool import PoolDataset, coco_pool, folder_pool, image_files


@pytest.fixture
def coco(tmp_path):
    """Annotations of three pictures of 30 x 20 with two boxes and a crowd, and their folder."""
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((20, 30, 3), ord(name), dtype=np.uint8))
    tree = {
        "images": [{"id": id_, "file_name": f"{name}.png", "width": 30, "height": 20}
                   for id_, name in ((9, "a"), (4, "b"), (7, "c"))],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 9, "category_id": 5, "bbox": [5, 6, 7, 8]},
            {"id": 3, "image_id": 4, "category_id": 5, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }  # fmt: skip
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(tree))
    return path


def test_of_a_coco_file(coco):
    pool = coco_pool(coco, coco.parent)
    assert pool.files.tolist() == [str(coco.parent / name) for name in ("a.png", "b.png", "c.png")]
    truth = pool.objects_in([1, 2])
    assert truth.image_ids.tolist() == [4, 7]
    assert truth.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 9, 9]]
    assert truth.crowd.tolist() == [False, True]
    assert len(pool.objects_in([2])) == 0
    assert pool.places_of(np.array([7, 9, 4, 4])).tolist() == [2, 0, 1, 1]
    assert pool.read(2)[0, 0].tolist() == [ord("c")] * 3


def test_of_some_classes_the_others_are_background(coco):
    pool = coco_pool(coco, coco.parent, classes=["cat"])
    assert pool.ground_truth.boxes.tolist() == [[1, 2, 4, 6]]
    with pytest.raises(DataError, match="has no class 'bird'"):
        coco_pool(coco, coco.parent, classes=["bird"])


def test_of_a_folder(coco):
    pool = folder_pool(coco.parent, state="unverified", class_names=["cat"], category_ids=[3])
    assert len(pool) == 3
    assert pool.ground_truth.image_ids.tolist() == [0, 1, 2]
    sample = PoolDataset(pool, EvaluationTransform(40, 60))[SampleKey(0, 1)]
    assert (sample.image.shape, sample.image_id, sample.original_size) == ((3, 40, 60), 1, (20, 30))
    assert sample.image.unique().tolist() == [ord("b")]


def test_parts_are_equal_disjoint_and_complete(make_pool):
    pool = make_pool(7)
    parts = [list(pool.part(index, 3)) for index in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    with pytest.raises(DataError, match="part 8 of 8 is empty"):
        pool.part(7, 8)


def test_what_cannot_be_mined_is_refused(coco, tmp_path):
    with pytest.raises(DataError, match="declared verified-empty, but has 3 boxes of cat, dog"):
        coco_pool(coco, coco.parent, state="verified-empty")
    (tmp_path / "nothing").mkdir()
    for folder in ("nothing", "absent"):
        with pytest.raises(DataError, match=folder):
            folder_pool(tmp_path / folder, state="verified-empty", class_names=["cat"], category_ids=[3])
    empty = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "cat"}]}
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    with pytest.raises(DataError, match="empty"):
        coco_pool(tmp_path / "empty.json", tmp_path)


def test_image_files_of_folders_and_coco_files(coco, tmp_path):
    assert image_files(coco) == [str(tmp_path / f"{name}.png") for name in "abc"]
    assert image_files(coco, "elsewhere")[0] == "elsewhere/a.png"
    assert image_files(tmp_path) == image_files(coco)
