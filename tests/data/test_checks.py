"""Every defect that COCO files have been seen with: the message a user reads, and its repair."""

import copy
import json
import math

import pytest
from sound_file import added, changed, sound_tree

from detkit.data.checks import check_annotations
from detkit.data.coco import read_coco
from detkit.data.columns import read_coco_tree
from detkit.data.image_checks import check_images
from detkit.data.inspection import inspect_file
from detkit.data.repair import repair
from detkit.errors import DataError


def test_a_sound_file_has_nothing_to_report(tree, folder):
    assert check_annotations(tree) == []
    assert check_images(tree, folder) == []
    fixed, changes = repair(tree)
    assert fixed == tree
    assert changes == []


ANNOTATION_DEFECTS = {
    # A broken file; the message; what the repair says it did (None: nothing, or it is left to a person).
    "width 0": (
        changed("annotations", 0, bbox=[10, 10, 0, 5]),
        "error: annotation 11: width is 0; correct or remove the box",
        "dropped",
    ),
    "width -1": (
        changed("annotations", 0, bbox=[10, 10, -1, 5]),
        "error: annotation 11: width is -1; correct or remove the box",
        "dropped",
    ),
    "height negative": (
        changed("annotations", 0, bbox=[10, 10, 5, -3.5]),
        "error: annotation 11: height is -3.5; correct or remove the box",
        "dropped",
    ),
    "NaN": (
        changed("annotations", 0, bbox=[math.nan, 10, 5, 5]),
        "error: annotation 11: box [nan, 10, 5, 5] is not finite; correct or remove the box",
        "dropped",
    ),
    "infinite": (
        changed("annotations", 0, bbox=[1, 10, math.inf, 5]),
        "error: annotation 11: box [1, 10, inf, 5] is not finite; correct or remove the box",
        "dropped",
    ),
    "too large for float32": (
        changed("annotations", 0, bbox=[1, 10, 1e39, 5]),
        "error: annotation 11: box [1, 10, 1e+39, 5] is not finite; correct or remove the box",
        "dropped",
    ),
    "outside": (
        changed("annotations", 0, bbox=[101, 10, 5, 5]),
        "error: annotation 11: box [101, 10, 5, 5] lies outside its image of 100 x 50; correct or remove the box",
        "dropped",
    ),
    "touching from outside": (
        changed("annotations", 0, bbox=[-5, 10, 5, 5]),
        "error: annotation 11: box [-5, 10, 5, 5] lies outside its image of 100 x 50; correct or remove the box",
        "dropped",
    ),
    "partly outside": (
        changed("annotations", 0, bbox=[-5, 40, 20, 30]),
        "warning: annotation 11: box [-5, 40, 20, 30] reaches out of its image of 100 x 50; clip it",
        "clipped to [0, 40, 15, 10]",
    ),
    "unknown image": (
        changed("annotations", 0, image_id=77),
        "error: annotation 11: image_id is 77, but there is no such image; add the image or remove the annotation",
        "dropped",
    ),
    "unknown category": (
        changed("annotations", 0, category_id=0),
        "error: annotation 11: category_id is 0, but there is no such category; "
        "add the category or remove the annotation",
        "dropped",
    ),
    "id twice": (
        changed("annotations", 1, id=11),
        "error: annotation 11: the id is used twice; give every annotation its own id",
        "its id is now 14",
    ),
    "id 0": (
        changed("annotations", 0, id=0),
        "warning: annotation 0: the id is 0, which pycocotools reads as 'not matched': "
        "it counts the object as missed; count from 1",
        "its id is now 14",
    ),
    "same box twice": (
        added("annotations", id=99),
        "warning: annotation 99: has the same image, class and box as annotation 11; remove one of the two",
        "dropped",
    ),
    "negative area": (
        changed("annotations", 0, area=-4),
        "warning: annotation 11: area is -4; use width x height",
        "width x height is used",
    ),
    "no id": (
        changed("annotations", 0, id=...),
        "error: annotations[0]: id is missing; give a whole number",
        "its id is now 14",
    ),
    "no box": (
        changed("annotations", 0, bbox=...),
        "error: annotation 11: bbox is missing; give four numbers [x, y, width, height]",
        "dropped",
    ),
    "box of three": (
        changed("annotations", 0, bbox=[1, 2, 3]),
        "error: annotation 11: bbox is [1, 2, 3], not four numbers [x, y, width, height]; "
        "give four numbers [x, y, width, height]",
        "dropped",
    ),
    "box of texts": (
        changed("annotations", 0, bbox=["1", "2", "30", "40"]),
        "error: annotation 11: bbox is ['1', '2', '30', '40'], not four numbers [x, y, width, height]; "
        "give four numbers [x, y, width, height]",
        "bbox is now [1.0, 2.0, 30.0, 40.0]",
    ),
    "image id as text": (
        changed("annotations", 0, image_id="5"),
        "error: annotation 11: image_id is '5', not a whole number; give a whole number",
        "image_id is now 5",
    ),
    "crowd flag": (
        changed("annotations", 0, iscrowd="maybe"),
        "error: annotation 11: iscrowd is 'maybe', not 0 or 1; give 0 or 1",
        "0 is used",
    ),
    "no object": (
        {**sound_tree(), "annotations": [None, *sound_tree()["annotations"]]},
        "error: annotations[0]: is None, not an object with the key id; give a whole number",
        "dropped",
    ),
}
IMAGE_DEFECTS = {
    "id twice": (
        changed("images", 1, id=5),
        "error: image 5: the id is used twice, by 'a.png' and 'b.png'; give every image its own id",
        None,
    ),
    "id and file twice": (
        added("images"),
        "error: image 5: the id is used twice, by 'a.png' and 'a.png'; give every image its own id",
        "the second is dropped, it is the same file",
    ),
    "file twice": (
        added("images", id=7),
        "warning: image 7: a.png is the file of image 5 too; "
        "merge the two: each teaches that the other's objects are background",
        None,
    ),
    "escape": (
        changed("images", 0, file_name="../secret/a.png"),
        "error: image 5: file name '../secret/a.png' leaves the image folder; "
        "move the file into the folder and name it from there",
        "dropped, with its boxes",
    ),
    "absolute": (
        changed("images", 0, file_name="/etc/a.png"),
        "error: image 5: file name '/etc/a.png' leaves the image folder; "
        "move the file into the folder and name it from there",
        "dropped, with its boxes",
    ),
    "windows": (
        changed("images", 0, file_name="C:\\photos\\a.png"),
        "error: image 5: file name 'C:\\\\photos\\\\a.png' leaves the image folder; "
        "move the file into the folder and name it from there",
        "dropped, with its boxes",
    ),
    "height 0": (
        changed("images", 0, height=0),
        "error: image 5: height is 0, not a whole number of pixels above 0; give a whole number of pixels above 0",
        None,
    ),
    "no file name": (
        changed("images", 0, file_name=...),
        "error: image 5: file_name is missing; give a text",
        "dropped, with its boxes",
    ),
    "width as float": (
        changed("images", 0, width=100.0),
        "error: image 5: width is 100.0, not a whole number of pixels above 0; "
        "give a whole number of pixels above 0",
        "width is now 100",
    ),
    "category id twice": (
        changed("categories", 1, id=1),
        "error: category 1: the id is used twice, by 'cat' and 'dog'; give every class its own id",
        None,
    ),
    "category name twice": (
        changed("categories", 1, name="cat"),
        "error: category 2: the name 'cat' is that of category 1 too; rename it, or use one id for both",
        "its boxes now have category 1",
    ),
    "no images": (
        {**sound_tree(), "images": [], "annotations": []},
        "error: images: the list is empty; give a file with images",
        None,
    ),
    "no categories": (
        {**sound_tree(), "categories": [], "annotations": []},
        "error: categories: the list is empty; name at least one class",
        None,
    ),
}
ALL = {**{f"annotation {k}": v for k, v in ANNOTATION_DEFECTS.items()}, **IMAGE_DEFECTS}


@pytest.mark.parametrize("name", ALL)
def test_message(name):
    tree, message, _ = ALL[name]
    messages = [f"{defect.severity}: {defect.message}" for defect in check_annotations(tree)]
    assert message in messages


@pytest.mark.parametrize("name", [name for name, case in ALL.items() if case[1].startswith("error")])
def test_reading_refuses_every_error(name, tmp_path):
    tree, message, _ = ALL[name]
    (tmp_path / "train.json").write_text(json.dumps(tree))
    with pytest.raises(DataError) as caught:
        read_coco(tmp_path / "train.json")
    assert message.removeprefix("error: ") in str(caught.value)


@pytest.mark.parametrize("name", [name for name, case in ALL.items() if case[1].startswith("warning")])
def test_reading_lets_warnings_pass(name, tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(ALL[name][0]))
    assert len(read_coco(tmp_path / "train.json")) >= 2


@pytest.mark.parametrize("name", [name for name, case in ALL.items() if case[2]])
def test_repair_says_what_it_did_and_passes(name, tmp_path):
    tree, _, done = ALL[name]
    before = copy.deepcopy(tree)
    fixed, changes = repair(tree)
    assert done in [change.done for change in changes]
    assert repr(tree) == repr(before)
    assert not [defect for defect in check_annotations(fixed) if defect.severity == "error"]
    (tmp_path / "fixed.json").write_text(json.dumps(fixed, allow_nan=False))
    assert len(read_coco(tmp_path / "fixed.json")) >= 1


def test_repaired_boxes(tmp_path):
    fixed, _ = repair(ANNOTATION_DEFECTS["partly outside"][0])
    assert fixed["annotations"][0]["bbox"] == [0, 40, 15, 10]
    assert fixed["annotations"][0]["area"] == 150
    assert fixed["info"] == {"year": 2024}
    fixed, _ = repair(ANNOTATION_DEFECTS["width -1"][0])
    assert [record["id"] for record in fixed["annotations"]] == [12, 13]
    fixed, _ = repair(IMAGE_DEFECTS["escape"][0])
    assert [record["id"] for record in fixed["images"]] == [6]
    assert [record["id"] for record in fixed["annotations"]] == [13]
    fixed, _ = repair(IMAGE_DEFECTS["category name twice"][0])
    assert [record["category_id"] for record in fixed["annotations"]] == [1, 1, 1]


def test_two_files_under_one_id_are_both_dropped():
    tree = changed("images", 1, id=5)
    tree["images"].append({"id": 8, "file_name": "c.png", "height": 50, "width": 100})
    fixed, changes = repair(tree)
    assert [record["id"] for record in fixed["images"]] == [8]
    assert fixed["annotations"] == []
    assert "dropped, with its boxes: no box says which of the 2 files it is on" in [
        item.done for item in changes
    ]


def test_two_classes_under_one_id_are_left_to_a_person():
    with pytest.raises(DataError, match=r"left for a person[^\n]*\n  category 1: the id is used twice"):
        repair(changed("categories", 1, id=1))


def test_an_image_whose_id_is_a_text_keeps_its_boxes():
    fixed, _ = repair(changed("images", 0, id="5"))
    assert [record["id"] for record in fixed["annotations"]] == [11, 12, 13]


def test_missing_area_and_iscrowd_are_harmless_and_filled_in(tmp_path):
    tree = changed("annotations", 0, area=..., iscrowd=...)
    messages = [f"{defect.severity}: {defect.message}" for defect in check_annotations(tree)]
    assert messages == ["info: annotations: 1 have no area; width x height is used"]
    fixed, _ = repair(tree)
    assert fixed["annotations"][0]["area"] == 400
    assert fixed["annotations"][0]["iscrowd"] == 0


def test_category_ids_with_gaps_or_from_zero_are_said_to_be_fine():
    tree = changed("categories", 1, id=0)
    tree["annotations"][1]["category_id"] = 0
    messages = [f"{defect.severity}: {defect.message}" for defect in check_annotations(tree)]
    assert messages == [
        "info: categories: the ids of 2 classes run from 0 to 1; any ids will do, nothing to mend"
    ]
    tree = changed("categories", 1, id=9)
    tree["annotations"] = tree["annotations"][::2]
    messages = [f"{defect.severity}: {defect.message}" for defect in check_annotations(tree)]
    assert messages[0].startswith("info: categories: the ids of 2 classes run from 1 to 9; any ids will do")
    assert messages[1].startswith("info: categories: 1 without a box: dog; leave them out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"images": [],\n "annotations": [}',
            "line 2, column 18: is not JSON: Expecting value; export the file",
        ),
        ("[]", "holds a list, as results files do; COCO annotations are an object with images, annotations"),
        (
            '{"images": [], "categories": {}}',
            "has no list annotations and no list categories; COCO annotations",
        ),
        ("\xff\xfe", "is not JSON"),
    ],
)
def test_not_coco(tmp_path, text, message):
    path = tmp_path / "train.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read_coco_tree(path)
    assert message in str(caught.value)
    report = inspect_file(path)
    assert report.errors_left == 1
    assert message.split(";")[0] in report.defects[0].message


def test_everything_at_once(tmp_path, folder):
    """One file with many defects: each is found, and the repaired copy has none."""
    tree = sound_tree()
    for case, _, _ in ANNOTATION_DEFECTS.values():
        bad = next((a for a in case["annotations"] if a not in sound_tree()["annotations"]), None)
        tree["annotations"].append(bad)
    tree["images"].append({"id": 9, "file_name": "gone.png", "height": 50, "width": 100})
    tree["images"].append({"id": 10, "file_name": "../up.png", "height": 50, "width": 100})
    (tmp_path / "bad.json").write_text(json.dumps(tree))
    report = inspect_file(tmp_path / "bad.json", folder, repaired=tmp_path / "fixed.json")
    kinds = {defect.kind for defect in report.defects}
    assert {"box-without-area", "box-not-finite", "box-outside", "unknown-image", "file-missing"} < kinds
    assert {
        "file-name-escapes",
        "missing-key",
        "wrong-value",
        "annotation-id-twice",
        "unknown-category",
    } < kinds
    assert report.errors_left == 0
    again = inspect_file(tmp_path / "fixed.json", folder)
    assert [defect.message for defect in again.defects if defect.severity == "error"] == []
    assert [image["id"] for image in read_coco_tree(tmp_path / "fixed.json")["images"]] == [5, 6]


@pytest.mark.parametrize("name", ["coco-cc", "dice", "bloodcells", "drone-visible"])
def test_real_sets_have_no_errors(shared_folder, name):
    folder = shared_folder / "data" / name
    report = inspect_file(folder / "annotations/instances_val.json", folder / "images")
    assert [defect.message for defect in report.defects if defect.severity != "info"] == []
