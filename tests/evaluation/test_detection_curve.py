"""Recall and false positives at every threshold: by hand, and against counting at each threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.evaluation import DetectionTable, GroundTruth, operating_point
from detkit.evaluation.detection_curve import detection_curve, last_of_equals

BOX = [10, 10, 110, 110]
FAR = [300, 300, 400, 400]
AWAY = [500, 500, 600, 600]


@pytest.fixture
def curve(make_ground_truth, make_table):
    """Four objects in four images; in order of score right, wrong, right, wrong, wrong, right; one missed."""
    ground_truth = make_ground_truth([(image, 1, BOX) for image in (1, 2, 3, 4)], images=4)
    detections = [
        (1, 1, BOX, 0.9), (1, 1, FAR, 0.8), (2, 1, BOX, 0.7), (2, 1, FAR, 0.6), (3, 1, FAR, 0.5), (3, 1, BOX, 0.4)
    ]  # fmt: skip
    return detection_curve(ground_truth, make_table(detections))


def test_counts_at_each_threshold(curve):
    np.testing.assert_allclose(curve.scores, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], atol=1e-7)
    assert curve.true_positives.tolist() == [1, 1, 2, 2, 2, 3]
    assert curve.false_positives.tolist() == [0, 1, 1, 2, 3, 3]
    assert curve.recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5, 0.75]
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2, 2 / 5, 1 / 2])
    assert curve.false_positives_per_image.tolist() == [0, 0.25, 0.25, 0.5, 0.75, 0.75]


@pytest.mark.parametrize(
    ("level", "recall"), [(0, 0.25), (0.24, 0.25), (0.25, 0.5), (0.5, 0.5), (0.75, 0.75), (9, 0.75)]
)
def test_recall_at_false_positives_per_image(curve, level, recall):
    assert curve.recall_at(level) == recall


@pytest.mark.parametrize(
    ("recall", "false_positives", "score", "precision"),
    [
        (0.1, 0, 0.9, 1),
        (0.25, 0, 0.9, 1),
        (0.26, 0.25, 0.7, 2 / 3),
        (0.5, 0.25, 0.7, 2 / 3),
        (0.75, 0.75, 0.4, 1 / 2),
    ],
)
def test_false_positives_at_recall(curve, recall, false_positives, score, precision):
    assert curve.false_positives_at(recall) == false_positives
    assert curve.score_at(recall) == pytest.approx(score)
    assert curve.precision_at(recall) == pytest.approx(precision)


def test_the_best_f1(curve, make_ground_truth, make_table):
    # 2 TP / (detections + 4 objects)
    np.testing.assert_allclose(curve.f1, [2 / 5, 2 / 6, 4 / 7, 4 / 8, 4 / 9, 6 / 10])
    assert curve.scores[curve.best] == pytest.approx(0.4)
    wrong = detection_curve(make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, FAR, 0.9)]))
    assert wrong.best is None
    assert detection_curve(make_ground_truth([]), make_table([])).best is None


def test_a_recall_that_is_never_reached_has_no_value(curve):
    assert curve.highest_recall == 0.75
    assert curve.false_positives_at(0.76) is None
    assert curve.score_at(0.76) is None
    assert curve.precision_at(0.76) is None


def test_without_objects_there_is_nothing_to_measure(make_ground_truth, make_table):
    curve = detection_curve(make_ground_truth([]), make_table([(1, 1, BOX, 0.5)]))
    assert curve.highest_recall is None
    assert curve.recall_at(1) is None
    assert curve.false_positives_at(0) is None


def test_without_detections_nothing_is_found(make_ground_truth, make_table):
    curve = detection_curve(make_ground_truth([(1, 1, BOX)]), make_table([]))
    assert (curve.highest_recall, curve.recall_at(1), curve.false_positives_at(0.5)) == (0, 0, None)
    assert curve.false_positives_at(0) == 0


def test_a_first_detection_that_is_wrong_leaves_no_recall_without_false_positives(
    make_ground_truth, make_table
):
    curve = detection_curve(
        make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, FAR, 0.9), (1, 1, BOX, 0.8)])
    )
    assert curve.recall_at(0) == 0
    assert curve.recall_at(0.5) == 1


def test_a_threshold_takes_all_detections_of_a_score(make_ground_truth, make_table):
    """One image has the right detection first and one the wrong: the order of rows must not decide."""
    detections = [(1, 1, BOX, 0.5), (1, 1, FAR, 0.5), (2, 1, FAR, 0.5), (2, 1, BOX, 0.5)]
    ground_truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX)])
    for order in (detections, detections[::-1]):
        curve = detection_curve(ground_truth, make_table(order))
        assert (curve.true_positives.tolist(), curve.false_positives.tolist()) == ([2], [2])
        assert curve.recall_at(0.5) == 0


def test_detections_on_crowds_count_neither_way(make_ground_truth, make_table):
    ground_truth = make_ground_truth([(1, 1, BOX), (1, 1, FAR, True)])
    inside = [310, 310, 330, 330]
    curve = detection_curve(
        ground_truth, make_table([(1, 1, inside, 0.9), (1, 1, BOX, 0.8), (1, 1, AWAY, 0.7)])
    )
    np.testing.assert_allclose(curve.scores, [0.8, 0.7], atol=1e-7)
    assert curve.false_positives.tolist() == [0, 1]
    assert curve.objects == 1


def test_a_tenth_of_thirty_images_allows_three_false_positives(make_ground_truth, make_table):
    detections = [(image, 1, FAR, 0.9) for image in (1, 2, 3)] + [(4, 1, BOX, 0.8), (5, 1, FAR, 0.7)]
    curve = detection_curve(make_ground_truth([(4, 1, BOX)], images=30), make_table(detections))
    assert curve.recall_at(0.1) == 1


def test_last_of_equals():
    assert last_of_equals(np.array([3, 3, 2, 1, 1])).tolist() == [1, 2, 4]
    assert last_of_equals(np.zeros(0)).tolist() == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_same_as_counting_at_each_score(seed):
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 3, (30, 2)) * 40.0
    boxes = np.concatenate([boxes, boxes + 50], axis=1)
    ground_truth = GroundTruth(
        image_ids=np.arange(3),
        category_ids=(4, 2),
        class_names=("a", "b"),
        object_image_ids=rng.integers(0, 3, 10),
        object_category_ids=rng.choice([2, 4], 10),
        boxes=boxes[:10],
        areas=np.full(10, 2500.0),
        crowd=rng.random(10) < 0.2,
    )
    table = DetectionTable(
        rng.integers(0, 3, 20), boxes[10:], rng.integers(1, 6, 20) / 5, rng.choice([2, 4], 20)
    )
    curve = detection_curve(ground_truth, table)
    for score, found, wrong in zip(curve.scores, curve.true_positives, curve.false_positives, strict=True):
        counts = operating_point(ground_truth, table, score=score).overall
        assert (found, wrong) == (counts.true_positives, counts.false_positives)
        assert curve.objects == counts.true_positives + counts.false_negatives
