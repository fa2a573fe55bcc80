"""The content of metrics.json, and the tables a person reads."""

import json
import sys

import pytest

from detkit.errors import DataError
from detkit.evaluation import METRIC_NAMES, measure, metrics_tables, read_results, restrict, write_results

BOX = [10, 10, 110, 110]
SMALL = [0, 0, 20, 20]


@pytest.fixture
def metrics(make_ground_truth, make_table) -> dict:
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 1, SMALL)], classes=("face", "hand"))
    return measure(ground_truth, make_table([(1, 1, BOX, 0.75), (1, 1, SMALL, 0.25)]), score=0.5)


def test_numbers_and_names(metrics):
    assert metrics["format_version"] == 1
    assert (metrics["images"], metrics["objects"], metrics["detections"]) == (2, 2, 2)
    assert {name: metrics[name] for name in METRIC_NAMES} == pytest.approx(
        {**dict.fromkeys(METRIC_NAMES, 1.0), "AR1": 0.5, "APm": None, "ARm": None}
    )
    assert metrics["operating_point"] == {
        "score": 0.5,
        "iou": 0.5,
        "precision": 1,
        "recall": 0.5,
        "F1": pytest.approx(2 / 3),
        "TP": 1,
        "FP": 0,
        "FN": 1,
    }
    face, hand = metrics["per_class"]
    assert (face["name"], face["category_id"], face["objects"], face["recall"]) == ("face", 1, 2, 0.5)
    assert (face["AP"], face["AP50"], face["AR100"]) == pytest.approx((1, 1, 1))
    nothing = dict.fromkeys(["AP", "AP50", "AP75", "AR100", "precision", "recall", "F1"])
    assert hand == {"name": "hand", "category_id": 2, "objects": 0, **nothing, "TP": 0, "FP": 0, "FN": 0}


def test_unknown_ids_are_refused(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX)])
    with pytest.raises(DataError, match="image id 99: not in the annotations"):
        measure(ground_truth, make_table([(99, 1, BOX, 0.5)]))
    with pytest.raises(DataError, match="category id 2: not in the annotations"):
        measure(ground_truth, make_table([(1, 2, BOX, 0.5)]))


def test_ids_are_looked_up_once(make_ground_truth, make_table):
    ground_truth, table, calls = make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, BOX, 0.5)]), []
    sys.setprofile(
        lambda frame, event, _: event == "call" and frame.f_code is restrict.__code__ and calls.append(frame)
    )
    try:
        measure(ground_truth, table)
    finally:
        sys.setprofile(None)
    assert len(calls) == 1


def test_strict_json_even_of_nothing(metrics, make_ground_truth, make_table):
    nothing = measure(make_ground_truth([]), make_table([]))
    assert all(nothing[name] is None for name in METRIC_NAMES)
    for content in (metrics, nothing):
        assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_the_file_of_detections_measures_as_the_table_does(make_ground_truth, make_table, tmp_path):
    boxes = [[10.1, 10.2, 110.3, 72.4], [0.1, 0.1, 20.7, 20.3], [3.3, 1.7, 60.2, 90.9]]
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 1, SMALL), (2, 1, BOX)])
    table = make_table([(1 + row % 2, 1, box, 0.9 - row / 7) for row, box in enumerate(boxes)])
    write_results(tmp_path / "dt.json", table)
    assert measure(ground_truth, read_results(tmp_path / "dt.json")) == measure(ground_truth, table)


def test_tables_have_a_row_for_each_number_and_each_class(metrics):
    numbers, classes = metrics_tables(metrics)
    assert [row[0] for row in numbers.rows] == list(METRIC_NAMES)
    assert [row[1] for row in numbers.rows] == [metrics[name] for name in METRIC_NAMES]
    assert numbers.title == "2 images, 2 objects, 2 detections"
    assert [row[:2] for row in classes.rows] == [("face", 2), ("hand", 0), ("all", 2)]
    recall = classes.columns.index("recall")
    assert [row[recall] for row in classes.rows] == [0.5, None, 0.5]
    for table in (numbers, classes):
        assert {len(row) for row in table.rows} == {len(table.columns)}
