"""Alarms on images without objects."""

import pytest

from detkit.evaluation.alarms import alarms

BOX = (0, 0, 10, 10)


def test_images_without_objects_alone_count(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX, True)], images=6)
    table = make_table(
        [(1, 1, BOX, 0.9), (2, 1, BOX, 0.9), (3, 1, BOX, 0.5), (3, 1, BOX, 0.25), (4, 1, BOX, 0.75)]
    )
    found = alarms(truth, table)
    assert (found.images, found.scores.tolist()) == (4, [0.5, 0.75])
    assert [found.rate(score) for score in (0.0, 0.5, 0.6, 0.75, 0.8)] == [0.5, 0.5, 0.25, 0.25, 0]


@pytest.mark.parametrize(("rate", "score"), [(1.0, 0.0), (0.5, 0.0), (0.25, 0.75), (0.3, 0.75), (0.1, None)])
def test_the_score_at_a_rate(make_ground_truth, make_table, rate, score):
    truth = make_ground_truth([], images=4)
    assert alarms(truth, make_table([(3, 1, BOX, 0.5), (4, 1, BOX, 0.75)])).score_at(rate) == score


def test_without_such_images_there_is_no_rate(make_ground_truth, make_table):
    found = alarms(make_ground_truth([(1, 1, BOX)], images=1), make_table([(1, 1, BOX, 0.9)]))
    assert (found.rate(0.5), found.score_at(0.5)) == (None, None)
