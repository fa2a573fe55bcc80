"""From runs to differences and sentences, on simulated detections."""

from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import Eye, simulated_detections, simulated_truth

from detkit.comparison import FinishedArm, FinishedRun, summarise
from detkit.errors import DataError
from detkit.evaluation import DetectionTable, GroundTruth, evaluate_boxes
from detkit.evaluation.compared_metrics import COMPARED_METRICS, FPPI_AT_COMMON_RECALL
from detkit.evaluation.comparison_results import Comparison, Difference, MissingRun
from detkit.evaluation.detection_curve import detection_curve
from detkit.evaluation.joining import join_ground_truths, join_tables

TRUTH = simulated_truth(40)
GOOD, BAD = Eye(separation=1.6, backgrounds=4), Eye(separation=0.5, backgrounds=20)


def arm(name: str, eye: Eye, seeds: tuple[int, ...] = (1, 2, 3), **compute: float) -> FinishedArm:
    compute = compute or {"training": 1e9}
    runs = [FinishedRun(seed, simulated_detections(TRUTH, eye, seed=seed), compute, 60) for seed in seeds]
    return FinishedArm(name, "config", runs)


def compared(*arms: FinishedArm, truth: GroundTruth = TRUTH, **options) -> Comparison:
    return summarise(truth, arms, title="test", **{"resamples": 200, **options})


def difference(comparison: Comparison, metric: str, first: str = "a", second: str = "b") -> Difference:
    (found,) = [
        one
        for one in comparison.differences
        if (one.metric, one.first, one.second) == (metric, first, second)
    ]
    return found


def test_an_arm_under_two_names_shows_no_difference():
    comparison = compared(arm("a", GOOD), arm("b", GOOD))
    assert len(comparison.differences) == len(COMPARED_METRICS) + 1
    for one in comparison.differences:
        assert (one.value, one.low, one.high, one.p, one.p_holm, one.shown) == (0, 0, 0, 1, 1, False)
    assert difference(comparison, "AP50").sentence == (
        "Interval 0.0 points wide: no difference shown between a and b in AP50 (interval 0.0 to 0.0 points)."
    )
    assert "No difference is shown to b" in comparison.verdict[1]


def test_a_better_arm_is_found_from_either_side():
    forward, backward = compared(arm("a", GOOD), arm("b", BAD)), compared(arm("b", BAD), arm("a", GOOD))
    one, other = difference(forward, "AP50"), difference(backward, "AP50", "b", "a")
    assert one.shown
    assert 0 < one.low < one.value < one.high
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert other.sentence == one.sentence
    width = f"{100 * (one.high - one.low):.1f}"
    assert one.sentence == (
        f"Interval {width} points wide: a beats b by {100 * one.value:.1f} points of AP50, "
        f"{100 * one.low:.1f} to {100 * one.high:.1f}."
    )
    assert "a (by " in forward.verdict[2]


def test_fewer_false_positives_are_better():
    one = difference(compared(arm("a", GOOD), arm("b", BAD)), FPPI_AT_COMMON_RECALL)
    assert one.high < 0
    assert one.shown
    assert one.recall == 0.8
    assert f"a makes {-one.value:.2f} fewer false positives per image at recall 0.8 than b" in one.sentence


def test_values_are_those_of_each_run_alone():
    comparison = compared(arm("a", GOOD), arm("b", BAD))
    for summary, eye in zip(comparison.arms, (GOOD, BAD), strict=True):
        for run in summary.runs:
            table = simulated_detections(TRUTH, eye, seed=run.seed)
            coco, curve = evaluate_boxes(TRUTH, table).overall, detection_curve(TRUTH, table)
            for name in ("AP", "AP50", "AP75", "AR100"):
                assert run.metrics[name] == pytest.approx(coco[name], abs=1e-9)
            assert run.metrics["recall_at_fppi_0.1"] == curve.recall_at(0.1)
            assert run.metrics["fppi_at_recall_0.8"] == curve.false_positives_at(0.8)
            assert run.curves.highest_recall == curve.highest_recall
            assert run.curves.precision[50] == pytest.approx(curve.precision_at(0.5), abs=1e-5)
            assert run.curves.recall[20] == pytest.approx(curve.recall_at(0.1), abs=1e-5)
        mean = np.mean([run.metrics["AP50"] for run in summary.runs])
        assert summary.estimates["AP50"].value == pytest.approx(mean)
    first, second = (summary.estimates["AP50"].value for summary in comparison.arms)
    assert difference(comparison, "AP50").value == pytest.approx(first - second)


def test_the_same_seed_gives_the_same_numbers():
    arms = arm("a", GOOD), arm("b", Eye(separation=1.3))
    assert compared(*arms, seed=4) == compared(*arms, seed=4)
    assert compared(*arms, seed=4).differences != compared(*arms, seed=5).differences


def test_a_pair_is_compared_on_the_seeds_that_both_have():
    comparison = compared(arm("a", GOOD, (1, 2, 3, 4, 5)), arm("b", BAD, (5, 2, 9)))
    one = difference(comparison, "AP50")
    assert one.seeds == (2, 5)
    of_seed = [{run.seed: run.metrics["AP50"] for run in summary.runs} for summary in comparison.arms]
    assert one.value == pytest.approx(np.mean([of_seed[0][seed] - of_seed[1][seed] for seed in (2, 5)]))


def test_one_seed_says_that_seeds_were_not_resampled():
    comparison = compared(arm("a", GOOD, (1,)), arm("b", BAD, (1,)))
    for one in comparison.differences:
        if one.value is not None:
            assert one.sentence.endswith("seeds were not resampled, so this speaks of these two runs alone.")
    assert "One seed says nothing about other seeds" in comparison.verdict[0]
    assert "not resampled" not in difference(compared(arm("a", GOOD), arm("b", BAD)), "AP50").sentence


def test_the_verdict_begins_with_how_wide_the_intervals_are():
    comparison = compared(arm("a", GOOD), arm("b", BAD), arm("c", Eye(separation=1.5)))
    widths = [one.high - one.low for one in comparison.differences if one.metric == "AP50"]
    assert comparison.verdict[0] == (
        "How sure this is: with 3 seeds and 40 images, the 95 % intervals of differences in AP50 are "
        f"{100 * min(widths):.1f} to {100 * max(widths):.1f} points wide."
    )
    assert comparison.verdict[1].startswith("a has the highest AP50, ")
    assert comparison.verdict[-1] == "Every run spent the same compute, mining included."


def test_unequal_compute_is_said():
    comparison = compared(arm("a", GOOD, training=8e8, mining=2e8), arm("b", BAD, training=1.5e9))
    assert comparison.verdict[-1] == (
        "Compute was not equal: a with seed 1 spent 20 % less than the mean of all runs."
    )


def test_a_recall_that_an_arm_never_reaches():
    """Its false positives there are not compared; at the highest recall that both reach, they are."""
    blind = replace(GOOD, recall=0.6)
    comparison = compared(arm("a", GOOD), arm("b", blind))
    one = difference(comparison, "fppi_at_recall_0.8")
    assert (one.value, one.low, one.high, one.p, one.p_holm, one.shown) == (None,) * 5 + (False,)
    assert "cannot be compared in false positives per image at recall 0.8" in one.sentence
    assert comparison.arms[1].estimates["fppi_at_recall_0.8"].value is None
    common = difference(comparison, FPPI_AT_COMMON_RECALL)
    highest = min(run.curves.highest_recall for summary in comparison.arms for run in summary.runs)
    assert common.recall == pytest.approx(highest)
    assert 0.4 < common.recall < 0.8
    assert None not in (common.value, common.low, common.high)


def test_nothing_to_measure_is_none_and_says_so():
    empty = GroundTruth(
        TRUTH.image_ids, TRUTH.category_ids, TRUTH.class_names, np.zeros(0, int), np.zeros(0, int),
        np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool),
    )  # fmt: skip
    comparison = compared(arm("a", GOOD), arm("b", BAD), truth=empty, resamples=20)
    assert all(one.value is None and not one.shown for one in comparison.differences)
    assert comparison.verdict[0].startswith("No interval of a difference in AP50 is closed")


def test_holm_counts_the_pairs_of_one_metric():
    comparison = compared(arm("a", GOOD), arm("b", BAD), arm("c", Eye(separation=1.5)))
    family = [one for one in comparison.differences if one.metric == "AP50"]
    assert len(family) == 3
    smallest = min(family, key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(min(1, 3 * smallest.p))


def test_progress_is_told_to_the_end():
    calls = []
    compared(
        arm("a", GOOD), arm("b", BAD), progress=lambda done, total: calls.append((done, total)), resamples=5
    )
    assert calls == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([arm("a", GOOD, (1,)), arm("a", BAD, (1,))], "'a' is there more than once"),
        ([arm("a", GOOD, ())], "has no finished run"),
        ([arm("a", GOOD, (1, 1))], r"seeds \[1, 1\] repeat"),
    ],
)
def test_arms_that_cannot_be_compared(arms, message):
    with pytest.raises(DataError, match=message):
        compared(*arms, resamples=5)


def test_detections_of_other_images_are_refused():
    table = DetectionTable(np.array([999]), np.array([[0.0, 0, 9, 9]]), np.array([0.5]), np.array([1]))
    with pytest.raises(DataError, match="image id 999"):
        compared(FinishedArm("a", "", [FinishedRun(1, table, {}, 0)]), resamples=5)


def test_intervals_stay_within_what_a_metric_can_be():
    """Two seeds that differ much make Student's limits reach far out."""
    shaky = replace(GOOD, seed_spread=1.5)
    comparison = compared(arm("a", shaky, (1, 2)), arm("b", replace(shaky, backgrounds=12), (1, 2)))
    reached = set()
    for summary in comparison.arms:
        for metric in COMPARED_METRICS:
            estimate = summary.estimates[metric.name]
            assert estimate.low is None or estimate.low >= 0
            assert not metric.higher_is_better or estimate.high <= 1
            reached |= {estimate.low, estimate.high}
    assert {0, 1} <= reached
    assert all(-1 <= one.low <= one.high <= 1 for one in comparison.differences if one.metric[0] in "Ar")


def test_one_arm_alone_has_no_differences():
    comparison = compared(arm("a", GOOD), resamples=5)
    assert comparison.differences == ()
    assert comparison.verdict == ("Every run spent the same compute, mining included.",)


def test_arms_without_a_common_seed_are_told_as_such_and_the_others_compared():
    comparison = compared(arm("a", GOOD, (1, 2)), arm("b", BAD, (3,)), arm("c", BAD, (1, 2, 3)))
    assert len(comparison.differences) == 3 * (len(COMPARED_METRICS) + 1)
    apart = difference(comparison, "AP50")
    assert (apart.seeds, apart.value, apart.shown) == ((), None, False)
    assert apart.sentence == "a and b cannot be compared: they have no finished seed in common."
    assert difference(comparison, "AP50", "a", "c").seeds == (1, 2)
    assert "with 1 to 2 seeds and 40 images" in comparison.verdict[0]
    alone = compared(arm("a", GOOD, (1,)), arm("b", BAD, (2,)))
    assert alone.verdict[0] == "No two arms have a finished seed in common, so that none can be compared."


def test_what_is_missing_comes_first():
    missing = [MissingRun("a", 2), MissingRun("a", 3), MissingRun("never", 1)]
    comparison = compared(arm("a", GOOD, (1,)), arm("b", BAD, (1, 2, 3)), missing=missing)
    assert comparison.verdict[0] == (
        "Runs that are not finished, or failed, are not in these numbers: a (seeds 2, 3) and never (seed 1)."
    )
    assert comparison.missing == tuple(missing)


def test_an_arm_that_leads_by_seeds_of_its_own_is_told_to_be_behind_where_both_have_them():
    """The two seeds that only it has are lucky, and means are of all."""
    ordinary, better, lucky = (Eye(separation=one, backgrounds=9) for one in (0.8, 1.2, 3.0))
    leader = FinishedArm("a", "config", [*arm("a", ordinary).runs, *arm("a", lucky, (4, 5, 6, 7, 8, 9)).runs])
    comparison = compared(leader, arm("b", better))
    assert comparison.arms[0].estimates["AP50"].value > comparison.arms[1].estimates["AP50"].value
    assert difference(comparison, "AP50").shown
    assert comparison.verdict[1].endswith("On the seeds that both have, b beats it.")


def test_groups_of_images_that_are_alike_make_intervals_wider():
    """Every image five times over is no more evidence than once, if they are told to be of one group."""
    copies = 5
    count = len(TRUTH.image_ids)
    truth = join_ground_truths([TRUTH] * copies)
    single = arm("a", GOOD, (1,)), arm("b", BAD, (1,))

    def copied(run):
        return replace(run, detections=join_tables([TRUTH] * copies, [run.detections] * copies))

    arms = [FinishedArm(one.name, one.config, [copied(run) for run in one.runs]) for one in single]
    groups = np.tile(np.arange(count), copies)

    def width(comparison):
        found = difference(comparison, "AP50")
        return found.high - found.low

    once = width(compared(*single))
    grouped = compared(*arms, truth=truth, groups=groups)
    assert width(grouped) == pytest.approx(once, rel=0.02)
    assert width(compared(*arms, truth=truth)) < 0.7 * once
    assert grouped.resampling.groups == count
    assert f"{copies * count} images in {count} groups" in grouped.verdict[0]
