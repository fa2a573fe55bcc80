"""The confusion matrix, by hand and against a slow count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.evaluation.confusion import confusion_matrix
from detkit.evaluation.detection_errors import classify_detections
from tests.evaluation.test_detection_errors import random_case

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def matrix(ground_truth, table, score=0.5) -> list[list[int]]:
    classified = classify_detections(ground_truth, table)
    return confusion_matrix(ground_truth, table, classified, score=score).counts.tolist()


@pytest.mark.parametrize(
    ("detections", "expected"),
    [
        ([(1, 1, BOX, 0.9)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
        ([(1, 2, BOX, 0.9)], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]),
        ([], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
        ([(1, 1, BOX, 0.4)], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
        ([(1, 2, FAR, 0.9)], [[0, 0, 1], [0, 0, 0], [0, 1, 0]]),
        # The object is found, so that the other class is one more detection of nothing.
        ([(1, 1, BOX, 0.8), (1, 2, BOX, 0.9)], [[1, 0, 0], [0, 0, 0], [0, 1, 0]]),
        # Mistaken once, however many say so.
        ([(1, 2, BOX, 0.8), (1, 2, BOX, 0.9)], [[0, 1, 0], [0, 0, 0], [0, 1, 0]]),
    ],
)
def test_by_hand(make_ground_truth, make_table, detections, expected):
    truth = make_ground_truth([(1, 1, BOX)], classes=("face", "hand"))
    assert matrix(truth, make_table(detections)) == expected


def test_the_surest_says_what_an_object_is_taken_for(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX)], classes=("face", "hand", "foot"))
    counts = matrix(truth, make_table([(1, 3, BOX, 0.8), (1, 2, BOX, 0.9)]))
    assert counts[0] == [0, 1, 0, 0]
    assert counts[3] == [0, 0, 1, 0]


def test_crowds_and_what_lies_on_them_are_left_out(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX, True)])
    assert matrix(truth, make_table([(1, 1, BOX, 0.9)])) == [[0, 0], [0, 0]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), eighths=st.integers(0, 8))
def test_every_object_and_detection_once(seed, eighths):
    truth, table = random_case(seed)
    counts = np.array(matrix(truth, table, eighths / 8))
    surer = table.select(table.scores >= eighths / 8)
    # What is said does not depend on what is less sure.
    assert counts.tolist() == matrix(truth, surer, 0)
    assert counts[:-1].sum(axis=1).tolist() == truth.objects_per_class()
    kinds = classify_detections(truth, surer).kinds
    for label, category_id in enumerate(truth.category_ids):
        mine = surer.category_ids == category_id
        assert counts[:, label].sum() == (mine & (kinds != 1)).sum()
        assert counts[label, label] == (mine & (kinds == 0)).sum()
