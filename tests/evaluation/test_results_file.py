"""COCO results files: read, refused, and written so that nothing is lost."""

import json
import re

import numpy as np
import pytest

from detkit.errors import DataError
from detkit.evaluation import DetectionTable, read_ground_truth, read_results, write_results

GOOD = {"image_id": 10, "category_id": 7, "bbox": [10.25, 20, 30, 40], "score": 0.5}


def test_reads_boxes_as_xyxy(write):
    table = read_results(write("dt.json", [GOOD, {**GOOD, "image_id": 20.0, "score": 1, "extra": "x"}]))
    assert table.boxes.tolist() == [[10.25, 20, 40.25, 60]] * 2
    assert table.image_ids.tolist() == [10, 20]
    assert table.category_ids.tolist() == [7, 7]
    assert table.scores.tolist() == [0.5, 1]
    assert (table.image_ids.dtype, table.boxes.dtype, table.scores.dtype) == (
        np.int64,
        np.float64,
        np.float64,
    )


def test_scores_that_float32_would_tie_stay_apart(write):
    scores = [0.123456789012, 0.123456789013]
    table = read_results(write("dt.json", [{**GOOD, "score": score} for score in scores]))
    assert table.scores.tolist() == scores


def test_long_ids_keep_their_last_digit(write):
    assert read_results(write("dt.json", [{**GOOD, "image_id": 2**62 + 1}])).image_ids.tolist() == [2**62 + 1]


@pytest.mark.parametrize("name", ["bare", "against the ground truth"])
def test_an_empty_list_is_no_detections(write, tree, name):
    ground_truth = None if name == "bare" else read_ground_truth(write("gt.json", tree))
    table = read_results(write("dt.json", []), ground_truth)
    assert len(table) == 0
    assert table.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{oops", "dt.json: line 1, column 2: is not JSON"),
        ("\x80", "dt.json: line 1, column 1: is not JSON"),
        ({"images": []}, "a list of detections was expected, found COCO annotations"),
        (3, "a list of detections was expected, found no list"),
        ([GOOD, 3], r"detection 1 \(counted from 0\): is not an object"),
        ([GOOD, {"image_id": 1}], r"detection 1 \(counted from 0\): has no 'bbox'"),
        ([{key: GOOD[key] for key in GOOD if key != "score"}], "has no 'score'"),
        (
            [{**GOOD, "score": float("nan")}] * 9,
            "detection 0, 1, 2 and 6 more .*'score' is not finite, found nan",
        ),
        ([{**GOOD, "score": float("inf")}], "'score' is not finite"),
        ([GOOD, {**GOOD, "score": "0.5"}], "detection 1 .*'score' is not a number, found '0.5'"),
        ([GOOD, {**GOOD, "score": None}], "detection 1 .*'score' is not a number, found None"),
        ([{**GOOD, "image_id": "a.jpg"}], "'image_id' is not a whole number, found 'a.jpg'"),
        ([{**GOOD, "image_id": 1.5}], "'image_id' is not a whole number, found 1.5"),
        ([{**GOOD, "image_id": 1e300}], "'image_id' is not a whole number"),
        ([{**GOOD, "category_id": None}], "'category_id' is not a whole number, found None"),
        ([{**GOOD, "bbox": [1, 2, 3]}], "'bbox' is not four numbers"),
        ([GOOD, {**GOOD, "bbox": [1, 2, 3]}], "detection 1 .*'bbox' is not four numbers"),
        ([GOOD, {**GOOD, "bbox": ["1", 2, 3, 4]}], "detection 1 .*'bbox' is not four numbers"),
        ([{**GOOD, "bbox": [1, 2, float("nan"), 4]}], "'bbox' is not finite"),
        ([{**GOOD, "bbox": [1, 2, -3, 4]}], "'bbox' has a negative width or height"),
        ([{"image_id": 1, "category_id": 1, "segmentation": {}, "score": 1}], "holds masks and no 'bbox'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_file_place_and_remedy(write, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_results(write("dt.json", content))
    assert "dt.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"dt\.json: cannot be read: No such file"):
        read_results(tmp_path / "dt.json")


def test_ids_are_checked_against_the_ground_truth(write, tree):
    ground_truth = read_ground_truth(write("gt.json", tree))
    images = [GOOD, *({**GOOD, "image_id": id_} for id_ in (1, 2, 3, 4, 5))]
    with pytest.raises(DataError, match=r"dt\.json: image id 1, 2, 3 and 2 more: not in the annotations"):
        read_results(write("dt.json", images), ground_truth)
    with pytest.raises(DataError, match=r"dt\.json: category id 99: not in the annotations"):
        read_results(write("dt.json", [{**GOOD, "category_id": 99}]), ground_truth)


def test_detections_of_classes_left_out_are_left_out(write, tree):
    ground_truth = read_ground_truth(write("gt.json", tree), ["cat"])
    table = read_results(write("dt.json", [GOOD, {**GOOD, "category_id": 0}]), ground_truth)
    assert table.category_ids.tolist() == [0]
    with pytest.raises(DataError, match="category id 99"):
        read_results(write("dt.json", [{**GOOD, "category_id": 99}]), ground_truth)


def test_columns_must_agree():
    with pytest.raises(ValueError, match="2 image ids"):
        DetectionTable(np.zeros(2, np.int64), np.zeros((1, 4)), np.zeros(1), np.zeros(1, np.int64))


@pytest.mark.parametrize("count", [0, 1, 9_999, 10_000, 20_001])
def test_written_float32_tables_read_back_exactly(tmp_path, count):
    rng = np.random.default_rng(count)
    corners = rng.uniform(0.01, 500, (count, 2)).astype(np.float32)
    table = DetectionTable(
        image_ids=rng.integers(0, 2**40, count),
        boxes=np.concatenate([corners, corners + rng.uniform(0, 300, (count, 2)).astype(np.float32)], axis=1),
        scores=(rng.random(count, dtype=np.float32) ** 8),
        category_ids=rng.integers(0, 90, count),
    )
    write_results(tmp_path / "dt.json", table)
    again = read_results(tmp_path / "dt.json")
    for name in ("image_ids", "boxes", "scores", "category_ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert len(json.loads((tmp_path / "dt.json").read_text())) == count


def test_written_rows_are_plain_coco(tmp_path, make_table):
    write_results(tmp_path / "dt.json", make_table([(1, 2, [10, 20, 40.5, 60], 0.25)]))
    assert json.loads((tmp_path / "dt.json").read_text()) == [
        {"image_id": 1, "category_id": 2, "bbox": [10, 20, 30.5, 40], "score": 0.25}
    ]


@pytest.mark.parametrize("place", ["boxes", "scores"])
def test_numbers_that_are_not_finite_are_not_written(tmp_path, make_table, place):
    table = make_table([(1, 2, [10, 20, 40, 60], 0.25), (1, 2, [10, 20, 40, 60], 0.25)])
    getattr(table, place)[1] = np.nan
    with pytest.raises(
        DataError, match=re.escape("detection 1 (counted from 0): box or score is not finite")
    ):
        write_results(tmp_path / "dt.json", table)
    assert not (tmp_path / "dt.json").exists()
