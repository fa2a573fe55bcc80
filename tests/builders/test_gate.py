"""The quality gate: each thing it can ask for, just reached and just missed; and the script's exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from scripts import printed_by

from detkit.builders.gate import check_gate, passes_gate
from detkit.config import load_gate
from detkit.config.gate import Gate
from detkit.evaluation import DetectionTable, GroundTruth, write_results

ROOT = Path(__file__).resolve().parents[2]
BOX, FAR = [0.0, 0, 10, 10], [50.0, 50, 60, 60]


@pytest.fixture
def truth() -> GroundTruth:
    """Two cats and two dogs in images 1 to 4; nothing in 5 to 8."""
    return GroundTruth(
        image_ids=np.arange(1, 9),
        category_ids=(1, 2),
        class_names=("cat", "dog"),
        object_image_ids=np.array([1, 2, 3, 4]),
        object_category_ids=np.array([1, 1, 2, 2]),
        boxes=np.array([BOX] * 4),
        areas=np.full(4, 100.0),
        crowd=np.zeros(4, dtype=bool),
    )


def table(*rows: tuple) -> DetectionTable:
    """(image id, category id, box, score)."""
    return DetectionTable(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float32).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float32),
        np.array([row[1] for row in rows], dtype=np.int64),
    )


# Both cats and one dog are found; one false alarm in an image with a dog, one in an empty image.
FOUND = table((1, 1, BOX, 0.9), (2, 1, BOX, 0.8), (3, 2, BOX, 0.7), (4, 1, FAR, 0.6), (5, 2, FAR, 0.75))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"overall": {"metrics": {"precision": "?"}}}, 3 / 5),
        ({"overall": {"metrics": {"recall": "?"}}}, 3 / 4),
        ({"classes": {"cat": {"metrics": {"AP50": "?"}}}}, 1.0),
        ({"classes": {"dog": {"metrics": {"recall": "?"}}}}, 1 / 2),
        ({"score": 0.72, "classes": {"dog": {"metrics": {"recall": "?"}}}}, 0.0),
        ({"overall": {"recall_at": [{"false_positives": 0.125, "recall": "?"}]}}, 3 / 4),
        ({"overall": {"recall_at": [{"false_positives": 0.1, "recall": "?"}]}}, 2 / 4),
        ({"classes": {"dog": {"recall_at": [{"false_positives": 0.1, "recall": "?"}]}}}, 0.0),
        ({"alarms": {"rate": "?"}}, 1 / 4),
        ({"alarms": {"score": 0.76, "rate": "?"}}, 0.0),
    ],
)
def test_a_limit_that_is_just_reached_passes_and_one_that_is_missed_fails(truth, asked, found):
    least = "alarms" not in asked
    for off, passes in ((0.0, True), (0.01 if least else -0.01, False)):
        limit = found + off
        if not 0 <= limit <= 1:
            continue
        (check,) = check_gate(Gate.model_validate(filled(asked, limit)), truth, FOUND, Path())
        assert check.found == pytest.approx(found)
        assert check.passed is passes


def filled(tree, limit: float):
    if isinstance(tree, dict):
        return {key: filled(value, limit) for key, value in tree.items()}
    if isinstance(tree, list):
        return [filled(value, limit) for value in tree]
    return limit if tree == "?" else tree


def test_what_cannot_be_measured_does_not_pass(truth):
    gate = Gate.model_validate({"overall": {"metrics": {"APl": 0.0}}})
    (check,) = check_gate(gate, truth, FOUND, Path())
    assert (check.found, check.passed) == (None, False)
    assert check.sentence == "APl of all classes cannot be measured; at least 0 is asked for"


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (1, True), (30, False)])
def test_a_baseline_may_be_better_by_chance_alone(truth, tmp_path, lost, passes):
    count = 60
    many = GroundTruth(
        np.arange(count), (1,), ("cat",), np.arange(count), np.ones(count, np.int64),
        np.array([BOX] * count), np.full(count, 100.0), np.zeros(count, dtype=bool),
    )  # fmt: skip
    whole = table(*((image, 1, BOX, 0.5 + image / 200) for image in range(count)))
    write_results(tmp_path / "old.json", whole)
    gate = Gate.model_validate({"baseline": {"detections": "old.json", "resamples": 500}})
    (check,) = check_gate(gate, many, whole.select(np.arange(lost, count)), tmp_path)
    assert check.passed is passes
    if lost == 30:
        assert check.found < -0.2


def test_the_file_says_everything(truth, tmp_path, capsys):
    (tmp_path / "gate.yaml").write_text(
        "overall: {metrics: {recall: 0.9, precision: 0.5}}\nalarms: {rate: 0.1}\n"
    )
    assert not passes_gate(tmp_path / "gate.yaml", truth, FOUND, tmp_path)
    record = json.loads((tmp_path / "gate.json").read_text())
    assert (record["format_version"], record["passed"]) == (1, False)
    assert [(row["limit"], row["least"], row["passed"]) for row in record["checks"]] == [
        (0.9, True, False), (0.5, True, True), (0.1, False, False),
    ]  # fmt: skip
    told = capsys.readouterr()
    assert "recall of all classes is 0.7500; at least 0.9 is asked for" in told.err
    assert "is 0.2500; at most 0.1 is asked for" in told.err
    assert "1 of 3 checks passed" in told.out


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("score: 0.5", "asks for nothing"),
        ("overall: {metrics: {AP60: 0.5}}", "overall.metrics.AP60"),
        ("overall: {metrics: {AP50: 50}}", "less than or equal to 1"),
        ("overall: {recall_at: [{false_positives: 0.0, recall: 0.5}]}", "greater than 0"),
        ("alarms: {score: 0.5}", "alarms.rate: is missing"),
        (
            "classes: {cow: {metrics: {AP50: 0.5}}}",
            "classes.cow: there is no such class; the classes are cat, dog",
        ),
        ("classes: {cat: {metrics: {AR10: 0.5}}}", "AR10: is measured over all classes alone"),
        ("baseline: {detections: none.json}", "none.json"),
    ],
)
def test_mistakes_are_named(truth, tmp_path, text, mistake):
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(Exception, match=mistake) as told:
        passes_gate(tmp_path / "gate.yaml", truth, FOUND, tmp_path)
    assert type(told.value).__module__ == "detkit.errors"


def test_the_gates_of_the_project_are_gates():
    files = sorted((ROOT / "configs/gates").glob("*.yaml"))
    assert files
    for file in files:
        assert load_gate(file)


@pytest.mark.parametrize(("least", "status"), [(0.2, 0), (0.9, 1)])
def test_the_script_ends_with_the_verdict(tmp_path, least, status):
    tree = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, 10, 10]} for number in (1, 2)
        ],
    }
    (tmp_path / "gt.json").write_text(json.dumps(tree))
    write_results(tmp_path / "dt.json", table((1, 1, BOX, 0.9)))
    (tmp_path / "gate.yaml").write_text(f"overall: {{metrics: {{AP50: {least}}}}}")
    files = ("--annotations", tmp_path / "gt.json", "--detections", tmp_path / "dt.json")
    said = printed_by(
        "evaluate.py", *files, "--output", tmp_path / "out", "--gate", tmp_path / "gate.yaml", status=status
    )
    assert ("AP50 of all classes is 0.5050" in said) == bool(status)
    assert (tmp_path / "out/metrics.json").exists()
