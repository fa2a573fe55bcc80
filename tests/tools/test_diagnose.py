"""tools/diagnose.py as a user runs it: on a run, and on any program's results."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from html_page import Page
from scripts import printed_by
from simulated_comparison import HOSTILE
from simulated_diagnosis import simulated_diagnosis, write_files

from detkit.builders.diagnosis import RunToDiagnose, Shown, diagnose_results, diagnose_run
from detkit.evaluation import read_results, write_results
from detkit.evaluation.diagnosis import diagnose
from detkit.evaluation.review_marks import ReviewMark, write_review_marks
from detkit.mining.manifest import write_manifest
from detkit.report.diagnosis_gallery import OF_EACH_KIND
from detkit.training.checkpoint import load_checkpoint, save_checkpoint

HOSTILE_FILE = "{} \"><img src=x onerror=alert(1)>'.jpg"


def data_of(folder: Path) -> dict:
    """What the page's script reads."""
    text = (folder / "diagnosis.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_tiny_config) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    printed_by("train.py", write_tiny_config(folder, epochs=5))
    return folder / "run"


def copy_of(trained: Path, folder: Path) -> Path:
    """A run whose last checkpoint is the best one, nothing else to tell what persists, and that wrote no log."""
    folder.mkdir()
    shutil.copy(trained / "best.pt", folder)
    shutil.copy(trained / "best.pt", folder / "last.pt")
    return folder


@pytest.fixture
def run_folder(trained, tmp_path) -> Path:
    return copy_of(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def diagnosed_run(trained, tmp_path_factory) -> tuple[Path, str]:
    """A run that was diagnosed with nothing said, and what was printed."""
    folder = copy_of(trained, tmp_path_factory.mktemp("diagnosed") / "run")
    # A run whose log ends in a line that it was killed at, good by its own metric, AP50, and not by AP.
    rows = [{"event": "start", "format_version": 1}]
    rows += [
        {"event": "validate", "epoch": epoch, "loss": 1.0, "AP": 0.0, "AP50": 0.01} for epoch in (1, 2, 3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"event": "vali')
    return folder, printed_by("diagnose.py", folder)


@pytest.fixture(scope="module")
def diagnosed():
    return simulated_diagnosis(images=12)


@pytest.fixture(scope="module")
def results(diagnosed, tmp_path_factory) -> tuple[Path, Path, Path]:
    """Annotations, detections and images."""
    return write_files(tmp_path_factory.mktemp("results"), diagnosed)


def told(results, *arguments, images: bool = False) -> tuple:
    annotations, detections, folder = results
    return ("--annotations", annotations, "--detections", detections,
            *(("--images", folder) if images else ()), *arguments)  # fmt: skip


def test_a_run_is_diagnosed_into_its_own_folder(diagnosed_run):
    run_folder, output = diagnosed_run
    folder = run_folder / "diagnosis"
    assert f"diagnosis: {folder / 'diagnosis.html'}" in output
    assert "AP50" in output
    table = read_results(folder / "detections.json")
    record = json.loads((folder / "diagnosis.json").read_text())
    assert (record["images"], record["detections"]) == (8, len(table))
    assert len(table) > 20
    data = data_of(folder)
    assert {image["name"] for image in data["images"]} <= {f"{number:03}.png" for number in range(101, 109)}
    assert all(item["patch"]["uri"].startswith("data:image/jpeg") for item in data["items"])
    assert data["witnesses"] == []
    page = Page((folder / "diagnosis.html").read_text())
    assert "run/best.pt on val" in page.text["h1"]
    assert "In training, never learned: the best AP50 is 0.010" in output


def test_a_checkpoint_and_another_split(run_folder, tmp_path):
    printed_by("diagnose.py", run_folder / "best.pt", "--split", "train", "--output", tmp_path / "x")
    assert json.loads((tmp_path / "x" / "diagnosis.json").read_text())["images"] == 22


def test_annotations_in_place_of_a_split(diagnosed_run, tiny_coco, tmp_path):
    told = ("--annotations", tiny_coco / "val.json", "--images", tiny_coco / "images")
    printed_by("diagnose.py", diagnosed_run[0], *told, "--output", tmp_path / "x")
    folders = tmp_path / "x", diagnosed_run[0] / "diagnosis"
    first, second = ((folder / "diagnosis.json").read_text() for folder in folders)
    assert first == second


def test_the_last_checkpoint_and_rounds_of_mining_tell_what_persists(run_folder, tiny_coco, tmp_path):
    alone = diagnose_run(RunToDiagnose(run_folder), tmp_path / "x", Shown(suspect_score=0))
    suspects = alone.table.select(alone.suspects.rows[:OF_EACH_KIND])
    assert len(suspects) > 2
    mined, category_id = suspects.boxes[-1].tolist(), int(suspects.category_ids[-1])
    row = {
        "file": str(tiny_coco / "images" / alone.image_names[int(suspects.image_ids[-1])]), "sha256": "0" * 64,
        "box": mined, "score": 0.3, "category_id": category_id,
    }  # fmt: skip
    # Of an earlier round: this one did not see it.
    other = {**row, "box": suspects.boxes[0].tolist(), "sha256": None}
    elsewhere = {**row, "file": "elsewhere.png"}
    write_manifest(run_folder / "rounds" / "round_002" / "manifest.jsonl", {}, [row, other])
    write_manifest(run_folder / "rounds" / "round_003" / "manifest.jsonl", {}, [elsewhere])
    last = load_checkpoint(run_folder / "last.pt")
    last["model"] = {
        name: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
        for name, value in last["model"].items()
    }
    save_checkpoint(run_folder / "last.pt", last)

    output = printed_by("diagnose.py", run_folder, "--suspect-score", 0)
    data = data_of(run_folder / "diagnosis")
    assert data["witnesses"] == ["last.pt", "round_002"]  # round 3 went over other images
    again = [item for item in data["items"] if item["suspect"] is not None]
    same = [item for item in again if 1 in item["seen"]]
    assert [(item["box"], item["class"]) for item in same] == [(mined, (3, 5).index(category_id))]
    counts = [len(item["seen"]) for item in sorted(again, key=lambda item: item["suspect"])]
    assert counts == sorted(counts, reverse=True)
    assert "persist in any of last.pt, round_002" in output


def test_results_of_any_program_with_and_without_images(results, diagnosed, tmp_path):
    printed_by("diagnose.py", *told(results, "--output", tmp_path / "x", images=True))
    printed_by("diagnose.py", *told(results, "--output", tmp_path / "y"))
    expected = diagnose(diagnosed.ground_truth, diagnosed.table)[0].record()
    for folder in (tmp_path / "x", tmp_path / "y"):
        record = json.loads((folder / "diagnosis.json").read_text())
        assert record["confusion"] == [list(row) for row in expected["confusion"]]
        assert [part["AP50"] for part in record["parts"]] == pytest.approx(
            [part["AP50"] for part in expected["parts"]], abs=1e-9
        )
        assert not (folder / "detections.json").exists()
    with_images, without = data_of(tmp_path / "x"), data_of(tmp_path / "y")
    assert all(item["patch"] for item in with_images["items"])
    assert not any(item["patch"] for item in without["items"])
    assert without["images"][0]["size"] == [256, 256]
    marked = {item["image"] for item in with_images["items"] if item["suspect"] is not None}
    assert 0 < len(marked) < len(with_images["images"])
    for place, image in enumerate(with_images["images"]):
        content = (results[2] / image["name"]).read_bytes()
        assert image["sha256"] == (hashlib.sha256(content).hexdigest()[:16] if place in marked else None)
    assert not any(image["sha256"] for image in without["images"])


def test_other_files_of_detections_tell_what_persists(results, diagnosed, tmp_path):
    rows = diagnosed.suspects.rows
    write_results(tmp_path / "before.json", diagnosed.table.select(diagnosed.classified.kinds == 0))
    found = printed_by(
        "diagnose.py", *told(results, tmp_path / "before.json", results[1], "--output", tmp_path / "x")
    )
    suspects = [item for item in data_of(tmp_path / "x")["items"] if item["suspect"] is not None]
    assert len(suspects) == len(rows) > 2
    assert {tuple(item["seen"]) for item in suspects} == {
        (1,)
    }  # it is itself there again, and not in the other
    assert f"{len(rows)} of them persist in any of before.json, dt.json" in found
    (tmp_path / "one").mkdir()
    copy = Path(shutil.copy(tmp_path / "before.json", tmp_path / "one"))
    again = diagnose_results(results[0], [results[1], tmp_path / "before.json", copy], None, Shown())
    assert again.suspects.witnesses == ("before.json", "one/before.json")


def test_patches_limits_every_kind(results, tmp_path):
    printed_by("diagnose.py", *told(results, "--output", tmp_path / "x", "--patches", 1))
    kinds = [item["kind"] for item in data_of(tmp_path / "x")["items"] if not item["near"]]
    assert max(kinds.count(kind) for kind in kinds) <= 2 * 3 + 1  # three of each class


def test_groups_come_from_a_file_or_from_the_supercategories(results, tmp_path):
    (tmp_path / "groups.yaml").write_text("both: [drone, bird]\nliving: [bird]\n")
    printed_by(
        "diagnose.py", *told(results, "--output", tmp_path / "x", "--groups", tmp_path / "groups.yaml")
    )
    parts = json.loads((tmp_path / "x" / "diagnosis.json").read_text())["parts"]
    assert [part["name"] for part in parts if part["part"] == "group"] == ["both", "living"]
    tree = json.loads(results[0].read_text())
    for above, expected in (
        (("made", "living", "living"), ["made", "living"]),
        (("thing", "thing", "thing"), []),  # one group of all says nothing
        (("a", "b", "c"), []),  # and neither does one for each class
    ):
        names = zip(("drone", "bird", "bat"), above, strict=True)
        tree["categories"] = [
            {"id": id_, "name": name, "supercategory": group}
            for id_, (name, group) in enumerate(names, start=1)
        ]
        (tmp_path / "gt.json").write_text(json.dumps(tree))
        found = diagnose_results(tmp_path / "gt.json", [results[1]], None, Shown()).diagnosis
        assert [part.name for part in found.parts if part.part == "group"] == expected


def test_marks_made_before_and_classes(results, diagnosed, tmp_path):
    mark = ReviewMark(file_name="photo 1.jpg", box=[1, 2, 3, 4], category="bird", score=0.5, mark="accepted")
    write_review_marks(tmp_path / "marks.json", [mark])
    printed_by("diagnose.py", *told(results, "--output", tmp_path / "x", "--marks", tmp_path / "marks.json",
                             "--classes", "bird"))  # fmt: skip
    data = data_of(tmp_path / "x")
    assert data["classes"] == ["bird"]
    assert data["marks"]["marks"] == [mark.model_dump()]


def test_hostile_names_of_files_and_classes(tmp_path):
    files = write_files(tmp_path, simulated_diagnosis(6, (HOSTILE, "</script>"), names=HOSTILE_FILE))
    printed_by("diagnose.py", *told(files, "--output", tmp_path / "x", images=True))
    data = data_of(tmp_path / "x")
    assert data["classes"] == [HOSTILE, "</script>"]
    assert all("<img src=x onerror" in image["name"] for image in data["images"])
    page = Page((tmp_path / "x" / "diagnosis.html").read_text())
    assert page.open == []
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


@pytest.fixture(scope="module")
def places(results, trained, tmp_path_factory) -> dict[str, str]:
    """What MISTAKES names: files that are right and files that are wrong."""
    folder = tmp_path_factory.mktemp("mistakes")
    cow, text, nameless, outside, empty = (
        folder / name for name in ("cow.yaml", "text.yaml", "nameless.json", "outside.json", "[].json")
    )
    cow.write_text("all: [cow]\n")
    text.write_text("all: bird\n")
    tree = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    nameless.write_text(json.dumps(tree))
    outside.write_text(json.dumps({**tree, "images": [{"id": 1, "file_name": "../elsewhere.png"}]}))
    empty.write_text("[]")
    broken = folder / "broken"
    broken.mkdir()
    shutil.copy(trained / "best.pt", broken)
    (broken / "metrics.jsonl").write_text('{"event": "start"}\nwhat\n{"event": "train"}\n')
    gt, dt, images = map(str, results)
    return {
        "GT": gt, "DT": dt, "IMAGES": images, "RUN": str(trained), "BROKEN": str(broken), "FOLDER": str(folder),
        "COW": str(cow), "TEXT": str(text), "NAMELESS": str(nameless), "OUTSIDE": str(outside), "EMPTY": str(empty),
        "ABSENT": str(folder / "absent"), "NO.pt": str(folder / "absent" / "best.pt"),
    }  # fmt: skip


RESULTS = "--annotations GT --detections DT"
MISTAKES = {
    f"{RESULTS}": "say where to write, with --output",
    "RUN --detections DT": "go without a trained detector",
    "RUN --annotations GT": "needs both --annotations and --images",
    f"{RESULTS} --output X --split test": "go with a trained detector",
    f"{RESULTS} --output X --patches 0": "write a whole number from 1 on",
    f"{RESULTS} --output X --groups COW": "there is no class 'cow'; the classes are drone, bird",
    f"{RESULTS} --output X --groups TEXT": "all: write each group as name: [class, ...]",
    f"{RESULTS} --output X --marks GT": "is no file of review marks",
    f"{RESULTS} --output X --images ABSENT": "there is no such folder",
    f"{RESULTS} --output X --images FOLDER": "there is no such file; check the image folder",
    f"{RESULTS} --output X --classes cow": "has no class 'cow'",
    "--annotations NAMELESS --detections EMPTY --output X --images IMAGES": "has no 'file_name'; leave --images out",
    "--annotations OUTSIDE --detections EMPTY --output X --images IMAGES": "lies outside the image folder",
    "--annotations GT --detections GT --output X": "a list of detections was expected",
    "--annotations DT --detections DT --output X": "COCO annotations were expected",
    "NO.pt --output X": "absent/best.pt",
    "RUN --output X --groups COW": "the classes are bright, dark",
    "RUN --output X --split test": "data.test: is not set",
    "BROKEN --output X": "metrics.jsonl: line 2: is no row of a log",
}


@pytest.mark.parametrize(("line", "message"), MISTAKES.items())
def test_a_mistake_is_one_message_and_status_2_and_writes_nothing(places, tmp_path, line, message):
    words = {**places, "X": str(tmp_path / "x")}
    found = printed_by("diagnose.py", *(words.get(word, word) for word in line.split()), status=2)
    assert message in found
    assert "Traceback" not in found
    assert not (tmp_path / "x").exists()


def test_annotations_without_names_and_sizes_need_no_images(tmp_path):
    tree = {
        "images": [{"id": 7}], "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }  # fmt: skip
    (tmp_path / "gt.json").write_text(json.dumps(tree))
    (tmp_path / "dt.json").write_text("[]")
    files = ("--annotations", tmp_path / "gt.json", "--detections", tmp_path / "dt.json")
    printed_by("diagnose.py", *files, "--output", tmp_path / "x")
    (image,) = data_of(tmp_path / "x")["images"]
    assert (image["name"], image["size"]) == ("7", None)


def test_a_name_that_is_no_unicode_is_no_stack_trace(tmp_path):
    boxes = ([0, 0, 9, 9], [20, 20, 9, 9])
    tree = {
        "images": [{"id": 7}], "categories": [{"id": 1, "name": "\ud800cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": id_, "image_id": 7, "category_id": id_, "bbox": box}
                        for id_, box in enumerate(boxes, start=1)],
    }  # fmt: skip
    (tmp_path / "gt.json").write_text(json.dumps(tree))
    (tmp_path / "dt.json").write_text(
        json.dumps([{"image_id": 7, "category_id": 2, "bbox": boxes[1], "score": 0.5}])
    )
    files = ("--annotations", tmp_path / "gt.json", "--detections", tmp_path / "dt.json")
    assert "The weakest class is ?cat" in printed_by("diagnose.py", *files, "--output", tmp_path / "x")
