"""What mining makes of a person's marks."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detkit.errors import DataError
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.evaluation.review_marks import ReviewMark, ReviewMarks
from detkit.mining.negative_set import NegativeSet
from detkit.mining.review import at_marked, ignored_regions
from detkit.mining.round import MiningRound, mine
from detkit.mining.settings import MiningSettings

TOLD = MiningSettings(least_side=8, largest=(64, 64), threshold=0.1)


def marks(*told):
    return ReviewMarks(
        marks=[
            ReviewMark(file_name=name, box=box, category="cat", score=0.9, mark=mark)
            for name, box, mark in told
        ]
    )


@pytest.fixture
def make_round(make_pool, make_source, tmp_path):
    def make(detections, *, state="unverified", **others):
        others = {"number": 1, "root": tmp_path / "negatives", "negatives": NegativeSet.empty()} | others
        return MiningRound(source=make_source(make_pool(4, state=state), detections), settings=TOLD, **others)

    return make


def test_the_place_of_a_mark_is_found_again():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 21], [50, 50, 60, 60]], dtype=float)
    assert at_marked(boxes, np.array([[0, 0, 10, 10.0]])).tolist() == [True, True, False, False]
    assert at_marked(boxes, np.zeros((0, 4))).tolist() == [False] * 4
    assert at_marked(np.zeros((0, 4)), boxes).tolist() == []


def test_what_is_neither_object_nor_background(make_pool):
    pool = make_pool(4)
    suspects = IgnoreRegions(
        np.array([11, 12, 12]), np.array([[0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 40, 40.0]])
    )
    told = marks(
        ("002.png", [0, 0, 9, 9], "accepted"),
        ("003.png", [1, 1, 5, 5], "rejected"),
        ("elsewhere.png", [1, 1, 5, 5], "rejected"),
    )
    found = ignored_regions(pool, suspects, told)
    assert found.image_ids.tolist() == [11, 12, 13]
    assert found.boxes.tolist() == [[0, 0, 9, 9], [20, 20, 40, 40], [1, 1, 5, 5]]


@pytest.mark.parametrize("state", ["annotated", "verified-empty", "unverified"])
def test_what_was_rejected_is_never_a_negative(make_round, state):
    found = [(0, [5, 5, 25, 25], 0.8), (0, [60, 30, 80, 50], 0.7)]
    result = mine(make_round(found, state=state, marks=marks(("000.png", [6, 5, 26, 25], "rejected"))))
    assert result.negatives.crops.boxes.tolist() == [[60, 30, 80, 50]]
    assert result.summary["detections"] == {"ignored": 1, "background": 1}


def test_a_crop_that_shows_what_was_rejected_later_leaves_the_set(make_round):
    found = [(0, [5, 5, 25, 25], 0.8), (1, [60, 30, 80, 50], 0.7)]
    before = mine(make_round(found)).negatives
    assert len(before.crops) == 2
    told = marks(("000.png", [5, 5, 25, 25], "rejected"))
    after = mine(make_round(found, number=2, negatives=before, marks=told)).negatives
    assert after.crops.boxes.tolist() == [[60, 30, 80, 50]]


def test_a_crop_leaves_in_whatever_words_its_folder_is_told(make_round, tmp_path):
    before = mine(make_round([(0, [5, 5, 25, 25], 0.8)])).negatives
    told = marks(("000.png", [5, 5, 25, 25], "rejected"))
    again = make_round([], number=2, negatives=before, marks=told)
    again = replace(
        again,
        source=replace(
            again.source, pool=replace(again.source.pool, folder=tmp_path / "." / "x" / ".." / "pool")
        ),
    )
    (tmp_path / "x").mkdir()
    assert len(mine(again).negatives.crops) == 0


def test_what_was_accepted_is_a_negative_however_sure_the_detector_is(make_round):
    found = [(0, [5, 5, 25, 25], 0.99), (1, [60, 30, 80, 50], 0.98)]
    told = make_round(found, marks=marks(("000.png", [5, 5, 25, 25], "accepted")))
    result = mine(told)
    assert result.negatives.crops.boxes.tolist() == [[5, 5, 25, 25]]
    assert result.summary["decisions"] == {"kept": 1, "quarantined": 1}
    assert len(json.loads(told.quarantine.read_text())["annotations"]) == 1


def test_a_suspect_that_is_accepted_later_is_mined_then(make_round):
    found = [(0, [5, 5, 25, 25], 0.99)]
    assert len(mine(make_round(found)).negatives.crops) == 0
    assert len(mine(make_round(found, number=2)).negatives.crops) == 0
    told = marks(("000.png", [5, 5, 25, 25], "accepted"))
    assert len(mine(make_round(found, number=3, marks=told)).negatives.crops) == 1


def test_a_scan_goes_on_with_the_same_marks_alone(make_round):
    found = [(0, [5, 5, 25, 25], 0.8)]
    told = marks(("000.png", [5, 5, 25, 25], "rejected"))
    mine(make_round(found, marks=told))
    mine(make_round(found, marks=told))
    with pytest.raises(DataError, match="was begun with marks"):
        mine(make_round(found))
