"""Suspected missing labels: counted by hand."""

import numpy as np
import pytest

from detkit.evaluation.detection_errors import classify_detections
from detkit.evaluation.missing_labels import high_score, sure_backgrounds, suspected_missing_labels

BOX, FAR, OTHER, THIRD = (0, 0, 10, 10), (50, 50, 60, 60), (80, 80, 90, 90), (20, 20, 30, 30)
NEAR_FAR = (50, 50, 60, 58)
"""IoU .8 with FAR."""
BESIDE_FAR = (56, 50, 66, 60)
"""IoU .25 with FAR."""


@pytest.fixture
def truth(make_ground_truth):
    return make_ground_truth([(1, 1, BOX), (2, 1, BOX), (3, 2, BOX)], images=4, classes=("cat", "dog"))


@pytest.fixture
def found(truth, make_table):
    """Call with detections beside the three correct ones, whose scores are .5, .7 and .9; table and kinds."""

    def make(extra: list[tuple]):
        table = make_table([(1, 1, BOX, 0.5), (2, 1, BOX, 0.7), (3, 2, BOX, 0.9), *extra])
        return table, classify_detections(truth, table)

    return make


def test_nine_in_ten_correct_detections_say_what_a_high_score_is(found):
    table, kinds = found([(1, 1, FAR, 0.55), (2, 1, FAR, 0.53), (4, 2, FAR, 0.95)])
    assert high_score(table, kinds) == pytest.approx(
        0.54
    )  # a tenth of the way from .5 to .9, of three values
    suspects = suspected_missing_labels(table, kinds)
    assert suspects.rows.tolist() == [5, 3]
    assert suspects.score == pytest.approx(0.54)
    assert suspects.persistence.tolist() == [0, 0]
    assert suspects.witnesses == ()
    assert suspected_missing_labels(table, kinds, score=0.53).rows.tolist() == [5, 3, 4]


def test_errors_of_other_kinds_are_no_suspects(found):
    duplicate, wrong_class, loose = (1, 1, BOX, 0.4), (1, 2, BOX, 0.99), (2, 1, (0, 0, 10, 25), 0.99)
    table, kinds = found([duplicate, wrong_class, loose])
    assert suspected_missing_labels(table, kinds).rows.tolist() == []


def test_a_box_without_area_is_no_place_to_mark(found):
    table, kinds = found([(4, 1, (50, 50, 50, 60), 0.9), (4, 1, (50, 50, 60, 50), 0.9), (4, 1, FAR, 0.8)])
    assert suspected_missing_labels(table, kinds).rows.tolist() == [5]


def test_those_that_persist_come_first_and_then_the_score_decides(found, make_table):
    table, kinds = found([(1, 1, FAR, 0.99), (1, 1, OTHER, 0.8), (4, 1, FAR, 0.9), (4, 2, THIRD, 0.75)])
    last = make_table([(1, 1, OTHER, 0.6), (4, 1, NEAR_FAR, 0.6), (4, 1, THIRD, 0.9)])
    mined = make_table([(1, 1, OTHER, 0.3), (1, 1, BESIDE_FAR, 0.9), (2, 1, FAR, 0.9)])
    suspects = suspected_missing_labels(table, kinds, [("last.pt", last), ("round 1", mined)])
    # Row 4 is in both, 5 in last.pt. Row 3 is beside what round 1 saw, and row 6 of another class than last.pt's.
    assert suspects.rows.tolist() == [4, 5, 3, 6]
    assert suspects.persistence.tolist() == [2, 1, 0, 0]
    assert suspects.seen.tolist() == [[True, True], [True, False], [False, False], [False, False]]
    assert suspects.witnesses == ("last.pt", "round 1")


def test_each_place_is_asked_about_once(found):
    table, kinds = found(
        [(4, 1, NEAR_FAR, 0.8), (4, 1, FAR, 0.9), (4, 2, FAR, 0.85), (4, 1, BESIDE_FAR, 0.75)]
    )
    # The surest of the two cats in one place, the dog there, and the cat beside it.
    assert sure_backgrounds(table, kinds).tolist() == [4, 5, 6]


def test_a_place_beside_one_that_was_left_out_stays(found):
    step = [(0, 0), (4, 0), (8, 0)]
    chain = [(4, 1, (50 + x, 50, 62 + x, 60), 0.9 - x / 100) for x, _ in step]
    table, kinds = found(chain)
    # The second overlaps the first by .5 and gives way; the third overlaps the second alone.
    assert sure_backgrounds(table, kinds).tolist() == [3, 5]


def test_without_anything_correct_nothing_is_known_to_be_a_high_score(truth, make_table):
    table = make_table([(4, 1, FAR, 0.99)])
    kinds = classify_detections(truth, table)
    suspects = suspected_missing_labels(table, kinds, [("last.pt", table)])
    assert len(suspects.rows) == 0
    assert suspects.score is None
    assert suspects.seen.shape == (0, 1)
    assert suspected_missing_labels(table, kinds, score=0.5).rows.tolist() == [0]


def test_no_detection_at_all(truth, make_table):
    table = make_table([])
    assert len(suspected_missing_labels(table, classify_detections(truth, table), score=0.5).rows) == 0
    assert np.array_equal(sure_backgrounds(table, classify_detections(truth, table)), [])
