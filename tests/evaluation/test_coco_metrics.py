"""The twelve numbers: worked out by hand, against pycocotools on the files, and backend against backend."""

import json
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkit.errors import DetkitError
from detkit.evaluation import (
    METRIC_NAMES,
    ClassMetrics,
    CocoMetrics,
    DetectionTable,
    GroundTruth,
    evaluate_boxes,
    read_ground_truth,
    read_results,
)

BOX = [10, 10, 110, 110]
FAR = [300, 300, 400, 400]
BACKENDS = pytest.mark.parametrize("backend", ["pycocotools", "fast"])


@BACKENDS
def test_perfect_detections(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX), (2, 1, FAR)])
    found = evaluate_boxes(ground_truth, make_table([(1, 1, BOX, 0.3), (2, 1, FAR, 0.9)]), backend=backend)
    assert found.overall == pytest.approx(
        {name: None if name[-1] in "sm" else 1.0 for name in METRIC_NAMES}, abs=1e-12
    )
    one = pytest.approx(1)
    assert found.per_class == (ClassMetrics("face", 1, 2, AP=one, AP50=one, AP75=one, AR100=one),)


@BACKENDS
def test_a_false_positive_above_the_object_halves_precision(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    found = evaluate_boxes(ground_truth, make_table([(1, 1, BOX, 0.5), (2, 1, FAR, 0.6)]), backend=backend)
    assert found.overall["AP"] == pytest.approx(1 / 2)
    assert found.overall["AR100"] == 1


@BACKENDS
def test_a_false_positive_below_the_object_costs_nothing(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    found = evaluate_boxes(ground_truth, make_table([(1, 1, BOX, 0.6), (2, 1, FAR, 0.5)]), backend=backend)
    assert found.overall["AP"] == pytest.approx(1)


@BACKENDS
def test_half_recall_reaches_51_of_101_points(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX)])
    found = evaluate_boxes(ground_truth, make_table([(1, 1, BOX, 0.5)]), backend=backend)
    assert found.overall["AP"] == pytest.approx(51 / 101)
    assert found.overall["AR100"] == 0.5


@BACKENDS
def test_an_overlap_of_062_passes_three_of_ten_thresholds(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    table = make_table([(1, 1, [10, 10, 110, 72], 0.5)])
    found = evaluate_boxes(ground_truth, table, backend=backend)
    assert found.overall["AP"] == pytest.approx(0.3)
    assert (found.overall["AP50"], found.overall["AP75"]) == pytest.approx((1, 0))
    (face,) = found.per_class
    assert face == ClassMetrics(
        "face", 1, 1, AP=pytest.approx(0.3), AP50=pytest.approx(1), AP75=0, AR100=pytest.approx(0.3)
    )


@BACKENDS
def test_one_detection_of_two_objects_in_an_image(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 1, FAR)])
    table = make_table([(1, 1, BOX, 0.5), (1, 1, FAR, 0.4)])
    overall = evaluate_boxes(ground_truth, table, backend=backend).overall
    assert (overall["AR1"], overall["AR10"], overall["AR100"]) == (0.5, 1, 1)


@BACKENDS
def test_detections_in_a_crowd_are_ignored(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 1, FAR, True)])
    inside = [310, 310, 330, 330]
    table = make_table([(1, 1, BOX, 0.5), (1, 1, inside, 0.9), (1, 1, inside, 0.8)])
    found = evaluate_boxes(ground_truth, table, backend=backend)
    assert found.overall["AP"] == pytest.approx(1)
    assert found.per_class[0].objects == 1


@BACKENDS
def test_classes_keep_their_own_numbers_in_the_ground_truths_order(make_ground_truth, make_table, backend):
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 3, FAR)], classes=("a", "empty", "c"))
    reordered = GroundTruth(
        **{**vars(ground_truth), "category_ids": (3, 2, 1), "class_names": ("c", "empty", "a")}
    )
    table = make_table([(1, 3, FAR, 0.5), (1, 2, BOX, 0.5)])
    found = evaluate_boxes(reordered, table, backend=backend)
    assert [(row.name, row.objects, row.AP, row.AR100) for row in found.per_class] == [
        ("c", 1, pytest.approx(1), 1),
        ("empty", 0, None, None),
        ("a", 1, 0, 0),
    ]
    assert found.overall["AP"] == pytest.approx(1 / 2)


@BACKENDS
def test_no_detections(make_ground_truth, make_table, backend):
    found = evaluate_boxes(make_ground_truth([(1, 1, BOX)]), make_table([]), backend=backend)
    assert found.overall == {name: None if name[-1] in "sm" else 0 for name in METRIC_NAMES}


@BACKENDS
def test_no_objects(make_ground_truth, make_table, backend):
    found = evaluate_boxes(make_ground_truth([]), make_table([(1, 1, BOX, 0.5)]), backend=backend)
    assert found.overall == dict.fromkeys(METRIC_NAMES)


@BACKENDS
def test_neither_objects_nor_detections(make_ground_truth, make_table, backend):
    found = evaluate_boxes(make_ground_truth([]), make_table([]), backend=backend)
    assert found.overall == dict.fromkeys(METRIC_NAMES)


@BACKENDS
def test_the_first_object_can_be_found(write, backend):
    """Its annotation id is 0, which both libraries take for "unmatched" where they see it."""
    tree = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "face"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50]}],
    }
    rows = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.5}]
    ground_truth = read_ground_truth(write("gt.json", tree))
    found = evaluate_boxes(ground_truth, read_results(write("dt.json", rows)), backend=backend)
    assert found.overall["AP"] == pytest.approx(1)


def test_nothing_is_printed(make_ground_truth, make_table, capfd):
    for backend in ("pycocotools", "fast"):
        evaluate_boxes(make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, BOX, 0.5)]), backend=backend)
    assert capfd.readouterr() == ("", "")


def test_backends_that_are_not_there(make_ground_truth, make_table, monkeypatch):
    with pytest.raises(DetkitError, match="there is pycocotools and fast"):
        evaluate_boxes(make_ground_truth([]), make_table([]), backend="slow")
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(DetkitError, match=r"pip install detkit\[fast-eval\]"):
        evaluate_boxes(make_ground_truth([]), make_table([]), backend="fast")


def random_rows(rng: np.random.Generator, count: int, images: int, classes: int) -> list[dict]:
    """Boxes anywhere; sides of 32 and 96 lie on the limits of size, and coordinates have two decimals."""
    corners = (rng.integers(0, 10, (count, 2)) * 4 + rng.choice([0, 0.18, 0.07], (count, 1))).round(2)
    sides = rng.choice([8, 16, 31.99, 32, 64, 96, 100.5], (count, 2))
    columns = (
        (3 * rng.integers(0, images, count)).tolist(),
        (2 * rng.integers(0, classes, count)).tolist(),
        np.concatenate([corners, sides], axis=1).tolist(),
    )
    return [
        dict(zip(("image_id", "category_id", "bbox"), row, strict=True)) for row in zip(*columns, strict=True)
    ]


def random_trees(seed: int) -> tuple[dict, list[dict]]:
    """Annotations and detections with crowds, empty images and classes, and ties."""
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    annotations = random_rows(rng, int(rng.integers(0, 25)), images, classes)
    detections = random_rows(rng, int(rng.integers(1, 160)), images, classes)
    for row in detections[: len(detections) // 2] if annotations else []:
        row.update(annotations[rng.integers(len(annotations))])
    for row in detections:
        row["score"] = int(rng.integers(0, 11)) / 10
    for index, row in enumerate(annotations, 1):
        row.update(id=index, area=row["bbox"][2] * row["bbox"][3], iscrowd=int(rng.random() < 0.15))
    return {
        "images": [{"id": 3 * index} for index in range(images)],
        "categories": [{"id": 2 * index, "name": str(index)} for index in range(classes + 1)],
        "annotations": annotations,
    }, detections


def every_number(metrics: CocoMetrics) -> list[float]:
    """The twelve numbers and those of each class, -1 for None."""
    values = [*metrics.overall.values(), *(value for row in metrics.per_class for value in astuple(row)[3:])]
    return [-1.0 if value is None else value for value in values]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_same_as_pycocotools_on_the_files_and_fast_is_the_same(seed, tmp_path_factory):
    folder: Path = tmp_path_factory.getbasetemp()
    annotations, detections = folder / "random_gt.json", folder / "random_dt.json"
    tree, results = random_trees(seed)
    annotations.write_text(json.dumps(tree))
    detections.write_text(json.dumps(results))
    ground_truth = read_ground_truth(annotations)
    table = read_results(detections, ground_truth)

    reference = COCO(str(annotations))
    evaluator = COCOeval(reference, reference.loadRes(str(detections)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()

    ours, fast = evaluate_boxes(ground_truth, table), evaluate_boxes(ground_truth, table, backend="fast")
    assert every_number(ours)[:12] == evaluator.stats.tolist()
    assert every_number(fast) == pytest.approx(every_number(ours), rel=0, abs=1e-12)


def test_the_order_of_rows_matters_not(make_ground_truth):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (60, 2))
    table = DetectionTable(
        image_ids=rng.integers(1, 3, 60),
        boxes=np.concatenate([corners, corners + rng.uniform(20, 60, (60, 2))], axis=1).astype(np.float32),
        scores=rng.random(60),
        category_ids=np.ones(60, dtype=np.int64),
    )
    ground_truth = make_ground_truth([(1 + row % 2, 1, table.boxes[row] + 3) for row in range(8)])
    shuffled = table.select(rng.permutation(60))
    assert evaluate_boxes(ground_truth, table) == evaluate_boxes(ground_truth, shuffled)
