"""The charts of a search.

As narrow as those of a comparison, so that their text can be read on a telephone. A dot is a complete trial, a cross
one that was pruned, and the star is the winner, in every chart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from detkit.evaluation.search_results import Parameter, Search, SearchTrial, cost_front
from detkit.report.colours import CARD, INK, MUTED, line_colour
from detkit.report.comparison_text import fitted, text_width

WIDTH = 4.7
"""Inches."""
_ROOM = 72 * WIDTH - 14
"""For a line of text above a row, points."""
_NAME = 11
"""Size of a row's text, points."""
_LOGARITHMIC = 8
"""Costs that differ by this factor are drawn on a logarithmic axis."""
_TRIAL, _BEST = line_colour(0), line_colour(1)


def history_chart(search: Search) -> Figure:
    """Every trial by its number, and the best complete one so far as a line."""
    figure, axes = _plane(height=3.4)
    best = np.maximum.accumulate(
        [one.value if one.state == "complete" and one.value is not None else -np.inf for one in search.trials]
    )
    numbers = np.array([one.number for one in search.trials])
    known = np.isfinite(best)
    axes.plot(numbers[known], 100 * best[known], color=_TRIAL, lw=1.6, drawstyle="steps-post", zorder=2)
    _mark_trials(axes, search, lambda one: one.number)
    failed = [one.number for one in search.trials if one.state == "failed"]
    axes.plot(failed, [0.03] * len(failed), "|", color=INK, ms=9, mew=2, transform=axes.get_xaxis_transform())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{search.metric}, points")
    return figure


def importance_chart(parameters: Sequence[Parameter]) -> Figure:
    """A bar for each range, the most important on top."""
    figure, axes = _rows(len(parameters))
    for row, one in enumerate(parameters):
        share = 100 * (one.importance or 0.0)
        _row_name(axes, row, one.name, f"{share:.0f} %")
        axes.barh(row, share, height=0.26, color=_TRIAL, zorder=3)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the importance, %")
    return figure


def slice_chart(search: Search, parameter: Parameter) -> Figure:
    """Every trial by its value of one range; choices are rows, numbers an axis."""
    return _choice_slice(search, parameter) if parameter.choices else _number_slice(search, parameter)


def cost_chart(search: Search) -> Figure:
    """Every trial by the FLOPs of its model; the line joins those that none is both as cheap and as good as."""
    figure, axes = _plane(height=3.7)
    front = cost_front(search.trials)
    places = [((one.cost.flops / 1e9) if one.cost else 0.0, 100 * (one.value or 0.0)) for one in front]
    axes.plot(*zip(*places, strict=True), color=_TRIAL, lw=1.6, zorder=2)
    _mark_trials(axes, search, lambda one: one.cost.flops / 1e9 if one.cost else None)
    for one, (across, up) in zip(front, places, strict=True):
        axes.annotate(str(one.number), (across, up), xytext=(0, 8), textcoords="offset points", ha="center",
                      fontsize=9.5, color=MUTED, zorder=5)  # fmt: skip
    costs = [one.cost.flops for one in search.trials if one.cost]
    if max(costs) >= _LOGARITHMIC * min(costs):
        _logarithmic(axes)
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel("10⁹ FLOPs for an image")
    axes.set_ylabel(f"{search.metric}, points")
    return figure


def curves_chart(search: Search) -> Figure:
    """Every trial's validations, epoch by epoch; a cross ends those that were pruned."""
    figure, axes = _plane(height=3.6)
    for one in sorted(search.trials, key=lambda one: one.number == search.winner):
        points = [(point.epoch, 100 * point.value) for point in one.curve if point.value is not None]
        if not points:
            continue
        colour, width = (_BEST, 2.4) if one.number == search.winner else (_TRIAL, 1.0)
        pruned = one.state == "pruned"
        axes.plot(*zip(*points, strict=True), color=MUTED if pruned else colour, lw=width,
                  ls=(0, (3, 2)) if pruned else "solid", alpha=1 if width > 1 else 0.75,
                  marker="o", ms=3 if len(points) > 1 else 4.5, zorder=3)  # fmt: skip
        if pruned:
            axes.plot(*points[-1], "x", color=INK, ms=6, mew=1.4, zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{search.metric}, points")
    return figure


def _number_slice(search: Search, parameter: Parameter) -> Figure:
    figure, axes = _plane(height=3.0)
    _mark_trials(axes, search, lambda one: one.values.get(parameter.name))
    if parameter.log:
        _logarithmic(axes)
    low, high = parameter.low or 0.0, parameter.high or 0.0
    margin = 0.03 * (high - low)
    ends = (low - margin, high + margin)
    if parameter.log:
        factor = (high / low) ** 0.03
        ends = (low / factor, high * factor)
    axes.set_xlim(*ends)
    axes.set_xlabel(fitted(parameter.name, _ROOM - 40, _NAME))
    axes.set_ylabel(f"{search.metric}, points")
    return figure


def _choice_slice(search: Search, parameter: Parameter) -> Figure:
    figure, axes = _rows(len(parameter.choices))
    for row, choice in enumerate(parameter.choices):
        own = [one for one in search.trials if one.values.get(parameter.name) == choice]
        values = [one.value for one in own if one.state == "complete" and one.value is not None]
        text = f"best {100 * max(values):.1f}" if values else "no complete trial"
        _row_name(axes, row, choice, text)
    rows = {choice: row for row, choice in enumerate(parameter.choices)}
    _mark_trials(axes, search, lambda one: rows.get(str(one.values.get(parameter.name))), upright=True)
    axes.set_xlabel(f"{search.metric}, points")
    return figure


def _mark_trials(
    axes: Axes,
    search: Search,
    across: Callable[[SearchTrial], Any],
    *,
    upright: bool = False,
) -> None:
    """A mark for each trial that has a value; ``upright`` puts the metric on the horizontal axis."""
    styles: dict[str, dict[str, Any]] = {
        "complete": {"marker": "o", "color": _TRIAL, "ms": 6.5, "mec": CARD, "mew": 0.8, "zorder": 3},
        "pruned": {"marker": "x", "color": MUTED, "ms": 6, "mew": 1.4, "zorder": 2.5},
        "running": {"marker": "o", "color": MUTED, "mfc": "none", "ms": 6, "zorder": 2.5},
    }
    for one in search.trials:
        place = across(one)
        if one.state not in styles or one.value is None or place is None:
            continue
        style = styles[one.state]
        if one.number == search.winner:
            style = {"marker": "*", "color": _BEST, "ms": 14, "mec": CARD, "mew": 0.8, "zorder": 4}
        point = (100 * one.value, place) if upright else (place, 100 * one.value)
        axes.plot(*point, ls="none", **style)


def _plane(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _rows(count: int) -> tuple[Figure, Axes]:
    """Axes with a row for each thing, the first on top."""
    figure, axes = _plane(0.55 * count + 0.6)
    axes.set_ylim(count - 0.5, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.04)
    return figure, axes


def _row_name(axes: Axes, row: int, name: str, value: str) -> None:
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": _NAME}
    ground = {"facecolor": CARD, "edgecolor": "none", "pad": 1.0}  # lines must not cross the text
    room = _ROOM - text_width(value, _NAME) - _NAME
    axes.text(0, row - 0.26, fitted(name, room, _NAME), ha="left", bbox=ground, **place)
    axes.text(1, row - 0.26, value, ha="right", bbox=ground, color=MUTED, **place)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 100 * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
