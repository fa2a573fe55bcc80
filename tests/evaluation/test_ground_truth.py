"""COCO annotations as read for measuring."""

import json

import pytest

from detkit.data.coco import read_coco
from detkit.errors import DataError
from detkit.evaluation import read_ground_truth
from detkit.evaluation.ground_truth import coco_categories


def test_reads_every_image_class_and_object(write, tree):
    found = read_ground_truth(write("gt.json", tree))
    assert found.image_ids.tolist() == [10, 30, 20]
    assert found.category_ids == (0, 7, 3)
    assert found.class_names == ("cat", "dog", "bird")
    assert found.object_image_ids.tolist() == [10, 20, 20]
    assert found.object_category_ids.tolist() == [7, 0, 7]
    assert found.boxes.tolist() == [[10, 20, 40, 60], [1.5, 2.5, 11.5, 22.5], [0, 0, 90, 90]]
    assert found.crowd.tolist() == [False, False, True]
    assert found.objects_per_class() == [1, 1, 0]
    assert len(found) == 3


def test_names_by_category_id_are_those_of_the_classes_that_are_left(write, tree):
    found = read_ground_truth(write("gt.json", tree))
    assert found.names == {0: "cat", 7: "dog", 3: "bird"}
    assert coco_categories(found.names) == tree["categories"]
    assert found.of_classes([3, 7]).names == {3: "bird", 7: "dog"}


def test_the_files_area_counts_and_else_the_boxs(write, tree):
    assert read_ground_truth(write("gt.json", tree)).areas.tolist() == [900.5, 200, 8100]


def test_a_missing_area_is_not_blurred_by_the_offset(write, tree):
    tree["annotations"] = [{"image_id": 10, "category_id": 0, "bbox": [70.18, 0.1, 32, 32]}]
    assert read_ground_truth(write("gt.json", tree)).areas.tolist() == [1024]


def test_other_classes_become_background(write, tree):
    found = read_ground_truth(write("gt.json", tree), ["bird", "dog"])
    assert found.class_names == ("bird", "dog")
    assert found.category_ids == (3, 7)
    assert found.dropped_category_ids == (0,)
    assert found.image_ids.tolist() == [10, 30, 20]
    assert found.object_category_ids.tolist() == [7, 7]
    assert found.areas.tolist() == [900.5, 8100]
    assert found.crowd.tolist() == [False, True]
    assert found.boxes.tolist() == [[10, 20, 40, 60], [0, 0, 90, 90]]


def test_no_annotations_is_a_set_of_empty_images(write, tree):
    found = read_ground_truth(write("gt.json", {**tree, "annotations": []}))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.objects_per_class() == [0, 0, 0]


ABSENT = object()


@pytest.mark.parametrize(
    ("key", "value", "sound"),
    [
        *(("iscrowd", value, True) for value in (ABSENT, None, 0, 1, False, True)),
        *(("iscrowd", value, False) for value in ("0", "1", 2, -1, 1.0, [], "no")),
        *(("bbox", [1, 2, *sides], False) for sides in ([0, 5], [5, 0], [-3, 5], [5, -3], [0.0, -0.0])),
        ("bbox", [1, 2, 0.5, 5], True),
        *(("area", value, True) for value in (ABSENT, None, 4, 4.5, 0)),
        *(("area", value, True) for value in ("12", -1, float("nan"), float("inf"), [], True)),
    ],
)
def test_both_readers_agree(write, tree, key, value, sound):
    """What training refuses, measuring refuses, and names the same way out."""
    for image in tree["images"]:
        image.update(width=100, height=100, file_name=f"{image['id']}.png")
    first = tree["annotations"][0]
    first.update(id=1, **{key: value})
    if value is ABSENT:
        del first[key]
    path = write("gt.json", json.dumps(tree))
    for read in (read_coco, read_ground_truth):
        if sound:
            assert len(read(path).boxes) == 3
            continue
        with pytest.raises(DataError, match=r"gt\.json") as caught:
            read(path)
        assert "tools/check_data.py" in str(caught.value)
        assert "--fix OUT.json" in str(caught.value)
    if sound and key == "iscrowd":
        assert (
            read_coco(path).crowd.tolist()[0] == read_ground_truth(path).crowd.tolist()[0] == (value in (1,))
        )


@pytest.mark.parametrize("area", ["big", "12", -4, float("nan"), float("inf"), None])
def test_an_unusable_area_is_the_boxs(write, tree, area):
    tree["annotations"][0]["area"] = area
    assert read_ground_truth(write("gt.json", tree)).areas.tolist() == [1200, 200, 8100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "a list of images was expected, found NoneType"),
        ({"images": []}, "'images' is empty"),
        ({"categories": []}, "'categories' is empty"),
        (
            {"images": [{"id": 10}, {"id": 20}, {"id": 30}, {"id": 20}]},
            "image id 20: is there more than once",
        ),
        ({"categories": [{"id": 0}]}, r"category 0 \(counted from 0\): has no 'name'"),
        (
            {"categories": [{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]},
            "category id 0: is there more than once",
        ),
        ({"images": [{"id": 10}]}, "annotations name images 20, not in its list 'images'"),
        ({"categories": [{"id": 0, "name": "a"}]}, "annotations name categories 7, not in its list"),
        ({"annotations": [{"image_id": 10, "category_id": 0}]}, "annotation 0 .*has no 'bbox'"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_remedy(write, tree, change, message):
    with pytest.raises(DataError, match=message) as caught:
        read_ground_truth(write("gt.json", {**tree, **change}))
    assert "gt.json" in str(caught.value)
    assert "tools/check_data.py" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bbox", [0, 0, -3, 5], "'bbox' has a negative width or height"),
        ("bbox", [0, 0, float("nan"), 5], "'bbox' is not finite"),
        ("bbox", None, "'bbox' is not four numbers"),
        ("bbox", [0, 0, 0, 5], "'bbox' has a width or height of 0"),
        ("iscrowd", "0", "'iscrowd' is not 0 or 1, found '0'"),
        ("image_id", "10", "'image_id' is not a whole number"),
    ],
)
def test_unusable_values_are_refused(write, tree, key, value, message):
    tree["annotations"][1][key] = value
    with pytest.raises(DataError, match=r"gt\.json: annotation 1 \(counted from 0\): " + message):
        read_ground_truth(write("gt.json", tree))


def test_files_that_are_no_annotations_are_refused(write, tree):
    with pytest.raises(DataError, match="found a list; are these the detections"):
        read_ground_truth(write("gt.json", []))
    del tree["annotations"]
    with pytest.raises(DataError, match="has no 'annotations'"):
        read_ground_truth(write("gt.json", tree))


def test_unknown_classes_are_refused_with_those_there_are(write, tree):
    path = write("gt.json", tree)
    with pytest.raises(DataError, match="has no class 'Dog'; its classes are cat, dog, bird"):
        read_ground_truth(path, ["cat", "Dog"])
    with pytest.raises(DataError, match="no class is asked for"):
        read_ground_truth(path, [])
