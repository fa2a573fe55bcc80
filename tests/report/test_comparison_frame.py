"""One wild arm does not squeeze the others into a spot: what the charts show of it, and what they say."""

import re

import pytest
from html_page import Page
from matplotlib.markers import CARETLEFT, CARETRIGHT

from detkit.evaluation.compared_metrics import PAIR_METRIC
from detkit.evaluation.comparison_results import Arm, Curves, Difference, Estimate, Run, lead
from detkit.report.comparison import write_report
from detkit.report.comparison_frame import difference_frame, ranking_frame
from detkit.report.comparison_highlights import FALSE_POSITIVES, RANKED_BY
from detkit.report.comparison_plots import difference_chart, ranking_chart

ALIKE = ((0.93, 0.90, 0.96), (0.92, 0.89, 0.955), (0.90, 0.86, 0.94))
LAZY = (0.57, 0.004, 1.0)
DEAD = (0.0, 0.0, 0.0)
FEW, LAZY_FEW = ((0.08, 0.02, 0.15), (0.1, 0.03, 0.17), (0.14, 0.07, 0.22)), (2.3, 0.0, 6.3)


def _arms(*estimates, metric=RANKED_BY, seeds=()) -> list[Arm]:
    """Arms of these values, low and high ends; ``seeds`` are those of the last."""
    arms = []
    for index, estimate in enumerate(estimates):
        of_arm = seeds if index == len(estimates) - 1 else estimate[:1]
        runs = [
            Run(seed, {metric.name: one}, {}, 1.0, (), Curves((), (), None))
            for seed, one in enumerate(of_arm)
        ]
        arms.append(Arm(f"arm {index}", "", tuple(runs), {metric.name: Estimate(*estimate)}))
    return arms


def _pairs(*differences, metric=RANKED_BY) -> list[Difference]:
    """Pairs of these differences, low and high ends."""
    return [
        Difference(f"arm {index}", "other", metric.name, (1,), *ends, None, None, False, "")
        for index, ends in enumerate(differences)
    ]


def _ranking(*estimates, metric=RANKED_BY, seeds=()):
    return ranking_chart(list(enumerate(_arms(*estimates, metric=metric, seeds=seeds))), metric).axes[0]


def _differences(*differences, metric=RANKED_BY):
    pairs = _pairs(*differences, metric=metric)
    return difference_chart(pairs, metric, {"other": 99} | {one.first: 1 for one in pairs}).axes[0]


def _lines(axes, place: float, marker: object = "None") -> list[list[float]]:
    """Where the chart has lines of that marker in the row at that place."""
    return [
        list(line.get_xdata())
        for line in axes.lines
        if line.get_marker() == marker and set(line.get_ydata()) == {place}
    ]


def _heads(axes, place: float) -> tuple[int, int]:
    """Arrow heads to the left and to the right."""
    return len(_lines(axes, place, CARETLEFT)), len(_lines(axes, place, CARETRIGHT))


def test_a_wild_arm_does_not_set_the_axis():
    axes = _ranking(*ALIKE, LAZY)
    left, right = axes.get_xlim()
    assert (left, right) == pytest.approx((86 - 0.4, 96 + 0.4))
    assert [_heads(axes, place) for place in range(4)] == [(0, 0)] * 3 + [(2, 1)]
    ((low, high),) = _lines(axes, 3)
    assert left < low < left + 0.3 < right - 0.3 < high < right
    assert _lines(axes, 0) == [pytest.approx([90, 96])]


def test_its_point_is_shown_where_it_has_a_place():
    axes = _ranking(*ALIKE, (0.9, 0.3, 1.0))
    assert _heads(axes, 3) == (1, 1)
    assert _lines(axes, 3, "D") == [[pytest.approx(90)]]
    assert _lines(_ranking(*ALIKE, LAZY), 3, "D") == []


def test_seeds_beyond_the_frame_are_small_arrow_heads():
    axes = _ranking(*ALIKE, LAZY, seeds=(0.39, 0.42, 0.89))
    assert _heads(axes, 3.22) == (1, 0)
    assert _lines(axes, 3.22, "o") == [[pytest.approx(89)]]


def test_false_positives_are_cut_alike_and_begin_at_0():
    axes = _ranking(*FEW, LAZY_FEW, metric=FALSE_POSITIVES)
    assert axes.get_xlim() == pytest.approx((0, 0.22 + 0.04 * 0.2))
    assert _heads(axes, 3) == (0, 2)
    assert _lines(axes, 3)[0][0] == 0


@pytest.mark.parametrize("metric", [RANKED_BY, PAIR_METRIC])
def test_of_three_arms_the_pair_without_the_wild_one_sets_the_axis(metric):
    turn = 1 if metric.higher_is_better else -1
    ends = ((0.35, -0.37, 0.92), (0.33, -0.35, 0.90), (0.01, -0.01, 0.03))
    axes = _differences(*([turn * one for one in row[:1] + row[1:][::turn]] for row in ends), metric=metric)
    unit = 100 if metric.higher_is_better else 1
    left, right = axes.get_xlim()
    assert (left, right) == pytest.approx((-0.0116 * unit, 0.0316 * unit))
    assert [_heads(axes, place) for place in range(3)] == [(1, 2), (1, 2), (0, 0)]
    assert _lines(axes, 2)[0] == pytest.approx([-0.01 * unit, 0.03 * unit])


@pytest.mark.parametrize(
    ("estimates", "ends"),
    [
        (ALIKE, (86, 96)),
        ((*ALIKE, (0.90, 0.78, 0.97)), (78, 97)),  # less sure, but the others are seen
        ((*ALIKE, (0.02, 0.01, 0.03)), (1, 96)),  # far from the others, and sure of it
        ((*ALIKE, DEAD), (0, 96)),
        ((DEAD, LAZY), (0, 100)),
        ((*ALIKE[:1], LAZY), (0.4, 100)),  # of one arm there is nothing to compare
        ((*ALIKE, DEAD, LAZY), (0, 100)),  # without the lazy arm the picture would be as wide
        ((DEAD, DEAD, LAZY), (0, 100)),
    ],
)
def test_other_rows_are_shown_whole(estimates, ends):
    axes = _ranking(*estimates)
    margin = 0.04 * (ends[1] - ends[0])
    assert axes.get_xlim() == pytest.approx((ends[0] - margin, ends[1] + margin))
    assert [_heads(axes, place) for place in range(len(estimates))] == [(0, 0)] * len(estimates)


def test_behind_the_widest_row_there_may_be_another():
    frame = ranking_frame(_arms(*ALIKE, (0.7, 0.4, 1.0), (0.5, 0.0, 1.0), (0.5, -4.0, 5.0)), RANKED_BY)
    assert (frame.left, frame.right) == pytest.approx((86 - 0.4, 96 + 0.4))


def test_an_open_end_is_wider_than_any_interval():
    axes = _ranking(*FEW, (2.3, 0.1, None), metric=FALSE_POSITIVES)
    assert axes.get_xlim()[1] < 0.25
    assert _heads(axes, 3) == (0, 2)
    alone = _ranking((2.3, 0.1, None), (1.2, None, None), metric=FALSE_POSITIVES)
    assert alone.get_xlim() == pytest.approx((0, 2.3 + 0.04 * 2.2))
    assert [_heads(alone, place) for place in range(2)] == [(0, 1), (1, 1)]


def test_a_row_alone_has_an_axis():
    for arms in (_arms((0.9, 0.9, 0.9)), _arms(DEAD)):
        frame = ranking_frame(arms, RANKED_BY)
        assert frame.left < 100 * arms[0].estimates["AP50"].value < frame.right
    frame = difference_frame([lead(one, RANKED_BY) for one in _pairs((0.0, 0.0, 0.0))], RANKED_BY)
    assert frame.left < 0 < frame.right


def _alike(tree) -> None:
    """All arms score about the same, and are as sure."""
    for place, arm in enumerate(tree["arms"]):
        for name in ("AP50", "fppi_at_recall_0.8"):
            value = 0.5 + 0.01 * place
            arm["estimates"][name].update(value=value, low=value - 0.03, high=value + 0.03)
            for run in arm["runs"]:
                run["metrics"][name] = value
    for place, one in enumerate(tree["differences"]):
        one.update(value=0.01 * place, low=0.01 * place - 0.03, high=0.01 * place + 0.03)


def _one_wild(tree) -> None:
    """The others are alike; the first arm is lazy with one of its seeds."""
    _alike(tree)
    arm = tree["arms"][0]
    arm["estimates"]["AP50"].update(value=0.2, low=0.0, high=0.9)
    arm["runs"][0]["metrics"]["AP50"] = 0.01
    arm["estimates"]["fppi_at_recall_0.8"].update(value=4.0, low=0.0, high=9.0)
    for one in tree["differences"]:
        if arm["name"] in (one["first"], one["second"]):
            one.update(value=2.0, low=-9.0, high=9.0)


def _figures(page: str) -> dict[str, tuple[str, str]]:
    """Of the charts of intervals the description and the caption."""
    found = {}
    for key in ("ranking", "ranking-fppi", "differences", "differences-fppi"):
        description = re.search(f'<desc id="{key}-description">(.*?)</desc>', page)
        caption = re.search("<figcaption>(.*?)</figcaption>", page[description.end() :])
        found[key] = (description.group(1), caption.group(1))
    return found


def test_captions_and_descriptions_tell_what_is_cut(edited):
    text = write_report(edited(_one_wild)).read_text()
    assert Page(text).open == []
    figures = _figures(text)
    description, caption = figures["ranking"]
    assert "Intervals that go on beyond the chart: focal (0.0 to 90.0). The table" in description
    assert caption.endswith(
        "mean of the classes. An arrow: the interval goes on beyond the chart; a double arrow: the mean lies there "
        "too; a small one: a seed lies there. The numbers beside the names tell how far."
    )
    assert "beyond the chart: focal (0.00 to 9.00)." in figures["ranking-fppi"][0]
    assert "a small one" not in figures["ranking-fppi"][1]
    for key in ("differences", "differences-fppi"):
        description, caption = figures[key]
        assert "The intervals of 3 of 6 pairs go on beyond the chart. The sentences below" in description
        assert "a double arrow: the difference lies there too. The sentences below tell how far." in caption


def test_nothing_is_said_of_arrows_where_there_are_none(edited):
    for description, caption in _figures(write_report(edited(_alike)).read_text()).values():
        assert "beyond" not in description
        assert "arrow" not in caption
