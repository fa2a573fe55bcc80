"""What each kind of error costs, against pycocotools, a slow count, and cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.evaluation import DetectionTable, GroundTruth, evaluate_boxes
from detkit.evaluation.detection_errors import classify_detections
from detkit.evaluation.error_costs import ERRORS, ErrorCosts, error_costs
from detkit.evaluation.results import surest
from tests.evaluation.test_detection_errors import classify_slowly, random_case

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)
SHIFTED = (5, 0, 15, 10)
"""IoU 1/3 with BOX."""


def costs_of(ground_truth: GroundTruth, table: DetectionTable, **limits) -> ErrorCosts:
    return error_costs(ground_truth, table, classify_detections(ground_truth, table), **limits)


@pytest.mark.parametrize(
    ("detections", "error", "precisions"),
    [
        # A surer false positive halves the precision at every recall.
        ([(1, 1, FAR, 0.9), (1, 1, BOX, 0.8)], "background", (0.5, 1.0)),
        ([(1, 1, SHIFTED, 0.9)], "bad localisation", (0.0, 1.0)),
        ([(1, 2, BOX, 0.9)], "wrong class", (0.0, 1.0)),
        ([], "missed", (0.0, 1.0)),
        # Behind all objects a false positive costs nothing.
        ([(1, 1, BOX, 0.9), (1, 1, BOX, 0.8)], "duplicate", (1.0, 1.0)),
        # Its place is mended, but a surer one finds the object: it only goes.
        ([(1, 1, BOX, 0.9), (1, 1, SHIFTED, 0.95)], "bad localisation", (0.5, 1.0)),
    ],
)
def test_one_error(make_ground_truth, make_table, detections, error, precisions):
    as_is, without = precisions
    costs = costs_of(make_ground_truth([(1, 1, BOX)], classes=("face", "hand")), make_table(detections))
    assert costs.as_is[0] == pytest.approx(as_is)
    assert np.isnan(costs.as_is[1])
    assert costs.without[error][0] == pytest.approx(without)
    assert costs.cost(error) == pytest.approx(without - as_is)
    others = set(ERRORS) - {error}
    assert all(costs.without[other][0] == pytest.approx(as_is) for other in others)
    assert costs.without_any[0] == pytest.approx(1)


def test_a_mended_detection_finds_one_object_alone(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX), (2, 1, BOX)])
    costs = costs_of(truth, make_table([(1, 1, SHIFTED, 0.9), (1, 1, SHIFTED, 0.8), (2, 1, BOX, 0.7)]))
    assert costs.as_is[0] == pytest.approx(51 * (1 / 3) / 101)  # recalls up to .5, at a precision of 1/3
    assert costs.without["bad localisation"][0] == pytest.approx(1)


def test_an_object_that_a_mended_detection_would_find_is_not_missed(make_ground_truth, make_table):
    costs = costs_of(make_ground_truth([(1, 1, BOX)]), make_table([(1, 1, SHIFTED, 0.9)]))
    assert costs.counts["missed"].tolist() == [1]
    assert costs.cost("missed") == 0


def test_means_are_over_the_classes_that_have_objects(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX), (1, 2, FAR)], classes=("face", "hand", "foot"))
    costs = costs_of(truth, make_table([(1, 1, BOX, 0.9)]))
    assert [costs.mean(), costs.mean([1]), costs.mean([2])] == pytest.approx([0.5, 1, 0])
    assert costs.mean([3]) is None
    assert [costs.cost("missed"), costs.cost("missed", [1])] == pytest.approx([0.5, 0])
    assert costs.cost("missed", [3]) is None


def test_sizes_are_those_of_the_objects_that_errors_are_about(make_ground_truth, make_table):
    large = (0, 20, 40, 60)
    truth = make_ground_truth([(1, 1, BOX), (1, 1, large)])
    table = make_table([(1, 1, SHIFTED, 0.9), (1, 1, large, 0.8), (2, 1, BOX, 0.7)])
    small, rest = (costs_of(truth, table, areas=areas) for areas in ((0, 32**2), (32**2, np.inf)))
    assert [small.counts[error].tolist() for error in ("bad localisation", "background", "missed")] == [
        [1]
    ] * 3
    assert [small.mean(), rest.mean()] == pytest.approx([0, 1])
    assert not any(counts.any() for counts in rest.counts.values())


def test_the_surest_of_each_image_and_class(make_table):
    scores = [0.1, 0.9, 0.5, 0.5, 0.2]
    table = make_table([(1, 1, BOX, score) for score in scores] + [(2, 1, BOX, 0.3), (1, 2, BOX, 0.3)])
    kept = surest(table, 2)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5, 0.3, 0.3])
    assert surest(table, 5) is table
    assert len(surest(make_table([]))) == 0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_cases(seed):
    truth, table = random_case(seed)
    classified = classify_detections(truth, table)
    costs = error_costs(truth, table, classified)
    has_objects = np.array(truth.objects_per_class()) > 0
    assert np.isfinite(costs.as_is).tolist() == has_objects.tolist()
    np.testing.assert_allclose(costs.without_any[has_objects], 1, atol=1e-12)
    for precisions in costs.without.values():
        assert (precisions[has_objects] >= costs.as_is[has_objects] - 1e-12).all()
    kinds, _ = classify_slowly(truth, table)
    wrong = [kind for kind in kinds if kind not in ("correct", "ignored")]
    assert sum(int(costs.counts[error].sum()) for error in ERRORS[:-1]) == len(wrong)
    assert all(int(costs.counts[error].sum()) == wrong.count(error) for error in ERRORS[:-1])
    assert int(costs.counts["missed"].sum()) == int((~truth.crowd).sum()) - kinds.count("correct")


@pytest.mark.parametrize("seed", range(12))
def test_as_it_is_the_precision_is_pycocotools(seed):
    truth, table = random_case(seed)
    truth = without_crowds(
        truth
    )  # on a crowd of another class pycocotools has a detection wrong, ours is ignored
    costs = costs_of(truth, table)
    expected = [metrics.AP50 for metrics in evaluate_boxes(truth, table).per_class]
    found = [None if np.isnan(value) else value for value in costs.as_is]
    assert found == [None if value is None else pytest.approx(value, abs=1e-9) for value in expected]


def without_crowds(truth: GroundTruth) -> GroundTruth:
    kept = ~truth.crowd
    return GroundTruth(
        truth.image_ids,
        truth.category_ids,
        truth.class_names,
        truth.object_image_ids[kept],
        truth.object_category_ids[kept],
        truth.boxes[kept],
        truth.areas[kept],
        truth.crowd[kept],
    )
