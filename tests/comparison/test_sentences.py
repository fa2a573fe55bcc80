"""What a difference says, in every case."""

from dataclasses import replace

import pytest

from detkit.comparison.sentences import difference_sentence
from detkit.comparison.verdict import listed
from detkit.evaluation.compared_metrics import COMPARED_METRICS, PAIR_METRIC
from detkit.evaluation.comparison_results import Difference

AP50 = COMPARED_METRICS[0]
FOCAL = Difference(
    "focal",
    "cross entropy",
    "AP50",
    (1, 2, 3),
    0.031,
    0.02,
    0.042,
    p=0.001,
    p_holm=0.015,
    shown=True,
    sentence="",
)
FEWER = replace(FOCAL, metric=PAIR_METRIC.name, value=-0.31, low=-0.52, high=-0.1, recall=0.8)


@pytest.mark.parametrize(
    ("difference", "metric", "sentence"),
    [
        (FOCAL, AP50, "Interval 2.2 points wide: focal beats cross entropy by 3.1 points of AP50, 2.0 to 4.2."),
        (
            replace(FOCAL, value=-0.031, low=-0.042, high=-0.02),
            AP50,
            "Interval 2.2 points wide: cross entropy beats focal by 3.1 points of AP50, 2.0 to 4.2.",
        ),
        (
            replace(FOCAL, value=0.002, low=-0.012, high=0.015, shown=False, p_holm=0.9),
            AP50,
            "Interval 2.7 points wide: no difference shown between focal and cross entropy in AP50 (interval -1.2 to "
            "1.5 points).",
        ),
        (
            replace(FOCAL, shown=False, p_holm=0.12),
            AP50,
            "Interval 2.2 points wide: focal beats cross entropy by 3.1 points of AP50, 2.0 to 4.2, but among 15 pairs "
            "that may be chance (Holm p 0.12): no difference shown.",
        ),
        (
            FEWER,
            PAIR_METRIC,
            "Interval 0.42 per image wide: focal makes 0.31 fewer false positives per image at recall 0.8 than cross "
            "entropy, 0.10 to 0.52.",
        ),
        (
            replace(FEWER, low=None),
            PAIR_METRIC,
            "Interval open: focal makes 0.31 fewer false positives per image at recall 0.8 than cross entropy, 0.10 or "
            "more.",
        ),
        (
            replace(FEWER, low=None, high=None, shown=False),
            PAIR_METRIC,
            "Interval open: no difference shown between focal and cross entropy in false positives per image at recall "
            "0.8 (interval open on both sides).",
        ),
        (
            replace(FEWER, low=None, high=0.2, shown=False),
            PAIR_METRIC,
            "Interval open: no difference shown between focal and cross entropy in false positives per image at recall "
            "0.8 (interval up to 0.20, with no lower end).",
        ),
        (
            replace(FEWER, value=None, low=None, high=None, shown=False, recall=None),
            PAIR_METRIC,
            "focal and cross entropy cannot be compared in false positives per image: there is nothing to measure, or "
            "a run never reaches it.",
        ),
    ],
)  # fmt: skip
def test_sentences(difference, metric, sentence):
    assert difference_sentence(difference, metric, 15) == sentence


def test_lists():
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
