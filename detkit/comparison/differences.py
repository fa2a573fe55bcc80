"""The differences of all pairs of arms, with intervals, p values and Holm's correction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from detkit.comparison.draws import Draws
from detkit.comparison.intervals import holm, interval, p_value
from detkit.comparison.measuring import (
    MeasuredArms,
    Pair,
    Progress,
    common_recalls,
    false_positives_of_pairs,
)
from detkit.comparison.sentences import difference_sentence
from detkit.evaluation.compared_metrics import COMPARED_METRICS, PAIR_METRIC, ComparedMetric
from detkit.evaluation.comparison_results import Difference, Estimate

SIGNIFICANCE = 0.05
RunValues = Mapping[int, np.ndarray]
"""Of one arm and metric, by seed: float64 [1 + R], row 0 on the images as they are."""


@dataclass(frozen=True)
class MetricPair:
    """What is needed to compare two arms in one metric."""

    pair: Pair
    metric: ComparedMetric
    seeds: tuple[int, ...]
    values: Mapping[str, RunValues]
    """By arm and seed."""
    recall: float | None = None


def arm_estimate(values: RunValues, metric: ComparedMetric, draws: Draws) -> Estimate:
    """The mean over an arm's seeds, and its interval; None where a run has no value."""
    seeds = tuple(sorted(values))
    means = draws.means(np.stack([values[seed] for seed in seeds], axis=1), seeds)
    return _estimate(_possible(means, 0, metric))


def all_differences(arms: MeasuredArms, draws: Draws, progress: Progress) -> tuple[Difference, ...]:
    """Every pair of arms in every metric, pair by pair in the order of the arms.

    A pair is compared on the seeds that both have, with the same draws for both; where they have none, as while runs
    are missing, it is told as one that cannot be compared.
    """
    common = {pair: _common_seeds(arms, pair) for pair in combinations(arms, 2)}
    seeds = {pair: some for pair, some in common.items() if some}
    recalls = {pair: common_recalls(arms, pair, seeds[pair]) for pair in seeds}
    false_positives = false_positives_of_pairs(arms, recalls, draws, progress)
    families = [
        [
            MetricPair(pair, metric, seeds[pair], {name: _values(arms, name, metric) for name in pair})
            for pair in seeds
        ]
        for metric in COMPARED_METRICS
    ]
    families.append(
        [
            MetricPair(pair, PAIR_METRIC, seeds[pair], false_positives[pair], _number(recalls[pair][0]))
            for pair in seeds
        ]
    )
    apart = [pair for pair, some in common.items() if not some]
    metrics = (*COMPARED_METRICS, PAIR_METRIC)
    return tuple(
        difference
        for metric, family in zip(metrics, families, strict=True)
        for difference in (*compare_family(family, draws), *(_apart(pair, metric) for pair in apart))
    )


def compare_family(family: list[MetricPair], draws: Draws) -> list[Difference]:
    """The differences of all pairs in one metric, corrected together."""
    plain = [_difference(one, draws) for one in family]
    measured = [index for index, difference in enumerate(plain) if difference.p is not None]
    corrected = dict(zip(measured, holm([plain[index].p or 0.0 for index in measured]), strict=True))
    return [
        _judged(difference, corrected.get(index), one.metric, len(measured))
        for index, (difference, one) in enumerate(zip(plain, family, strict=True))
    ]


def _difference(one: MetricPair, draws: Draws) -> Difference:
    """A pair's difference, not yet judged."""
    first, second = (np.stack([one.values[name][seed] for seed in one.seeds], axis=1) for name in one.pair)
    resampled = _possible(draws.means(first - second, one.seeds), -1, one.metric)
    estimate = _estimate(resampled)
    return Difference(
        first=one.pair[0],
        second=one.pair[1],
        metric=one.metric.name,
        seeds=one.seeds,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        p=None if estimate.value is None else p_value(resampled[1:]),
        p_holm=None,
        shown=False,
        sentence="",
        recall=one.recall,
    )


def _judged(difference: Difference, p_holm: float | None, metric: ComparedMetric, pairs: int) -> Difference:
    shown = difference.leaves_out_zero and p_holm is not None and p_holm < SIGNIFICANCE
    judged = replace(difference, p_holm=p_holm, shown=shown)
    return replace(judged, sentence=difference_sentence(judged, metric, pairs))


def _possible(values: np.ndarray, lowest: int, metric: ComparedMetric) -> np.ndarray:
    """Few seeds make intervals that reach past what a fraction, its difference or a count can be."""
    if metric.higher_is_better:
        return np.clip(values, lowest, 1)
    return np.clip(values, 0, None) if lowest == 0 else values


def _estimate(values: np.ndarray) -> Estimate:
    if np.isnan(values[0]):
        return Estimate(None, None, None)
    return Estimate(float(values[0]), *interval(values[1:]))


def _values(arms: MeasuredArms, name: str, metric: ComparedMetric) -> RunValues:
    return {seed: run.values[metric.name] for seed, run in arms[name].items()}


def _common_seeds(arms: MeasuredArms, pair: Pair) -> tuple[int, ...]:
    return tuple(sorted(set(arms[pair[0]]) & set(arms[pair[1]])))


def _apart(pair: Pair, metric: ComparedMetric) -> Difference:
    """Of two arms that started from other weights and saw other data."""
    plain = Difference(*pair, metric.name, (), None, None, None, None, None, shown=False, sentence="")
    return replace(plain, sentence=difference_sentence(plain, metric, 0))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
