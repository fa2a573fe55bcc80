"""Symptoms of detections, counted by hand."""

import pytest

from detkit.evaluation.symptoms import symptoms

CLASSES = ("cat", "dog", "emu")
BOX, OTHER = [10, 10, 30, 30], [50, 50, 80, 80]


def test_counted_by_hand(make_ground_truth, make_table):
    truth = make_ground_truth(
        [
            (1, 1, BOX),  # called a dog twice and, less surely, a cat
            (1, 2, OTHER),  # overlapped too little
            (2, 1, BOX),  # a cat
            (2, 1, OTHER),  # called a dog
            (3, 3, BOX),  # nothing is found there
            (4, 2, BOX, True),  # a crowd is no object
        ],
        images=5,
        classes=CLASSES,
    )
    table = make_table(
        [
            (1, 2, BOX, 0.9),
            (1, 2, BOX, 0.8),
            (1, 1, BOX, 0.7),
            (1, 2, [60, 60, 100, 100], 0.9),
            (2, 1, BOX, 0.3),
            (2, 2, OTHER, 0.9),
            (5, 1, BOX, 0.9),
        ]
    )
    found = symptoms(truth, table)
    assert found.objects == 5
    assert found.silent_images == pytest.approx(1 / 3)
    assert found.never_predicted == ("emu",)
    assert found.localised == pytest.approx(3 / 5)
    assert found.named_right == pytest.approx(1 / 3)
    assert found.taken_for == {"cat": "dog"}


def test_shifted_labels_are_seen_as_such(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX), (1, 2, OTHER), (2, 3, BOX)], classes=CLASSES)
    table = make_table([(1, 2, BOX, 0.9), (1, 3, OTHER, 0.9), (2, 1, BOX, 0.9)])
    found = symptoms(truth, table)
    assert (found.localised, found.named_right) == (1.0, 0.0)
    assert found.taken_for == {"cat": "dog", "dog": "emu", "emu": "cat"}


def test_half_is_not_most(make_ground_truth, make_table):
    truth = make_ground_truth([(1, 1, BOX), (1, 1, OTHER)], classes=CLASSES)
    assert symptoms(truth, make_table([(1, 1, BOX, 0.9), (1, 2, OTHER, 0.9)])).taken_for == {}


def test_nothing_to_count(make_ground_truth, make_table):
    nothing = symptoms(make_ground_truth([]), make_table([(1, 1, BOX, 0.9)])).record()
    assert nothing == {
        "objects": 0,
        "silent_images": None,
        "never_predicted": [],
        "localised": None,
        "named_right": None,
        "taken_for": {},
    }
    silent = symptoms(make_ground_truth([(1, 1, BOX)]), make_table([]))
    assert (silent.silent_images, silent.localised, silent.named_right) == (1.0, 0.0, None)
    assert silent.never_predicted == ("face",)
