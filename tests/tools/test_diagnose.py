"""tools/diagnose.py as a user runs it: on a run, and on any program's results."""

import io
import json
import re
import runpy
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from html_page import Page
from simulated_comparison import HOSTILE
from simulated_diagnosis import simulated_diagnosis, write_files

from detkit.evaluation import read_results, write_results
from detkit.evaluation.diagnosis import diagnose
from detkit.evaluation.review_marks import ReviewMark, write_review_marks
from detkit.mining.manifest import write_manifest
from detkit.training.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
HOSTILE_FILE = "{} \"><img src=x onerror=alert(1)>'.jpg"


def run(tool: str, *arguments, status: int = 0) -> str:
    """Run a script in this process; return what it printed."""
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setattr(sys, "argv", [tool, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    assert ended.value.code == status, output.getvalue()
    return " ".join(output.getvalue().split())


def data_of(folder: Path) -> dict:
    """What the page's script reads."""
    text = (folder / "diagnosis.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_tiny_config) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run("train.py", write_tiny_config(folder, epochs=12))
    return folder / "run"


@pytest.fixture
def run_folder(trained, tmp_path) -> Path:
    """A run whose last checkpoint is the best one: nothing else to tell what persists."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(trained / "best.pt", folder)
    shutil.copy(trained / "best.pt", folder / "last.pt")
    return folder


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


def test_a_run_is_diagnosed_into_its_own_folder(run_folder, tiny_coco):
    output = run("diagnose.py", run_folder)
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


def test_a_checkpoint_and_another_split(run_folder, tmp_path):
    run("diagnose.py", run_folder / "best.pt", "--split", "train", "--output", tmp_path / "x")
    assert json.loads((tmp_path / "x" / "diagnosis.json").read_text())["images"] == 22


def test_annotations_in_place_of_a_split(run_folder, tiny_coco, tmp_path):
    told = ("--annotations", tiny_coco / "val.json", "--images", tiny_coco / "images")
    run("diagnose.py", run_folder, *told, "--output", tmp_path / "x")
    run("diagnose.py", run_folder, "--output", tmp_path / "y")
    first, second = ((tmp_path / name / "diagnosis.json").read_text() for name in "xy")
    assert first == second


def test_the_last_checkpoint_and_rounds_of_mining_tell_what_persists(run_folder, tiny_coco, tmp_path):
    all_of_them = ("--suspect-score", 0)
    run("diagnose.py", run_folder, *all_of_them)
    suspects = [item for item in data_of(run_folder / "diagnosis")["items"] if item["suspect"] is not None]
    assert len(suspects) > 2
    images = data_of(run_folder / "diagnosis")["images"]
    mined = suspects[-1]
    row = {
        "file": str(tiny_coco / "images" / images[mined["image"]]["name"]), "sha256": "0" * 64,
        "box": mined["box"], "score": 0.3, "category_id": (3, 5)[mined["class"]],
    }  # fmt: skip
    other = {**row, "box": suspects[0]["box"], "sha256": None}  # of an earlier round: this one did not see it
    elsewhere = {**row, "file": "elsewhere.png"}
    write_manifest(run_folder / "rounds" / "round_002" / "manifest.jsonl", {}, [row, other])
    write_manifest(run_folder / "rounds" / "round_003" / "manifest.jsonl", {}, [elsewhere])
    last = load_checkpoint(run_folder / "last.pt")
    last["model"] = {
        name: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
        for name, value in last["model"].items()
    }
    save_checkpoint(run_folder / "last.pt", last)

    output = run("diagnose.py", run_folder, *all_of_them)
    data = data_of(run_folder / "diagnosis")
    assert data["witnesses"] == ["last.pt", "round_002"]  # round 3 went over other images
    again = [item for item in data["items"] if item["suspect"] is not None]
    same = [item for item in again if 1 in item["seen"]]
    assert [(item["box"], item["class"]) for item in same] == [(mined["box"], mined["class"])]
    counts = [len(item["seen"]) for item in sorted(again, key=lambda item: item["suspect"])]
    assert counts == sorted(counts, reverse=True)
    assert "persist in any of last.pt, round_002" in output


def test_results_of_any_program_with_and_without_images(results, diagnosed, tmp_path):
    run("diagnose.py", *told(results, "--output", tmp_path / "x", images=True))
    run("diagnose.py", *told(results, "--output", tmp_path / "y"))
    expected = diagnose(diagnosed.ground_truth, diagnosed.table)[0].record()
    for folder in (tmp_path / "x", tmp_path / "y"):
        record = json.loads((folder / "diagnosis.json").read_text())
        assert record["confusion"] == [list(row) for row in expected["confusion"]]
        assert [part["AP50"] for part in record["parts"]] == pytest.approx(
            [part["AP50"] for part in expected["parts"]], abs=1e-9
        )
        assert not (folder / "detections.json").exists()
    assert all(item["patch"] for item in data_of(tmp_path / "x")["items"])
    assert not any(item["patch"] for item in data_of(tmp_path / "y")["items"])
    assert data_of(tmp_path / "y")["images"][0]["size"] == [256, 256]


def test_other_files_of_detections_tell_what_persists(results, diagnosed, tmp_path):
    rows = diagnosed.suspects.rows
    write_results(tmp_path / "before.json", diagnosed.table.select(diagnosed.classified.kinds == 0))
    found = run(
        "diagnose.py", *told(results, tmp_path / "before.json", results[1], "--output", tmp_path / "x")
    )
    suspects = [item for item in data_of(tmp_path / "x")["items"] if item["suspect"] is not None]
    assert len(suspects) == len(rows) > 2
    assert {tuple(item["seen"]) for item in suspects} == {
        (1,)
    }  # it is itself there again, and not in the other
    assert f"{len(rows)} of them persist in any of before.json, dt.json" in found
    (tmp_path / "one").mkdir()
    copy = shutil.copy(tmp_path / "before.json", tmp_path / "one")
    run("diagnose.py", *told(results, tmp_path / "before.json", copy, "--output", tmp_path / "y"))
    assert data_of(tmp_path / "y")["witnesses"] == ["before.json", "one/before.json"]


def test_patches_limits_every_kind(results, tmp_path):
    run("diagnose.py", *told(results, "--output", tmp_path / "x", "--patches", 1))
    kinds = [item["kind"] for item in data_of(tmp_path / "x")["items"] if not item["near"]]
    assert max(kinds.count(kind) for kind in kinds) <= 2 * 3 + 1  # three of each class


def test_groups_come_from_a_file_or_from_the_supercategories(results, tmp_path):
    def groups(folder: str) -> list[str]:
        parts = json.loads((tmp_path / folder / "diagnosis.json").read_text())["parts"]
        return [part["name"] for part in parts if part["part"] == "group"]

    (tmp_path / "groups.yaml").write_text("both: [drone, bird]\nliving: [bird]\n")
    run("diagnose.py", *told(results, "--output", tmp_path / "x", "--groups", tmp_path / "groups.yaml"))
    assert groups("x") == ["both", "living"]
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
        run("diagnose.py", *told((tmp_path / "gt.json", *results[1:]), "--output", tmp_path / "y"))
        assert groups("y") == expected


def test_marks_made_before_and_classes(results, diagnosed, tmp_path):
    mark = ReviewMark(file_name="photo 1.jpg", box=[1, 2, 3, 4], category="bird", score=0.5, mark="accepted")
    write_review_marks(tmp_path / "marks.json", [mark])
    run("diagnose.py", *told(results, "--output", tmp_path / "x", "--marks", tmp_path / "marks.json",
                             "--classes", "bird"))  # fmt: skip
    data = data_of(tmp_path / "x")
    assert data["classes"] == ["bird"]
    assert data["marks"]["marks"] == [mark.model_dump()]


def test_hostile_names_of_files_and_classes(tmp_path):
    files = write_files(tmp_path, simulated_diagnosis(6, (HOSTILE, "</script>"), names=HOSTILE_FILE))
    run("diagnose.py", *told(files, "--output", tmp_path / "x", images=True))
    data = data_of(tmp_path / "x")
    assert data["classes"] == [HOSTILE, "</script>"]
    assert all("<img src=x onerror" in image["name"] for image in data["images"])
    page = Page((tmp_path / "x" / "diagnosis.html").read_text())
    assert page.open == []
    assert len(page.all("script")) == 2
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_mistakes_are_one_message_and_status_2(results, run_folder, tmp_path):
    output = ("--output", tmp_path / "x")
    annotations, detections, images = results
    (tmp_path / "groups.yaml").write_text("all: [cow]\n")
    (tmp_path / "text.yaml").write_text("all: bird\n")
    (tmp_path / "nameless.json").write_text(
        json.dumps({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]})
    )
    (tmp_path / "none.json").write_text("[]")
    nameless = ("--annotations", tmp_path / "nameless.json", "--detections", tmp_path / "none.json")
    cases = {
        "give a run, or --annotations, --detections and --output": told(results),
        "go without a run": (run_folder, "--detections", detections),
        "needs both --annotations and --images": (run_folder, "--annotations", annotations),
        "go with a run": told(results, *output, "--split", "test"),
        "write a whole number from 1 on": told(results, *output, "--patches", 0),
        "there is no class 'cow'; the classes are drone, bird": told(
            results, *output, "--groups", tmp_path / "groups.yaml"
        ),
        "all: write each group as name: [class, ...]": told(
            results, *output, "--groups", tmp_path / "text.yaml"
        ),
        "is no file of review marks": told(results, *output, "--marks", annotations),
        "the classes are bright, dark": (run_folder, *output, "--groups", tmp_path / "groups.yaml"),
        "there is no such folder": (*told(results, *output), "--images", tmp_path / "absent"),
        "there is no such file; check the image folder": (*told(results, *output), "--images", tmp_path),
        "has no 'file_name'; leave --images out": (*nameless, *output, "--images", images),
        "has no class 'cow'": told(results, *output, "--classes", "cow"),
        "a list of detections was expected": (
            "--annotations",
            annotations,
            "--detections",
            annotations,
            *output,
        ),
        "COCO annotations were expected": ("--annotations", detections, "--detections", detections, *output),
        "absent/best.pt": (tmp_path / "absent" / "best.pt", *output),
        "data.test: is not set": (run_folder, "--split", "test", *output),
    }
    for message, arguments in cases.items():
        found = run("diagnose.py", *arguments, status=2)
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
    run("diagnose.py", *files, "--output", tmp_path / "x")
    (image,) = data_of(tmp_path / "x")["images"]
    assert (image["name"], image["size"]) == ("7", None)
