"""Differences and the verdict in plain sentences.

The width of an interval comes before what it says: three seeds and eighty images make a wide one, and a reader who
knows that reads "no difference shown" as what it is, and not as "equal".
"""

from detkit.evaluation.compared_metrics import ComparedMetric
from detkit.evaluation.comparison_results import Difference, lead

ONE_SEED = "One seed: seeds were not resampled, so this speaks of these two runs alone."


def difference_sentence(difference: Difference, metric: ComparedMetric, pairs: int) -> str:
    """What a difference says.

    Args:
        difference: with everything but its sentence.
        metric: that it is in.
        pairs: how many were compared in this metric, for Holm's correction.
    """
    if not difference.seeds:
        return f"{difference.first} and {difference.second} cannot be compared: they have no finished seed in common."
    if difference.value is None:
        return (
            f"{difference.first} and {difference.second} cannot be compared in {_words(difference, metric)}: "
            "there is nothing to measure, or a run never reaches it."
        )
    told = lead(difference, metric)
    what = _Phrases(metric, _words(difference, metric))
    width = what.width(told.low, told.high)
    beats = f"{width}: {told.better} {what.beats(told.worse, told.value)}, {what.ends(told.low, told.high)}"
    if difference.shown:
        text = f"{beats}."
    elif difference.leaves_out_zero:
        chance = f"but among {pairs} pairs that may be chance (Holm p {difference.p_holm:.2g})"
        text = f"{beats}, {chance}: no difference shown."
    else:
        text = (
            f"{width}: no difference shown between {difference.first} and {difference.second} in {what.words} "
            f"({what.signed_ends(difference.low, difference.high)})."
        )
    return text if len(difference.seeds) > 1 else f"{text} {ONE_SEED}"


class _Phrases:
    """How a metric's numbers are said."""

    def __init__(self, metric: ComparedMetric, words: str) -> None:
        self.words = words
        self.metric = metric
        self.unit = "points" if metric.higher_is_better else "per image"

    def width(self, low: float | None, high: float | None) -> str:
        if low is None or high is None:
            return "Interval open"
        return f"Interval {self.metric.text(high - low)} {self.unit} wide"

    def beats(self, worse: str, value: float) -> str:
        if self.metric.higher_is_better:
            return f"beats {worse} by {self.metric.text(value)} points of {self.words}"
        return f"makes {self.metric.text(value)} fewer {self.words} than {worse}"

    def ends(self, low: float | None, high: float | None) -> str:
        if low is None:
            return (
                "with no lower end" if high is None else f"up to {self.metric.text(high)}, with no lower end"
            )
        if high is None:
            return f"{self.metric.text(low)} or more"
        return f"{self.metric.text(low)} to {self.metric.text(high)}"

    def signed_ends(self, low: float | None, high: float | None) -> str:
        if low is None and high is None:
            return "interval open on both sides"
        if low is None or high is None:
            return f"interval {self.ends(low, high)}"
        return f"interval {self.ends(low, high)} {self.unit}"


def _words(difference: Difference, metric: ComparedMetric) -> str:
    at = "" if difference.recall is None else f" at recall {difference.recall:.2g}"
    return metric.words + at
