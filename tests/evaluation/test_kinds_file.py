"""The table of kinds, read back."""

import csv

from detkit.evaluation.detection_errors import classify_detections
from detkit.evaluation.kinds_file import write_kinds


def test_every_detection_and_every_missed_object_has_a_line(make_ground_truth, make_table, tmp_path):
    truth = make_ground_truth(
        [(1, 1, [10, 10, 30, 30]), (1, 2, [50, 50, 80, 80]), (2, 1, [0, 0, 9, 9])], classes=('c,"at', "dog")
    )
    table = make_table(
        [
            (1, 1, [10, 10, 30, 30], 0.9),
            (1, 1, [50, 50, 80, 79], 0.8),
            (2, 2, [60.128, 60, 90, 90], 0.7),
        ]
    )
    path = tmp_path / "errors.csv"
    write_kinds(path, truth, table, classify_detections(truth, table))
    rows = list(csv.DictReader(path.open(newline="")))
    told = [(row["category"], row["kind"], row["nearest_category"], row["nearest_iou"]) for row in rows]
    assert told == [
        ('c,"at', "correct", 'c,"at', "1.000"),
        ('c,"at', "wrong class", "dog", "0.967"),
        ("dog", "background", "", "0.000"),
        ("dog", "missed", "dog", "0.967"),
        ('c,"at', "missed", 'c,"at', "0.000"),
    ]
    assert [row["score"] for row in rows] == ["0.9000", "0.8000", "0.7000", "", ""]
    assert (rows[2]["image_id"], rows[2]["x1"], rows[3]["y2"]) == ("2", "60.13", "80.0")


def test_a_name_that_is_no_unicode_is_written_all_the_same(make_ground_truth, make_table, tmp_path):
    truth = make_ground_truth([(1, 1, [10, 10, 30, 30])], classes=("\ud800cat",))
    table = make_table([(1, 1, [10, 10, 30, 30], 0.9)])
    write_kinds(tmp_path / "errors.csv", truth, table, classify_detections(truth, table))
    (row,) = csv.DictReader((tmp_path / "errors.csv").open(encoding="utf-8", newline=""))
    assert (row["category"], row["kind"]) == ("?cat", "correct")
