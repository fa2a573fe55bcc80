"""What a comparison shows, in a few plain sentences; how sure it is comes first."""

from collections.abc import Sequence

from detkit.evaluation.compared_metrics import COMPARED_METRICS, PAIR_METRIC, ComparedMetric
from detkit.evaluation.comparison_results import Arm, Difference, lead, ranking

EQUAL_COMPUTE = 0.02
"""Runs whose compute differs by less than this share of the mean are equal: they stop on whole steps."""


def verdict(arms: Sequence[Arm], differences: Sequence[Difference], *, images: int) -> tuple[str, ...]:
    """The width of the intervals, the leader, which pairs differ, and whether compute was equal."""
    main = COMPARED_METRICS[0]
    sentences = [_compute(arms)]
    if len(arms) > 1:
        sentences = [
            _width(arms, _of(differences, main), main, images),
            _leader(arms, _of(differences, main), main),
            _pairs(arms, _of(differences, main), main, main.words),
            _pairs(
                arms, _of(differences, PAIR_METRIC), PAIR_METRIC, "False positives per image at equal recall"
            ),
            *sentences,
        ]
    return tuple(sentence for sentence in sentences if sentence)


def listed(words: Sequence[str]) -> str:
    """ "a, b and c" """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _of(differences: Sequence[Difference], metric: ComparedMetric) -> list[Difference]:
    return [difference for difference in differences if difference.metric == metric.name]


def _width(arms: Sequence[Arm], differences: list[Difference], metric: ComparedMetric, images: int) -> str:
    seeds = sorted({len(difference.seeds) for difference in differences})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    widths = sorted(
        difference.high - difference.low
        for difference in differences
        if difference.low is not None and difference.high is not None
    )
    if not widths:
        return f"No interval of a difference in {metric.words} is closed: there was too little to measure."
    spread = metric.text(widths[0])
    if metric.text(widths[-1]) != spread:
        spread += f" to {metric.text(widths[-1])}"
    alone = " One seed says nothing about other seeds." if seeds[0] == 1 else ""
    plural = "s" if seeds[-1] > 1 else ""
    return (
        f"How sure this is: with {count} seed{plural} and {images} images, the 95 % intervals of differences in "
        f"{metric.words} are {spread} points wide.{alone}"
    )


def _leader(arms: Sequence[Arm], differences: list[Difference], metric: ComparedMetric) -> str:
    """The arm with the highest mean, whom it beats, and to whom no difference is shown."""
    first = ranking(arms, metric)[0]
    estimate = first.estimates[metric.name]
    if estimate.value is None:
        return ""
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f" ({metric.text(estimate.low)} to {metric.text(estimate.high)})"
    own = [difference for difference in differences if first.name in (difference.first, difference.second)]
    beaten = [lead(one, metric).worse for one in own if one.shown and lead(one, metric).better == first.name]
    others = [one.second if one.first == first.name else one.first for one in own]
    rest = [name for name in others if name not in beaten]
    parts = [
        f"It beats {listed(beaten)}" if beaten else "",
        f"{'no' if beaten else 'No'} difference is shown to {listed(rest)}" if rest else "",
    ]
    return (
        f"{first.name} has the highest {metric.words}, {metric.text(estimate.value)} points{ends}. "
        f"{'; '.join(part for part in parts if part)}."
    )


def _pairs(arms: Sequence[Arm], differences: list[Difference], metric: ComparedMetric, heading: str) -> str:
    """Who is beaten by whom, from the best winner down, and how many pairs are left."""
    places = {arm.name: place for place, arm in enumerate(ranking(arms, COMPARED_METRICS[0]))}
    shown = [lead(difference, metric) for difference in differences if difference.shown]
    shown.sort(key=lambda told: (-places[told.worse], places[told.better]))
    parts = []
    for loser in dict.fromkeys(told.worse for told in shown):
        winners = [told for told in shown if told.worse == loser]
        names = listed([f"{told.better} (by {metric.text(told.value)})" for told in winners])
        verb = "beat" if metric.higher_is_better else "make fewer than"
        if len(winners) == 1:
            verb = verb.replace("beat", "beats").replace("make", "makes")
        parts.append(f"{names} {verb} {loser}")
    left = [difference for difference in differences if not difference.shown]
    doubtful = sum(difference.leaves_out_zero for difference in left)
    chance = (
        f" ({doubtful} of their intervals leave out 0, which may be chance among so many)" if doubtful else ""
    )
    if not parts:
        return f"{heading}: no difference is shown between any two arms{chance}."
    rest = (
        f" No difference is shown in the other {len(left)} of {len(differences)} pairs{chance}."
        if left
        else ""
    )
    return f"{heading}: {'; '.join(parts)}.{rest}"


def _compute(arms: Sequence[Arm]) -> str:
    """Whether all runs spent the same, and what mining took of it."""
    totals = {(arm.name, run.seed): sum(run.compute.values()) for arm in arms for run in arm.runs}
    if not totals or not (mean := sum(totals.values()) / len(totals)):
        return "Compute was not recorded, so equal compute cannot be checked."
    (name, seed), total = max(totals.items(), key=lambda item: abs(item[1] - mean))
    share = total / mean - 1
    if abs(share) < EQUAL_COMPUTE:
        within = f", to within {100 * abs(share):.1f} %" if abs(share) >= 0.0005 else ""
        return f"Every run spent the same compute, mining included{within}."
    return (
        f"Compute was not equal: {name} with seed {seed} spent {100 * abs(share):.0f} % "
        f"{'more' if share > 0 else 'less'} than the mean of all runs."
    )
