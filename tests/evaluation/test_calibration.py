"""Reliability of scores, and alarms on images without objects."""

import numpy as np
import pytest

from detkit.evaluation.calibration import calibration
from detkit.evaluation.detection_errors import classify_detections

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def calibrated(ground_truth, table, **settings):
    return calibration(table, classify_detections(ground_truth, table), **settings)


def test_bins_by_hand(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX)])
    table = make_table([(1, 1, BOX, 1.0), (2, 1, BOX, 0.75), (1, 1, FAR, 0.75), (2, 1, FAR, 0.0)])
    found = calibrated(truth, table, bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.counts.tolist() == [1, 0, 0, 3]  # an edge belongs to the bin above, 1 to the last
    np.testing.assert_allclose(found.scores, [0, np.nan, np.nan, 2.5 / 3])
    np.testing.assert_allclose(found.precisions, [0, np.nan, np.nan, 2 / 3])
    assert found.error == pytest.approx((2.5 / 3 - 2 / 3) * 3 / 4)


def test_scores_that_are_chances_have_no_error(make_ground_truth, make_table):
    rng = np.random.default_rng(0)
    scores = rng.random(4000)
    right = rng.random(4000) < scores
    truth = make_ground_truth([(image, 1, BOX) for image in range(1, 4001)], images=4000)
    table = make_table([(i + 1, 1, BOX if right[i] else FAR, scores[i]) for i in range(4000)])
    assert calibrated(truth, table).error < 0.03
    assert calibrated(truth, table.select(~right)).error == pytest.approx(scores[~right].mean(), abs=1e-6)


def test_what_lies_on_a_crowd_is_left_out(make_ground_truth, make_table):
    found = calibrated(make_ground_truth([(1, 1, BOX, True)]), make_table([(1, 1, BOX, 0.9)]))
    assert found.counts.sum() == 0
    assert found.error is None
