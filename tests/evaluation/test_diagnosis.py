"""The diagnosis: its parts agree with each other and with a plain count."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.evaluation.diagnosis import CURVE_POINTS, PartRow, diagnose
from detkit.evaluation.error_costs import ERRORS
from tests.evaluation.test_detection_errors import classify_slowly, random_case

BOX, FAR, LARGE = (0, 0, 10, 10), (50, 50, 60, 60), (0, 0, 200, 200)


def row(diagnosis, part: str, name: str) -> PartRow:
    return next(one for one in diagnosis.parts if (one.part, one.name) == (part, name))


def errors(one: PartRow) -> dict[str, int]:
    return {error.name: error.count for error in one.errors if error.count}


def test_parts_by_hand(make_ground_truth, make_table):
    truth = make_ground_truth(
        [(1, 1, BOX), (1, 2, LARGE), (2, 3, FAR)], images=3, classes=("cat", "dog", "car")
    )
    table = make_table([(1, 1, BOX, 0.9), (2, 1, FAR, 0.8), (3, 2, BOX, 0.7)])
    diagnosis, classified = diagnose(truth, table, groups={"animal": [1, 2], "vehicle": [3]})
    assert errors(row(diagnosis, "all", "all")) == {"wrong class": 1, "background": 1, "missed": 2}
    assert errors(row(diagnosis, "class", "cat")) == {"wrong class": 1}
    assert errors(row(diagnosis, "group", "animal")) == {"wrong class": 1, "background": 1, "missed": 1}
    assert errors(row(diagnosis, "group", "vehicle")) == {"missed": 1}
    assert errors(row(diagnosis, "size", "small")) == {"wrong class": 1, "background": 1, "missed": 1}
    assert errors(row(diagnosis, "size", "large")) == {"missed": 1}
    assert row(diagnosis, "size", "medium").AP50 is None
    assert pytest.approx(0.5) == row(diagnosis, "group", "animal").AP50
    assert [diagnosis.images, diagnosis.objects, diagnosis.detections] == [3, 3, 3]
    assert len(classified.kinds) == 3
    # The best F1 is at .9: 2 x 1 / (1 + 3), against 2 / (3 + 3) further down.
    assert diagnosis.score == pytest.approx(0.9)
    assert np.array(diagnosis.confusion).sum() == 3
    assert diagnosis.alarms["images"] == 1
    assert [diagnosis.alarms["rates"][level] for level in (0, 69, 71)] == [1, 1, 0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_kinds_add_up_to_all_detections_and_all_missed_objects(seed):
    truth, table = random_case(seed)
    diagnosis, _ = diagnose(truth, table)
    kinds, _ = classify_slowly(truth, table)
    whole = errors(row(diagnosis, "all", "all"))
    for part in ("class", "size"):
        parts = [errors(one) for one in diagnosis.parts if one.part == part]
        assert {name: sum(one.get(name, 0) for one in parts) for name in ERRORS} == {
            name: whole.get(name, 0) for name in ERRORS
        }
    wrong = sum(count for name, count in whole.items() if name != "missed")
    assert wrong + kinds.count("correct") + kinds.count("ignored") == len(table)
    assert whole.get("missed", 0) + kinds.count("correct") == diagnosis.objects
    assert json.loads(json.dumps(diagnosis.record(), allow_nan=False))["format_version"] == 1


def test_a_long_curve_is_thinned_and_keeps_its_ends_and_its_best(make_ground_truth, make_table):
    count = 1500
    truth = make_ground_truth([(image, 1, BOX) for image in range(1, count + 1)], images=count)
    table = make_table([(i, 1, BOX if i < 700 else FAR, 1 - i / 2000) for i in range(1, count + 1)])
    curve = diagnose(truth, table)[0].curve
    assert CURVE_POINTS <= len(curve.scores) <= CURVE_POINTS + 1
    assert curve.scores[0] == pytest.approx(1 - 1 / 2000, abs=1e-6)
    assert curve.scores[-1] == pytest.approx(1 - count / 2000, abs=1e-6)
    assert curve.F1[curve.best] == max(curve.F1)
    assert curve.scores[curve.best] == pytest.approx(1 - 699 / 2000, abs=1e-6)


def test_nothing_at_all(make_ground_truth, make_table):
    diagnosis, _ = diagnose(make_ground_truth([]), make_table([]))
    assert diagnosis.curve is None
    assert row(diagnosis, "all", "all").AP50 is None
    assert diagnosis.calibration["error"] is None
    json.dumps(diagnosis.record(), allow_nan=False)
