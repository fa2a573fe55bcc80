"""The false positives of one image: what is decided, and in which order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.evaluation import DetectionTable
from detkit.mining.candidates import FalsePositives, find_candidates, holds
from detkit.mining.decision import Decision
from detkit.mining.settings import MiningSettings

TOLD = MiningSettings(context=1.5, least_side=4, largest=(100, 100), per_image=3)
NO_BOXES = np.zeros((0, 4))


def decide(boxes, scores, told=TOLD, *, quarantine=False, obstacles=NO_BOXES, known=NO_BOXES, zoom=1):
    """Decisions in the order that the boxes are given, and the candidates, hardest first."""
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    count = len(boxes)
    found = FalsePositives(
        image=7,
        table=DetectionTable(
            np.full(count, 10), boxes, np.array(scores, dtype=np.float64), np.ones(count, dtype=np.int64)
        ),
        nearest_ious=np.zeros(count),
        obstacles=np.array(obstacles, dtype=np.float64).reshape(-1, 4),
        known=np.array(known, dtype=np.float64).reshape(-1, 4),
        size=(100, 300),
        input_size=(100 * zoom, 300 * zoom),
    )
    candidates = find_candidates(found, told, quarantine=quarantine)
    decision = {candidate.box: candidate.decision for candidate in candidates}
    return [decision[tuple(box)] for box in boxes.tolist()], candidates


def test_hardest_first():
    _, candidates = decide([[0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]], [0.3, 0.9, 0.5])
    assert [candidate.score for candidate in candidates] == [0.9, 0.5, 0.3]
    assert [candidate.window for candidate in candidates] == [
        (97, 0, 112, 15),
        (197, 0, 212, 15),
        (0, 0, 15, 15),
    ]
    assert {candidate.image for candidate in candidates} == {7}


def test_of_those_that_overlap_the_hardest_stays():
    # IoU of the second with the first .6, of the third with the first .25, with the second .54.
    boxes = [[0, 0, 40, 40], [10, 0, 50, 40], [24, 0, 64, 40]]
    told = MiningSettings(context=1, least_side=4, largest=(100, 100))
    assert decide(boxes, [0.9, 0.8, 0.7], told)[0] == [Decision.PENDING, Decision.DUPLICATE, Decision.PENDING]
    assert decide(boxes, [0.7, 0.8, 0.9], told)[0] == [Decision.PENDING, Decision.DUPLICATE, Decision.PENDING]


def test_inside_the_crop_of_a_harder_one():
    decisions, candidates = decide([[40, 40, 80, 80], [32, 50, 39, 57]], [0.9, 0.8])
    assert decisions == [Decision.PENDING, Decision.DUPLICATE]
    assert "crop" in candidates[1].reason


def test_the_limit_of_an_image_counts_crops_alone():
    boxes = [[x, 0, x + 10, 10] for x in range(0, 300, 30)]
    decisions, _ = decide(boxes, np.linspace(0.9, 0.1, 10), obstacles=[boxes[0], boxes[2]])
    touches, over = Decision.TOUCHES_OBJECT, Decision.OVER_IMAGE_LIMIT
    assert decisions == [touches, Decision.PENDING, touches, Decision.PENDING, Decision.PENDING] + [over] * 5


def test_known_from_an_earlier_round():
    decisions, _ = decide([[0, 0, 10, 10], [100, 0, 110, 10]], [0.9, 0.8], known=[[95, 0, 120, 20]])
    assert decisions == [Decision.PENDING, Decision.KNOWN]


def test_quarantine_keeps_other_crops_out():
    boxes, scores = [[100, 0, 140, 40], [90, 30, 138, 44], [200, 0, 210, 10]], [0.95, 0.6, 0.5]
    assert decide(boxes, scores)[0] == [Decision.PENDING, Decision.DUPLICATE, Decision.PENDING]
    decisions, candidates = decide(boxes, scores, quarantine=True)
    assert decisions == [Decision.QUARANTINED, Decision.TOUCHES_OBJECT, Decision.PENDING]
    assert candidates[0].window is None


def test_crops_are_at_the_scale_of_the_detector():
    _, candidates = decide([[100, 0, 110, 10]], [0.9], zoom=2, obstacles=[[112, 0, 130, 50]])
    assert candidates[0].window == (194, 0, 224, 30)
    assert candidates[0].box == (100, 0, 110, 10)


def test_nothing_found():
    assert decide([], []) == ([], [])


def test_ten_thousand_in_one_image():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [290, 90], (10_000, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 10, (10_000, 2))], axis=1)
    decisions, candidates = decide(boxes, rng.random(10_000), MiningSettings(per_image=5, largest=(50, 50)))
    assert len(candidates) == 10_000
    assert decisions.count(Decision.PENDING) == 5
    assert decisions.count(Decision.DUPLICATE) > 5000
    assert Decision.OVER_IMAGE_LIMIT in decisions


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0, 1))
def test_easier_ones_change_nothing_for_harder_ones(seed, threshold):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 25))
    corners = rng.uniform(0, [280, 80], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 40, (count, 2))], axis=1)
    scores, obstacles = rng.random(count), [[50, 0, 80, 60]]
    told = MiningSettings(per_image=4, least_side=4, largest=(60, 60))
    _, everything = decide(boxes, scores, told, obstacles=obstacles, quarantine=True)
    _, hard = decide(
        boxes[scores >= threshold], scores[scores >= threshold], told, obstacles=obstacles, quarantine=True
    )
    assert hard == [candidate for candidate in everything if candidate.score >= threshold]


@pytest.mark.parametrize(
    ("box", "held"),
    [([0, 0, 10, 10], True), ([0, 0, 10, 11], True), ([0, 0, 10, 12], False), ([5, 5, 5, 9], False)],
)
def test_holds(box, held):
    windows = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], dtype=float)
    assert holds(windows, np.array([box], dtype=float))[:, 0].tolist() == [held, False]
