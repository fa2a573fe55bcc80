"""Which part of the axis a chart of intervals shows, so that one wild arm does not squeeze the others into a spot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from detkit.evaluation.compared_metrics import ComparedMetric
from detkit.evaluation.comparison_results import Arm, Lead

_WIDE = 1 / 2
"""A whisker that takes more than this share of the axis sets the axis by itself."""
_ZOOM = 4
"""How many times as large the other rows must become for such a whisker to be cut.

Intervals of like arms differ in width by a factor of 2 or 3, and where a row is merely less sure, its whole whisker
is worth the room. A lazy arm whose seeds disagree makes it 10 and more.
"""
_MARGIN = 0.04
"""Of the axis, on either side; arrow heads have room there."""


@dataclass(frozen=True)
class Row:
    """What a chart draws of an arm or of a pair, in the unit of its axis."""

    value: float
    low: float
    high: float
    """Infinite where that end is open."""
    seeds: tuple[float, ...] = ()

    @property
    def finite(self) -> list[float]:
        """All that has a place on an axis."""
        return [one for one in (self.value, self.low, self.high, *self.seeds) if math.isfinite(one)]


@dataclass(frozen=True)
class Frame:
    """The part of the axis that is shown."""

    left: float
    right: float

    def cuts(self, row: Row) -> bool:
        """The interval goes on beyond the frame."""
        return row.low < self.left or row.high > self.right

    def shows(self, value: float) -> bool:
        """The value has its place in the frame."""
        return self.left <= value <= self.right


def unit(metric: ComparedMetric) -> float:
    """Charts show fractions in points and counts as they are."""
    return 100 if metric.higher_is_better else 1


def arm_row(arm: Arm, metric: ComparedMetric) -> Row | None:
    """None where the arm has no value."""
    estimate = arm.estimates[metric.name]
    if estimate.value is None:
        return None
    seeds = tuple(value * unit(metric) for run in arm.runs if (value := run.metrics[metric.name]) is not None)
    return _row(estimate.value, estimate.low, estimate.high, metric, seeds)


def pair_row(one: Lead, metric: ComparedMetric) -> Row:
    """The difference from the better arm's side."""
    return _row(one.value, one.low, one.high, metric)


def ranking_frame(arms: Sequence[Arm], metric: ComparedMetric) -> Frame:
    """Of the chart of arms; one has a value at least."""
    rows = [row for arm in arms if (row := arm_row(arm, metric)) is not None]
    zero = () if metric.higher_is_better else (0.0,)
    # Of two arms with one cut nothing would be left to compare.
    frame = _around(_setting(rows, zero, least=2))
    return frame if metric.higher_is_better else Frame(min(0.0, frame.left), frame.right)


def difference_frame(leads: Sequence[Lead], metric: ComparedMetric) -> Frame:
    """Of the chart of pairs, which are compared with 0: one row that is not cut is enough."""
    zero = (0.0,)
    return _around(_setting([pair_row(one, metric) for one in leads], zero, least=1), zero)


def _setting(rows: Sequence[Row], marks: Sequence[float], least: int) -> Sequence[Row]:
    """The rows that set the frame: all, or those with narrower intervals.

    Width alone decides, not place: an arm that is surely far from the others is a finding, and the frame reaches to
    it. An interval as wide as the axis says that the arm is unsure, and at most on which side of the others it lies;
    arrow heads say as much. Neither a median nor a quartile of the widths would do: of three arms a wild one is in
    two pairs of three, and a dead arm's interval has no width at all.
    """
    low, high = _span(rows, marks)
    narrow = [row for row in rows if row.high - row.low <= _WIDE * (high - low)]
    if len(narrow) < least:
        return rows
    left, right = _span(narrow, marks)
    if right == left or (high - low) < _ZOOM * (right - left):
        return rows
    return _setting(narrow, marks, least)  # behind the widest there may be one that is only less wide


def _around(rows: Sequence[Row], marks: Sequence[float] = ()) -> Frame:
    low, high = _span(rows, marks)
    margin = _MARGIN * (high - low) or 0.05 * abs(low) or 0.05
    return Frame(low - margin, high + margin)


def _span(rows: Sequence[Row], marks: Sequence[float]) -> tuple[float, float]:
    places = [*marks, *(one for row in rows for one in row.finite)]
    return min(places), max(places)


def _row(
    value: float, low: float | None, high: float | None, metric: ComparedMetric, seeds: tuple[float, ...] = ()
) -> Row:
    factor = unit(metric)
    return Row(
        value * factor,
        -math.inf if low is None else low * factor,
        math.inf if high is None else high * factor,
        seeds,
    )
