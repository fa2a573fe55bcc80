"""The charts of a comparison.

All are so narrow that their text can be read on a telephone, where a chart is as wide as the page; the style sheet
makes it smaller where there is room. Names stand above what they name, for there is no room beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from detkit.evaluation.compared_metrics import ComparedMetric
from detkit.evaluation.comparison_results import Arm, Comparison, Difference, LearningPoint, lead
from detkit.report.colours import CARD, INK, MUTED, line_colour, line_dash, line_marker
from detkit.report.comparison_frame import (
    Frame,
    Row,
    arm_row,
    difference_frame,
    pair_row,
    ranking_frame,
)
from detkit.report.comparison_highlights import interval
from detkit.report.comparison_text import fitted, fitted_pair, text_width

WIDTH = 4.7
"""Inches."""
_ROOM = 72 * WIDTH - 14
"""For a line of text above a row, points."""
_NAME, _VALUE = 11, 10.5
"""Sizes of a row's text, points."""
_UNDER_HEAD = 0.012
"""From the tip of an arrow head to a place where it is wider than a whisker; share of the axis."""
_LOGARITHMIC = 8
"""Shares that differ by this factor are drawn on a logarithmic axis."""


def ranking_chart(arms: Sequence[tuple[int, Arm]], metric: ComparedMetric) -> Figure:
    """A dot and a whisker for each arm, best on top, with its seeds as small rings.

    Args:
        arms: place in the comparison, which gives the colour, and arm; from best to worst.
    """
    figure, axes = _rows(len(arms))
    frame = ranking_frame([arm for _, arm in arms], metric)
    axes.set_xlim(frame.left, frame.right)
    for place, (index, arm) in enumerate(arms):
        text = _value_text(arm, metric)
        _row_name(axes, place, fitted(arm.name, _room_beside(text), _NAME), text)
        row = arm_row(arm, metric)
        if row is None:
            continue
        colour = line_colour(index)
        _whisker(axes, place, row, frame, colour)
        _seeds(axes, place + 0.22, row, frame, colour)
        if frame.shows(row.value):
            axes.plot(row.value, place, line_marker(index), color=colour, ms=8, mec=CARD, mew=0.8, zorder=4)
    axes.set_xlabel(f"{metric.words}{', points' if metric.higher_is_better else ''}")
    return figure


def difference_chart(
    differences: Sequence[Difference], metric: ComparedMetric, numbers: Mapping[str, int]
) -> Figure:
    """A whisker for each pair, the better arm named first; in that arm's colour where a difference is shown.

    Args:
        numbers: each arm's place in the comparison, which gives its colour and marker.
    """
    told = [(lead(difference, metric), difference.shown) for difference in differences]
    told.sort(key=lambda row: -row[0].value)
    figure, axes = _rows(len(told), height=0.5)
    frame = difference_frame([one for one, _ in told], metric)
    axes.set_xlim(frame.left, frame.right)
    for place, (one, shown) in enumerate(told):
        colour, marker = MUTED, "o"
        if shown:
            colour, marker = line_colour(numbers[one.better]), line_marker(numbers[one.better])
        value = metric.text(one.value)
        _row_name(axes, place, fitted_pair(one.better, one.worse, _room_beside(value), _NAME), value)
        row = pair_row(one, metric)
        _whisker(axes, place, row, frame, colour)
        if frame.shows(row.value):
            face, edge = (colour, CARD) if shown else (CARD, colour)
            axes.plot(row.value, place, marker, mfc=face, mec=edge, ms=7.5, zorder=4)
        axes.plot([0, 0], [place - 0.2, place + 0.3], color=INK, lw=1, zorder=1)  # clear of the names
    fewer = "" if metric.higher_is_better else "fewer "
    axes.set_xlabel(f"{fewer}{metric.words}{', points' if metric.higher_is_better else ''}")
    return figure


def learning_chart(arms: Sequence[Arm], metric: str) -> Figure:
    """Validation over compute: a thin line for each seed, a thick one for their mean; scans are ticks below."""
    figure, axes = _plane(height=3.5)
    mining = [arm.name for arm in arms if any(run.rounds for run in arm.runs)]
    for index, arm in enumerate(arms):
        colour = line_colour(index)
        courses = [_course(run.learning, metric) for run in arm.runs]
        courses = [(compute / 1e9, 100 * values) for compute, values in courses if len(values)]
        if not courses:
            continue
        for compute, values in courses:
            axes.plot(compute, values, color=colour, lw=0.8, alpha=0.35)
        compute, values = _mean_course(courses)
        axes.plot(compute, values, color=colour, lw=2, ls=line_dash(index), marker=line_marker(index), ms=4.5,
                  mec=CARD, mew=0.6, zorder=3)  # fmt: skip
        if arm.name in mining:
            scans = [one.compute / 1e9 for one in arm.runs[0].rounds]
            height = 0.02 + 0.035 * mining.index(arm.name)
            axes.plot(scans, [height] * len(scans), "|", color=colour, ms=7, mew=1.8,
                      transform=axes.get_xaxis_transform(), zorder=4)  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_xlabel("compute spent, 10⁹ forward passes per pixel")
    axes.set_ylabel(f"{metric}, points")
    return figure


def precision_chart(comparison: Comparison) -> Figure:
    """Precision against recall, at IoU .5 over all classes: the mean of the seeds, and what they span."""
    figure, axes = _plane(height=3.7)
    for index, arm in enumerate(comparison.arms):
        curves = _stack([run.curves.precision for run in arm.runs])
        _band(axes, np.array(comparison.recall_grid) * 100, 100 * curves, index)
    axes.set(xlim=(0, 100), ylim=(0, 101.5), xlabel="recall, points", ylabel="precision, points")
    return figure


def false_positives_chart(comparison: Comparison) -> Figure:
    """Recall against false positives per image on a logarithmic axis, at IoU .5 over all classes."""
    figure, axes = _plane(height=3.7)
    grid = np.array(comparison.false_positive_grid)
    for index, arm in enumerate(comparison.arms):
        _band(axes, grid, 100 * _stack([run.curves.recall for run in arm.runs]), index)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(
        xlim=(grid[0], grid[-1]), ylim=(0, 101.5), xlabel="false positives per image", ylabel="recall, points"
    )
    return figure


def mined_chart(arms: Sequence[tuple[int, Arm]]) -> Figure:
    """Round by round, false positives found (open bars) and added (filled): means over the seeds.

    Args:
        arms: place in the comparison and arm; those that mined.
    """
    figure, axes = _plane(height=3.2)
    width = 0.8 / len(arms)
    for place, (index, arm) in enumerate(arms):
        rounds = _rounds(arm)
        across = rounds.numbers + (place - (len(arms) - 1) / 2) * width
        colour = line_colour(index)
        axes.bar(across, rounds.found, width * 0.9, facecolor="none", edgecolor=colour, lw=1.2, zorder=2)
        axes.bar(across, rounds.added, width * 0.9, color=colour, zorder=2)
        axes.plot(
            across[rounds.undone], rounds.found[rounds.undone], "X", color=INK, mec=CARD, ms=9, zorder=3
        )
    axes.set(ylabel="false positives", xlabel="round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)
    return figure


def acceptance_chart(arms: Sequence[tuple[int, Arm]]) -> Figure:
    """Round by round, the new hard negatives of each image looked at; logarithmic where they change much."""
    figure, axes = _plane(height=3.2)
    seen = []
    for index, arm in arms:
        rounds = _rounds(arm)
        seen.append(rounds.accepted)
        axes.plot(rounds.numbers, seen[-1], color=line_colour(index), ls=line_dash(index), lw=2,
                  marker=line_marker(index), ms=7, mec=CARD, mew=0.8)  # fmt: skip
    shares = np.concatenate(seen)
    if np.nanmax(shares) < _LOGARITHMIC * np.nanmin(shares):
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(ylabel="new negatives per image", xlabel="round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _plane(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _rows(count: int, height: float = 0.55) -> tuple[Figure, Axes]:
    """Axes with a row for each thing, the first on top."""
    figure, axes = _plane(height * count + 0.6)
    axes.set_ylim(count - 0.4, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure, axes


def _row_name(axes: Axes, row: int, name: str, value: str) -> None:
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "zorder": 2.5}
    ground = {"facecolor": CARD, "edgecolor": "none", "pad": 1.0}  # lines must not cross the text
    axes.text(0, row - 0.26, name, ha="left", bbox=ground, fontsize=_NAME, **place)
    axes.text(1, row - 0.26, value, ha="right", bbox=ground, fontsize=_VALUE, color=MUTED, **place)


def _room_beside(value: str) -> float:
    return _ROOM - text_width(value, _VALUE) - _NAME


def _whisker(axes: Axes, place: int, row: Row, frame: Frame, colour: str) -> None:
    """The interval; an arrow head where it goes on beyond the frame, and a second where the value lies there too."""
    ends = [_drawn_end(end, frame) for end in (row.low, row.high)]
    axes.plot(ends, [place, place], color=colour, lw=2.2, solid_capstyle="round", zorder=3)
    for edge, inwards, goes_on, beyond in (
        (frame.left, 1, row.low < frame.left, row.value < frame.left),
        (frame.right, -1, row.high > frame.right, row.value > frame.right),
    ):
        for head in range(2 if beyond else int(goes_on)):
            _arrow(axes, (edge, place), inwards, 6 * head, color=colour, ms=9, mec=CARD, mew=0.8)


def _drawn_end(end: float, frame: Frame) -> float:
    """Where a whisker ends; a cut one under its arrow head, whose tip then stays sharp."""
    under = _UNDER_HEAD * (frame.right - frame.left)
    if end < frame.left:
        return frame.left + under
    return frame.right - under if end > frame.right else end


def _seeds(axes: Axes, height: float, row: Row, frame: Frame, colour: str) -> None:
    """Small rings; where seeds lie beyond the frame, a small arrow head."""
    seeds = np.array(row.seeds)
    style: dict[str, Any] = {"color": colour, "mfc": "none", "mew": 0.9}
    inside = seeds[(seeds >= frame.left) & (seeds <= frame.right)]
    axes.plot(inside, [height] * len(inside), "o", ms=3.5, **style)
    for edge, inwards in ((frame.left, 1), (frame.right, -1)):
        if np.any((edge - seeds) * inwards > 0):
            _arrow(axes, (edge, height), inwards, 0, ms=4.5, **style)


def _arrow(axes: Axes, tip: tuple[float, float], inwards: int, points: float, **style: Any) -> None:
    """A head that looks out of the frame, ``points`` inside its edge."""
    step = ScaledTranslation(inwards * points / 72, 0, axes.figure.dpi_scale_trans)
    marker = CARETLEFT if inwards > 0 else CARETRIGHT
    axes.plot(*tip, marker=marker, ls="", clip_on=False, transform=axes.transData + step, zorder=5, **style)


def _value_text(arm: Arm, metric: ComparedMetric) -> str:
    value = arm.estimates[metric.name].value
    if value is None:
        return "nothing to measure" if metric.higher_is_better else "recall not reached"
    return f"{metric.text(value)} ({interval(arm, metric)})"


def _course(points: Sequence[LearningPoint], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Compute and values, [P] each, of the points that were measured."""
    rows = [
        (point.compute, point.metrics[metric]) for point in points if point.metrics.get(metric) is not None
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _mean_course(courses: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The seeds' mean where all have begun and none has ended, at the first seed's points."""
    start = max(compute[0] for compute, _ in courses)
    stop = min(compute[-1] for compute, _ in courses)
    points = courses[0][0][(courses[0][0] >= start) & (courses[0][0] <= stop)]
    return points, np.mean([np.interp(points, *course) for course in courses], axis=0)


def _stack(curves: Sequence[Sequence[float | None]]) -> np.ndarray:
    """[runs, grid], NaN for None."""
    return np.array([[np.nan if value is None else value for value in curve] for curve in curves])


def _band(axes: Axes, grid: np.ndarray, curves: np.ndarray, index: int) -> None:
    """The mean of the seeds where all have a value, over what they span."""
    mean, colour = curves.mean(axis=0), line_colour(index)
    axes.fill_between(grid, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.13, lw=0)
    every = (3 + 2 * index, 14)  # not all arms' at one place
    axes.plot(grid, mean, color=colour, lw=1.9, ls=line_dash(index), marker=line_marker(index), ms=5,
              mec=CARD, mew=0.6, markevery=every)  # fmt: skip


@dataclass(frozen=True)
class _Rounds:
    """Means over an arm's seeds, [rounds] each."""

    numbers: np.ndarray
    found: np.ndarray
    added: np.ndarray
    accepted: np.ndarray
    """NaN where it was not counted, or was 0, which a logarithmic axis has no place for."""
    undone: np.ndarray
    """Any seed rolled the round back."""


def _rounds(arm: Arm) -> _Rounds:
    every = [one for run in arm.runs for one in run.rounds]
    rows = [
        [one for one in every if one.number == number] for number in sorted({one.number for one in every})
    ]
    shares = [[one.acceptance for one in row if one.acceptance] for row in rows]
    return _Rounds(
        numbers=np.array([row[0].number for row in rows]),
        found=np.array([np.mean([one.false_positives for one in row]) for row in rows]),
        added=np.array([np.mean([one.added for one in row]) for row in rows]),
        accepted=np.array([np.mean(share) if share else np.nan for share in shares]),
        undone=np.array([any(one.rolled_back for one in row) for row in rows], dtype=bool),
    )
