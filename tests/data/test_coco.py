"""read_coco against hand-made files and the documented counts of real ones."""

import json
import pickle

import numpy as np
import pytest

from detkit.data.coco import read_coco, with_ignore_regions
from detkit.errors import DataError


@pytest.fixture
def tree() -> dict:
    """Three images, of which the second is empty; boxes out of order; category ids with gaps, from 0."""
    return {
        "images": [
            {"id": 30, "file_name": "c.jpg", "height": 50, "width": 100},
            {"id": 10, "file_name": "a.jpg", "height": 60, "width": 80},
            {"id": 20, "file_name": "sub/b.jpg", "height": 20, "width": 40},
        ],
        "annotations": [
            {"id": 3, "image_id": 20, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
            {"id": 1, "image_id": 30, "category_id": 0, "bbox": [10.5, 20, 30, 10], "iscrowd": 1},
            {"id": 9, "image_id": 30, "category_id": 90, "bbox": [0, 0, 100, 50], "area": None},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 0, "name": "dog"}, {"id": 90, "name": "emu"}],
    }


def write(tmp_path, tree) -> str:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(tree))
    return str(path)


def test_arrays(tmp_path, tree):
    found = read_coco(write(tmp_path, tree))
    assert len(found) == 3
    assert found.image_ids.tolist() == [30, 10, 20]
    assert found.sizes.tolist() == [[50, 100], [60, 80], [20, 40]]
    assert found.file_names.tolist() == ["c.jpg", "a.jpg", "sub/b.jpg"]
    assert found.offsets.tolist() == [0, 2, 2, 3]
    assert found.boxes.tolist() == [[10.5, 20, 40.5, 30], [0, 0, 100, 50], [1, 2, 4, 6]]
    assert found.labels.tolist() == [1, 2, 0]
    assert found.crowd.tolist() == [True, False, False]
    assert found.annotation_ids.tolist() == [1, 9, 3]
    assert found.class_names == ("cat", "dog", "emu")
    assert found.category_ids == (7, 0, 90)
    assert found.rows(0) == slice(0, 2)
    dtypes = [
        found.boxes.dtype,
        found.labels.dtype,
        found.offsets.dtype,
        found.sizes.dtype,
        found.image_ids.dtype,
    ]
    assert dtypes == [np.float32, np.int32, np.int64, np.int32, np.int64]


def test_narrowed_to_classes_in_the_order_given(tmp_path, tree):
    found = read_coco(write(tmp_path, tree), ["emu", "cat"])
    assert len(found) == 3
    assert found.class_names == ("emu", "cat")
    assert found.category_ids == (90, 7)
    assert found.labels.tolist() == [0, 1]
    assert found.annotation_ids.tolist() == [9, 3]
    assert found.offsets.tolist() == [0, 1, 1, 2]


def test_more_regions_to_ignore(tmp_path, tree):
    before = read_coco(write(tmp_path, tree))
    regions = {
        "a.jpg": np.array([[1, 2, 3, 4.5]]),
        "c.jpg": np.array([[5, 5, 9, 9.0], [6, 6, 7, 7]]),
        "z": None,
    }
    found = with_ignore_regions(before, regions)
    assert found.offsets.tolist() == [0, 4, 5, 6]
    assert found.boxes[found.rows(0)][2:].tolist() == [[5, 5, 9, 9], [6, 6, 7, 7]]
    assert found.boxes[found.rows(1)].tolist() == [[1, 2, 3, 4.5]]
    assert found.crowd.tolist() == [True, False, True, True, True, False]
    for name in ("boxes", "labels", "crowd", "annotation_ids"):
        column = getattr(found, name)
        assert column.dtype == getattr(before, name).dtype
        np.testing.assert_array_equal(column[[0, 1, 5]], getattr(before, name))
    np.testing.assert_array_equal(with_ignore_regions(before, {}).boxes, before.boxes)


def test_no_boxes_at_all(tmp_path, tree):
    tree["annotations"] = []
    found = read_coco(write(tmp_path, tree))
    assert found.boxes.shape == (0, 4)
    assert found.offsets.tolist() == [0, 0, 0, 0]


def test_unknown_class_names_the_known(tmp_path, tree):
    with pytest.raises(
        DataError, match=r"train\.json: has no class 'cow', 'Dog'; its classes are cat, dog, emu"
    ):
        read_coco(write(tmp_path, tree), ["cow", "cat", "Dog"])
    with pytest.raises(DataError, match="the list of classes names a class twice"):
        read_coco(write(tmp_path, tree), ["cat", "cat"])
    with pytest.raises(DataError, match="the list of classes is empty"):
        read_coco(write(tmp_path, tree), [])


def test_defects_are_listed_and_counted(tmp_path, tree):
    for number in range(15):
        tree["annotations"].append(
            {"id": 100 + number, "image_id": 10, "category_id": 7, "bbox": [0, 0, -3, 5]}
        )
    path = write(tmp_path, tree)
    with pytest.raises(DataError) as caught:
        read_coco(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 15 defect(s) that would make training or evaluation wrong"
    assert lines[1] == "  annotation 100: width is -3; correct or remove the box"
    assert lines[-2] == "  ... and 5 more"
    assert "python tools/check_data.py" in lines[-1]
    assert "--fix" in lines[-1]
    assert len(lines) == 13


def test_a_sliver_lost_in_float32_is_refused(tmp_path, tree):
    tree["annotations"][0]["bbox"] = [30.0, 2, 1e-7, 4]
    with pytest.raises(DataError, match="annotation 3: width is 1e-07"):
        read_coco(write(tmp_path, tree))


def test_pickled_it_is_a_handful_of_arrays(tmp_path, tree):
    tree["images"] = [
        {"id": number, "file_name": f"{number:08d}.jpg", "height": 50, "width": 100} for number in range(2000)
    ]
    tree["annotations"] = [
        {"id": number, "image_id": number % 2000, "category_id": 7, "bbox": [1, 1, 5, 5]}
        for number in range(9000)
    ]
    found = read_coco(write(tmp_path, tree))
    values = vars(found)
    assert sum(isinstance(value, np.ndarray) for value in values.values()) == 8
    assert all(value.dtype != object for value in values.values() if isinstance(value, np.ndarray))
    # 29 bytes a box and 24 bytes and a name of 12 characters (4 bytes each) an image, and no more.
    assert len(pickle.dumps(found)) < 9000 * 29 + 2000 * (24 + 48) + 4000
    assert pickle.loads(pickle.dumps(found)).boxes.tolist() == found.boxes.tolist()


DOCUMENTED = {
    "coco-cc": {"train": (73, 695), "val": (15, 173), "test": (16, 173)},
    "dice": {"train": (175, 1189), "val": (37, 315), "test": (38, 291)},
    "drone-visible": {"train": (330, 354), "val": (80, 87), "test": (60, 61)},
    "bloodcells": {"train": (252, 3460), "val": (54, 694), "test": (54, 704)},
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_real_sets_have_the_documented_counts(shared_folder, name):
    for split, counts in DOCUMENTED[name].items():
        found = read_coco(shared_folder / "data" / name / f"annotations/instances_{split}.json")
        assert (len(found), len(found.boxes)) == counts


def test_real_set_narrowed_to_sparse_classes(shared_folder):
    path = shared_folder / "data/bloodcells/annotations/instances_train.json"
    found = read_coco(path, ["WBC", "Platelets"])
    assert len(found) == 252
    assert np.bincount(found.labels).tolist() == [257, 265]


def test_real_set_with_crowds_and_gaps_equals_pycocotools(shared_folder, capsys):
    from pycocotools.coco import COCO

    path = shared_folder / "data/coco-cc/annotations/instances_train.json"
    found, reference = read_coco(path), COCO(str(path))
    assert found.crowd.sum() == 7
    assert (len(found.class_names), max(found.category_ids)) == (80, 90)
    for index, image_id in enumerate(found.image_ids.tolist()):
        rows = found.rows(index)
        records = reference.loadAnns(reference.getAnnIds(imgIds=image_id))
        boxes = np.array([record["bbox"] for record in records]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        assert found.annotation_ids[rows].tolist() == [record["id"] for record in records]
        np.testing.assert_allclose(found.boxes[rows], boxes, rtol=1e-6)
        categories = [found.category_ids[label] for label in found.labels[rows]]
        assert categories == [record["category_id"] for record in records]
