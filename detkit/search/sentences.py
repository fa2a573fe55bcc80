"""What a search shows, in a few plain sentences; nothing of test."""

import math
from collections.abc import Sequence

from detkit.evaluation.number_texts import points, value_text
from detkit.evaluation.search_results import Parameter, SearchTrial, best_trial, is_near, smaller_trial

AT_THE_END = 0.05
"""So near to the end of a range, as a share of it, a value says that better ones may lie beyond."""


def search_sentences(
    metric: str, trials: Sequence[SearchTrial], parameters: Sequence[Parameter], wanted: int
) -> tuple[str, ...]:
    """The winner, smaller models, what mattered, values at the end of their range, and how trials ended."""
    best = best_trial(trials)
    if best is None:
        return (_ends(trials, wanted),)
    sentences = [
        _winner(metric, best, trials),
        _smaller(metric, best, trials),
        _importance(parameters),
        *(_at_an_end(best, one) for one in parameters),
        "The highest of many is flattered by chance, and every trial has one seed.",
        _ends(trials, wanted),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def _winner(metric: str, best: SearchTrial, trials: Sequence[SearchTrial]) -> str:
    values = ", ".join(f"{name} {value_text(value)}" for name, value in best.values.items())
    others = sorted(
        (one.value or 0.0 for one in trials if one.state == "complete" and one is not best), reverse=True
    )
    ahead = f", {points((best.value or 0.0) - others[0])} ahead of the next" if others else ""
    return f"Trial {best.number} is best on validation, with {points(best.value)} points of {metric}{ahead}: {values}."


def _smaller(metric: str, best: SearchTrial, trials: Sequence[SearchTrial]) -> str:
    chosen = smaller_trial(trials)
    if chosen is None or chosen.cost is None or best.cost is None:
        return ""
    share = 100 * chosen.cost.flops / best.cost.flops
    loss = points((best.value or 0.0) - (chosen.value or 0.0))
    how = "is smaller and nearly as good" if is_near(chosen, best) else "is the best of the smaller models"
    return f"Trial {chosen.number} {how}: {share:.0f} % of the winner's FLOPs for {loss} points of {metric} less."


def _importance(parameters: Sequence[Parameter]) -> str:
    known = [one for one in parameters if one.importance is not None]
    if len(known) < 2:
        return ""
    first = max(known, key=lambda one: one.importance or 0.0)
    return f"{first.name} mattered most, with {100 * (first.importance or 0.0):.0f} % of the importance."


def _at_an_end(best: SearchTrial, parameter: Parameter) -> str:
    value, low, high = best.values.get(parameter.name), parameter.low, parameter.high
    if low is None or high is None or value is None or isinstance(value, str):
        return ""
    place = math.log(value / low) / math.log(high / low) if parameter.log else (value - low) / (high - low)
    if AT_THE_END < place < 1 - AT_THE_END:
        return ""
    end = "lower" if place <= AT_THE_END else "upper"
    return (
        f"{parameter.name} of the winner, {value_text(value)}, is at the {end} end of its range; "
        "better values may lie beyond."
    )


def _ends(trials: Sequence[SearchTrial], wanted: int) -> str:
    counts = {
        state: sum(one.state == state for one in trials)
        for state in ("complete", "pruned", "failed", "running")
    }
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{len(trials)} of {wanted} trials: {told}." if trials else "No trial has begun yet."
