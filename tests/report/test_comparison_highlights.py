"""Who leads, and what is said of the others."""

from dataclasses import replace

import pytest

from detkit.evaluation.comparison_results import read_comparison
from detkit.report.comparison_highlights import highlights


@pytest.fixture(scope="module")
def comparison(comparison_folder):
    found = read_comparison(comparison_folder / "results.json")
    return replace(found, differences=tuple(replace(one, shown=False) for one in found.differences))


def _shown(comparison, metric: str, *pairs: set[str]):
    """The comparison with the differences of these pairs shown in the metric."""
    return replace(
        comparison,
        differences=tuple(
            replace(one, shown=one.metric == metric and {one.first, one.second} in pairs)
            for one in comparison.differences
        ),
    )


def test_the_first_arm_of_each_metric(comparison):
    found = highlights(comparison)
    assert [one.heading for one in found] == ["Highest AP50", "Fewest false positives at 80 % recall"]
    by_name = {arm.name: arm.estimates for arm in comparison.arms}
    assert by_name[found[0].arm]["AP50"].value == max(one["AP50"].value for one in by_name.values())
    key = "fppi_at_recall_0.8"
    assert by_name[found[1].arm][key].value == min(one[key].value for one in by_name.values())
    assert [one.unit for one in found] == ["points", "per image"]


@pytest.mark.parametrize(("metric", "place"), [("AP50", 0), ("fppi_at_common_recall", 1)])
def test_how_many_a_difference_is_shown_to(comparison, metric, place):
    first = highlights(comparison)[place].arm
    others = [arm.name for arm in comparison.arms if arm.name != first]
    told = [
        highlights(_shown(comparison, metric, *({first, other} for other in others[:count])))[place].standing
        for count in (0, 1, 3)
    ]
    assert told == [
        "no difference shown to any other arm",
        "a difference is shown to 1 of the 3 other arms",
        "a difference is shown to every other arm",
    ]
    among_others = _shown(comparison, metric, set(others[:2]))
    assert highlights(among_others)[place].standing == told[0]


def test_one_arm_leads_nobody(comparison):
    assert highlights(replace(comparison, arms=comparison.arms[:1])) == []


def test_an_arm_that_is_beaten_on_common_seeds_is_told_so(comparison):
    first = highlights(comparison)[0].arm
    other = next(arm.name for arm in comparison.arms if arm.name != first)
    lost = _shown(comparison, "AP50", {first, other})
    turned = tuple(
        replace(one, value=-one.value, low=None, high=None) if one.shown else one for one in lost.differences
    )
    standing = highlights(replace(lost, differences=turned))[0].standing
    assert standing == f"but behind {other} on the seeds that both have"


def test_fewer_false_positives_at_the_little_that_another_arm_finds_are_not_counted(comparison):
    first = highlights(comparison)[1].arm
    other = next(arm.name for arm in comparison.arms if arm.name != first)
    shown = _shown(comparison, "fppi_at_common_recall", {first, other})
    low = tuple(replace(one, recall=0.3) if one.shown else one for one in shown.differences)
    assert highlights(shown)[1].standing == "a difference is shown to 1 of the 3 other arms"
    assert highlights(replace(shown, differences=low))[1].standing == "no difference shown to any other arm"
