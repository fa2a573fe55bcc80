"""What a reader should see first: who leads, by what, and whom a difference is shown to."""

from dataclasses import dataclass

from detkit.evaluation.compared_metrics import (
    COMMON_RECALL,
    COMPARED_METRICS,
    PAIR_METRIC,
    ComparedMetric,
    false_positives_at_name,
)
from detkit.evaluation.comparison_results import Arm, Comparison, lead, ranking

RANKED_BY = COMPARED_METRICS[0]
FALSE_POSITIVES = next(
    metric for metric in COMPARED_METRICS if metric.name == false_positives_at_name(COMMON_RECALL)
)
"""The metrics that are ranked in pictures."""


@dataclass(frozen=True)
class Highlight:
    """The first arm in one metric."""

    heading: str
    arm: str
    value: str
    unit: str
    interval: str
    """ "84.0 to 94.0", with "open" for an open end."""
    standing: str
    """How many of the others a difference is shown to."""


def highlights(comparison: Comparison) -> list[Highlight]:
    """Who leads in AP50 and in false positives; nothing where nothing was measured or nobody else is there."""
    headings = (
        (RANKED_BY, RANKED_BY, f"Highest {RANKED_BY.words}", "points"),
        # Pairs have a metric of their own, which also tells arms apart where one does not reach that recall.
        (
            FALSE_POSITIVES,
            PAIR_METRIC,
            f"Fewest false positives at {100 * COMMON_RECALL:.0f} % recall",
            "per image",
        ),
    )
    found = []
    for metric, of_pairs, heading, unit in headings:
        first = ranking(comparison.arms, metric)[0]
        value = first.estimates[metric.name].value
        if value is None or len(comparison.arms) == 1:
            continue
        standing = _standing(comparison, first, of_pairs)
        found.append(
            Highlight(heading, first.name, metric.text(value), unit, interval(first, metric), standing)
        )
    return found


def interval(arm: Arm, metric: ComparedMetric) -> str:
    """The 95 % interval of an arm's mean in words; empty where there is no value."""
    estimate = arm.estimates[metric.name]
    if estimate.value is None:
        return ""
    if estimate.low is None and estimate.high is None:
        return "open"
    ends = ("open" if end is None else metric.text(end) for end in (estimate.low, estimate.high))
    return " to ".join(ends)


def _standing(comparison: Comparison, first: Arm, metric: ComparedMetric) -> str:
    others = len(comparison.arms) - 1
    shown = [lead(one, metric) for one in comparison.differences if one.metric == metric.name and one.shown]
    beaten = sum(one.better == first.name and one.lower_recall is None for one in shown)
    ahead = [one.better for one in shown if one.worse == first.name]
    if ahead:
        # Pairs are compared on the seeds that both have, means are of all seeds.
        return f"but behind {ahead[0]} on the seeds that both have"
    if not beaten:
        return (
            "no difference shown to the other arm" if others == 1 else "no difference shown to any other arm"
        )
    if beaten < others:
        return f"a difference is shown to {beaten} of the {others} other arms"
    return (
        "a difference is shown to the other arm"
        if others == 1
        else "a difference is shown to every other arm"
    )
