"""Which images are shown, what is drawn in them, and that all arms stand at one recall."""

import cv2
import numpy as np
import pytest
from simulated_runs import Eye, simulated_detections, simulated_truth

from detkit.comparison.pictures import DIFFER, DRAWN, at_equal_recall, choose_images, write_pictures
from detkit.evaluation import DetectionTable, GroundTruth, operating_point

TRUTH = simulated_truth(40)
EYES = {"a": Eye(separation=1.6, backgrounds=4), "b": Eye(separation=0.8, backgrounds=20)}
TABLES = {(name, 1): simulated_detections(TRUTH, eye, seed=1) for name, eye in EYES.items()}


def test_every_arm_finds_the_same_share():
    recall, arms = at_equal_recall(TRUTH, TABLES)
    assert recall == 0.8
    assert [(arm.arm, arm.seed) for arm in arms] == [("a", 1), ("b", 1)]
    objects = len(TRUTH)
    for arm, table in zip(arms, TABLES.values(), strict=True):
        point = operating_point(TRUTH, table, score=arm.threshold).overall
        assert 0.8 <= point.recall <= 0.8 + 2 / objects
        assert point.true_positives == arm.matches.correct.sum()
    assert arms[0].threshold != arms[1].threshold


FEW = TABLES["b", 1].select(np.arange(len(TRUTH) // 3))


def test_an_arm_that_does_not_get_so_far_stands_at_its_own_highest_recall():
    table = TABLES["b", 1]
    few = table.select(np.concatenate([np.arange(len(TRUTH) // 3), table.scores.argsort()[:5]]))
    recall, arms = at_equal_recall(TRUTH, {("a", 1): TABLES["a", 1], ("b", 1): few})
    assert recall == 0.8
    assert arms[0].matches.correct.sum() >= 0.8 * len(TRUTH)
    found = operating_point(TRUTH, few, score=0).overall.true_positives
    assert 0 < arms[1].matches.correct.sum() == found < 0.5 * len(TRUTH)
    assert arms[1].matches.correct[arms[1].table.scores.argmin()]  # nothing below its last find
    assert len(arms[1].table) < len(few)


def test_the_highest_recall_that_half_of_the_arms_reach():
    recall, arms = at_equal_recall(TRUTH, {("a", 1): TABLES["a", 1], ("b", 1): FEW, ("c", 1): FEW})
    assert recall == pytest.approx(operating_point(TRUTH, FEW, score=0).overall.recall)
    assert len({arm.matches.correct.sum() for arm in arms}) == 1


def test_an_arm_without_detections_leaves_the_others_alone():
    nothing = TABLES["b", 1].select(np.arange(0))
    recall, arms = at_equal_recall(TRUTH, {("a", 1): TABLES["a", 1], ("b", 1): nothing})
    assert recall == 0.8
    assert [len(arm.table) > 0 for arm in arms] == [True, False]


def test_half_of_the_images_are_those_on_which_arms_differ_most():
    _, arms = at_equal_recall(TRUTH, TABLES)
    chosen = choose_images(TRUTH, arms, count=6, seed=0)
    assert list(chosen.values()) == [DIFFER] * 3 + [DRAWN] * 3
    assert len(chosen) == 6

    def errors(arm, image_id: int) -> int:
        of_image = arm.table.image_ids == image_id
        missed = (TRUTH.object_image_ids == image_id).sum() - arm.matches.correct[of_image].sum()
        return missed + (arm.matches.objects[of_image] < 0).sum()

    spread = {id_: abs(errors(arms[0], id_) - errors(arms[1], id_)) for id_ in TRUTH.image_ids.tolist()}
    highest = sorted(spread.values(), reverse=True)[:3]
    assert [spread[id_] for id_, reason in chosen.items() if reason == DIFFER] == highest
    assert choose_images(TRUTH, arms, count=6, seed=0) == chosen
    assert choose_images(TRUTH, arms, count=6, seed=1) != chosen
    assert len(choose_images(TRUTH, arms, count=100, seed=0)) == 40


def test_arms_that_agree_leave_only_random_images():
    _, arms = at_equal_recall(TRUTH, {("a", 1): TABLES["a", 1], ("b", 1): TABLES["a", 1]})
    assert set(choose_images(TRUTH, arms, count=4, seed=0).values()) == {DRAWN}


def test_a_picture_holds_what_each_arm_sees(tmp_path):
    """Two objects and a crowd; the arm finds one, misses one, fires into the crowd and beside it."""
    boxes = np.array([[10.0, 20, 110, 120], [200, 200, 300, 300], [400, 0, 600, 200]])
    truth = GroundTruth(
        np.array([5, 7]), (2,), ("bird",), np.array([5, 5, 5]), np.full(3, 2), boxes, np.full(3, 1e4),
        np.array([False, False, True]),
    )  # fmt: skip
    found = np.array([[12.0, 20, 110, 120], [410, 10, 450, 50], [500, 500, 560, 560]], dtype=np.float32)
    table = DetectionTable(np.array([5, 5, 5]), found, np.array([0.5, 0.9, 0.7]), np.full(3, 2))
    _, arms = at_equal_recall(truth, {("a", 3): table})
    pixels = np.full((640, 800, 3), (200, 30, 30), np.uint8)
    (picture,) = write_pictures(
        tmp_path, truth, arms, {5: DRAWN}, lambda image_id: (f"{image_id}.jpg", pixels)
    )
    assert (picture.picture, picture.name, picture.width, picture.height) == (
        "pictures/01.jpg",
        "5.jpg",
        800,
        640,
    )
    assert [one.box for one in picture.objects] == [(10, 20, 110, 120), (200, 200, 300, 300)]
    (panel,) = picture.panels
    assert (panel.arm, panel.seed, panel.threshold, panel.missed) == ("a", 3, 0.5, (1,))
    assert [(one.outcome, one.score) for one in panel.detections] == [
        ("ignored", 0.9), ("false", 0.7), ("correct", 0.5)
    ]  # fmt: skip
    small = cv2.imread(str(tmp_path / picture.picture))
    assert small.shape == (384, 480, 3)
    assert np.abs(small.mean(axis=(0, 1)) - (30, 30, 200)).max() < 6  # BGR: the colours are not swapped
