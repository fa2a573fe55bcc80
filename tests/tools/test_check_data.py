"""tools/check_data.py as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import Ended, run_script

CONFIG = """
output: runs/x
data:
  train: {annotations: train.json, images: images}
  val: {annotations: val.json, images: images}
  classes: [dog]
  resize: {shorter: 64, longest: 128}
model:
  backbone: resnet18
  levels: [3, 4]
  anchor_sizes: [[16], [32]]
"""


def run(*arguments: object) -> Ended:
    return run_script("check_data.py", *arguments)


@pytest.fixture
def data(tmp_path) -> Path:
    """train.json with two errors, val.json without, and their image."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / "images/a.png")
    boxes = [[10, 10, 20, 20], [40, 10, -3, 20], [90, 10, 20, 20], [500, 1, 2, 2]]
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "height": 50, "width": 100}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1 + i % 2, "bbox": box}
            for i, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(tree))
    (tmp_path / "val.json").write_text(json.dumps({**tree, "annotations": tree["annotations"][:1]}))
    (tmp_path / "x.yaml").write_text(CONFIG)
    return tmp_path


def test_errors_are_told_repaired_and_gone(data):
    status, text, _ = run(data / "train.json", "--images", data / "images", "--json", data / "report.json")
    assert status == 1
    assert "2 error(s), 1 warning(s), 1 info(s)" in text
    assert "annotation 2: width is -3; correct or remove the box" in text
    assert "annotation 4: box [500, 1, 2, 2] lies outside its image of 100 x 50" in text
    report = json.loads((data / "report.json").read_text())[0]
    assert report["errors_left"] == 2
    assert [item["kind"] for item in report["defects"]][:2] == ["box-without-area", "box-outside"]
    status, text, _ = run(data / "train.json", "--images", data / "images", "--fix", data / "fixed.json")
    assert status == 0
    assert "annotation 2: width is -3: dropped" in text
    assert "clipped to [90, 10, 10, 20]" in text
    status, text, _ = run(data / "fixed.json", "--images", data / "images")
    assert status == 0
    assert "0 error(s), 0 warning(s)" in text
    assert "1 images, 0 (0.0%) without objects; 2 boxes, 0 crowds" in text


def test_what_cannot_be_repaired_is_told(data):
    status, text, _ = run(data / "train.json", "--images", data, "--fix", data / "fixed.json")
    assert status == 1
    assert "not repaired: no image would be left; is the image folder the right one?" in text
    assert not (data / "fixed.json").exists()


def test_an_experiment_with_all_its_splits(data, monkeypatch):
    monkeypatch.setenv("DETKIT_DATA_ROOT", str(data))
    status, text, _ = run(data / "x.yaml")
    assert status == 1
    assert f"{data}/train.json: 2 error(s)" in text
    assert f"{data}/val.json: 0 error(s)" in text
    # Shorter side 64: a 128 x 64 canvas has 16 x 8 and 8 x 4 cells of three ratios.
    assert "anchors over 1 images: 480 per image; foreground to background" in text
    assert "low-quality matches save" in text
    assert "cat" not in text.split("Boxes by class")[1]


def test_broken_json_names_line_and_column(data):
    (data / "train.json").write_text('{"images": [\n  {"id": 1,,}]}')
    status, text, _ = run(data / "train.json", "--no-images")
    assert status == 1
    assert "line 2, column 12: is not JSON" in text


def test_mistakes_on_the_command_line(data):
    assert "--images DIR" in run(data / "train.json")[2]
    assert "not with an experiment" in run(data / "x.yaml", "--fix", "out.json")[2]
    status, _, errors = run(data / "val.json", "--no-images", "--classes", "cow")
    assert status == 2
    assert "has no class 'cow'; its classes are cat, dog" in errors


def test_classes_are_named_as_in_the_other_tools(data):
    status, text, _ = run(data / "val.json", "--no-images", "--classes", " cat , dog")
    assert status == 0
    assert "1 images" in text


def test_the_source_is_never_overwritten(data):
    before = (data / "train.json").read_bytes()
    (data / "link.json").symlink_to(data / "train.json")
    for path in (data / "train.json", data / "images/../train.json", data / "link.json"):
        status, _, errors = run(data / "train.json", "--no-images", "--fix", path)
        assert status == 2
        assert "is the source itself; give the repaired copy another path" in errors
    assert (data / "train.json").read_bytes() == before


def test_augmentations_are_checked_too(data):
    text = CONFIG.replace("data:\n", "data:\n  augment: [{name: Flipp}, {name: Blurr}]\n")
    (data / "x.yaml").write_text(text)
    status, _, errors = run(data / "x.yaml", "--data-root", data)
    assert status == 2
    assert "data.augment[0]: there is no transform 'Flipp'" in errors
    assert "data.augment[1]: there is no transform 'Blurr'" in errors


def test_help_teaches():
    assert "python tools/check_data.py train.json --images photos" in run("--help").output
