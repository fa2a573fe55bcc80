"""tools/evaluate.py on a file of detections, end to end."""

import json
from pathlib import Path

import pytest
from scripts import Ended, run_script


@pytest.fixture
def detections() -> list[dict]:
    return [
        {"image_id": 10, "category_id": 7, "bbox": [10, 20, 30, 40], "score": 0.9},
        {"image_id": 20, "category_id": 0, "bbox": [50, 50, 10, 20], "score": 0.6},
    ]


def evaluate(*arguments: str | Path) -> Ended:
    return run_script("evaluate.py", *arguments)


@pytest.mark.parametrize("backend", ["pycocotools", "fast"])
def test_prints_tables_and_writes_metrics(write, tree, detections, tmp_path, backend):
    files = ("--annotations", write("gt.json", tree), "--detections", write("dt.json", detections))
    done = evaluate(*files, "--output", tmp_path / "out", "--backend", backend, "--score", "0.5")
    assert (done.status, done.errors) == (0, "")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["backend"] == backend
    assert metrics["AP50"] == pytest.approx(0.5)
    assert [row["AP50"] for row in metrics["per_class"]] == [0, pytest.approx(1), None]
    assert metrics["operating_point"]["precision"] == 0.5
    for text in (
        "3 images, 2 objects, 2 detections",
        "AP75",
        "dog",
        "n/a",
        str(tmp_path / "out/metrics.json"),
    ):
        assert text in done.output.replace("\n", "") or text in done.output


def test_classes_and_empty_results(write, tree, tmp_path):
    files = ("--annotations", write("gt.json", tree), "--detections", write("dt.json", []))
    done = evaluate(*files, "--output", tmp_path / "out", "--classes", "dog, bird")
    assert (done.status, done.errors) == (0, "")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert [(row["name"], row["AP"]) for row in metrics["per_class"]] == [("dog", 0), ("bird", None)]
    assert "cat" not in done.output


def test_mistakes_end_with_one_message_and_status_2(write, tree, detections, tmp_path):
    annotations, good = write("gt.json", tree), write("dt.json", detections)
    unknown = write("unknown.json", [{**detections[0], "image_id": 11}])
    cases = {
        "image id 11: not in the annotations": ("--annotations", annotations, "--detections", unknown),
        "is not JSON": ("--annotations", annotations, "--detections", write("broken.json", "[{")),
        "cannot be read: No such file": ("--annotations", tmp_path / "no.json", "--detections", good),
        "has no class 'fish'": ("--annotations", annotations, "--detections", good, "--classes", "fish"),
        "argument --score: nan: write a number between 0 and 1": ("--score", "nan"),
    }
    for message, arguments in cases.items():
        done = evaluate(*arguments, "--output", tmp_path / "out")
        assert done.status == 2
        assert message in done.errors
        assert "Traceback" not in done.errors
        assert not (tmp_path / "out").exists()


def test_help_teaches(tmp_path):
    done = evaluate("--help")
    assert done.status == 0
    assert "python tools/evaluate.py --annotations val.json --detections detections.json" in done.output
    assert "(default: the checkpoint's own, without a checkpoint 0.5)" in done.said
