"""What a comparison shows, in a few plain sentences; how sure it is comes first."""

from collections.abc import Sequence

from detkit.evaluation.compared_metrics import COMPARED_METRICS, PAIR_METRIC, ComparedMetric
from detkit.evaluation.comparison_results import (
    EQUAL_COMPUTE,
    Arm,
    Difference,
    Lead,
    MissingRun,
    lead,
    off_mean_compute,
    ranking,
)


def verdict(
    arms: Sequence[Arm],
    differences: Sequence[Difference],
    *,
    images: int,
    groups: int | None = None,
    missing: Sequence[MissingRun] = (),
) -> tuple[str, ...]:
    """What is missing, the width of the intervals, the leader, which pairs differ, and whether compute was equal."""
    main = COMPARED_METRICS[0]
    sentences = [_compute(arms)]
    if len(arms) > 1:
        seen = f"{images} images" if groups is None else f"{images} images in {groups} groups"
        sentences = [
            _width(_of(differences, main), main, seen),
            _leader(arms, _of(differences, main), main),
            _pairs(arms, _of(differences, main), main, main.words),
            _pairs(
                arms, _of(differences, PAIR_METRIC), PAIR_METRIC, "False positives per image at equal recall"
            ),
            *sentences,
        ]
    return tuple(sentence for sentence in (_missing(missing), *sentences) if sentence)


def listed(words: Sequence[str]) -> str:
    """ "a, b and c" """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


def _of(differences: Sequence[Difference], metric: ComparedMetric) -> list[Difference]:
    return [difference for difference in differences if difference.metric == metric.name]


def _missing(missing: Sequence[MissingRun]) -> str:
    """An arm whose unlucky seeds do not come to an end would look better than it is."""
    if not missing:
        return ""
    seeds: dict[str, list[str]] = {}
    for one in missing:
        seeds.setdefault(one.arm, []).append(str(one.seed))
    runs = [f"{arm} (seed{'s' if len(some) > 1 else ''} {', '.join(some)})" for arm, some in seeds.items()]
    return f"Runs that are not finished, or failed, are not in these numbers: {listed(runs)}."


def _width(differences: list[Difference], metric: ComparedMetric, seen: str) -> str:
    seeds = sorted({len(difference.seeds) for difference in differences if difference.seeds})
    if not seeds:
        return "No two arms have a finished seed in common, so that none can be compared."
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
        f"How sure this is: with {count} seed{plural} and {seen}, the 95 % intervals of differences in "
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
    own = [one for one in differences if first.name in (one.first, one.second) and one.value is not None]
    shown = [lead(one, metric) for one in own if one.shown]
    beaten = [one.worse for one in shown if one.better == first.name]
    # Pairs are compared on the seeds that both have, means are of all seeds.
    ahead = [one.better for one in shown if one.worse == first.name]
    others = [one.second if one.first == first.name else one.first for one in own if not one.shown]
    parts = [
        f"It beats {listed(beaten)}" if beaten else "",
        f"on the seeds that both have, {listed(ahead)} {_verb('beat', ahead)} it" if ahead else "",
        f"no difference is shown to {listed(others)}" if others else "",
    ]
    told = "; ".join(part for part in parts if part)
    return (
        f"{first.name} has the highest {metric.words}, {metric.text(estimate.value)} points{ends}."
        f"{f' {told[0].upper()}{told[1:]}.' if told else ''}"
    )


def _verb(verb: str, names: Sequence[str]) -> str:
    return verb if len(names) > 1 else f"{verb}s"


def _pairs(arms: Sequence[Arm], differences: list[Difference], metric: ComparedMetric, heading: str) -> str:
    """Who is beaten by whom, from the best winner down, and how many pairs are left."""
    places = {arm.name: place for place, arm in enumerate(ranking(arms, COMPARED_METRICS[0]))}
    shown = [lead(difference, metric) for difference in differences if difference.shown]
    shown.sort(key=lambda told: (-places[told.worse], places[told.better]))
    parts = []
    for loser in dict.fromkeys(told.worse for told in shown):
        winners = [told for told in shown if told.worse == loser]
        names = [f"{told.better} (by {metric.text(told.value)}{_at(told)})" for told in winners]
        verb = _verb("beat", names) if metric.higher_is_better else f"{_verb('make', names)} fewer than"
        parts.append(f"{listed(names)} {verb} {loser}")
    left = [difference for difference in differences if not difference.shown]
    doubtful = sum(difference.leaves_out_zero for difference in left)
    leave = "leaves" if doubtful == 1 else "leave"
    chance = (
        f" ({doubtful} of their intervals {leave} out 0, which may be chance among so many)"
        if doubtful
        else ""
    )
    if not parts:
        return f"{heading}: no difference is shown between any two arms{chance}."
    rest = (
        f" No difference is shown in the other {len(left)} of {len(differences)} pairs{chance}."
        if left
        else ""
    )
    return f"{heading}: {'; '.join(parts)}.{rest}"


def _at(told: Lead) -> str:
    """Where false positives are compared, if one of the two does not reach the usual recall."""
    recall = told.lower_recall
    return "" if recall is None else f" at recall {recall:.2g}"


def _compute(arms: Sequence[Arm]) -> str:
    """Whether all runs spent the same, and what mining took of it."""
    farthest = off_mean_compute(arms)
    if farthest is None:
        return "Compute was not recorded, so equal compute cannot be checked."
    arm, run, share = farthest
    if abs(share) < EQUAL_COMPUTE:
        within = f", to within {100 * abs(share):.1f} %" if abs(share) >= 0.0005 else ""
        return f"Every run spent the same compute, mining included{within}."
    return (
        f"Compute was not equal: {arm.name} with seed {run.seed} spent {100 * abs(share):.0f} % "
        f"{'more' if share > 0 else 'less'} than the mean of all runs."
    )
