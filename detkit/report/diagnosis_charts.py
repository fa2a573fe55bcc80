"""The charts of a diagnosis, and the sentence of each. They name no class: names are untrusted, and there may be many.

All are narrow enough to be read on a telephone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from detkit.evaluation.diagnosis import CurveRows, Diagnosis
from detkit.evaluation.number_texts import points
from detkit.report.colours import CARD, INK, MUTED, line_colour, line_dash, line_marker
from detkit.report.diagnosis_text import WORDS, alarm_rate, by_cost, costliest, count_text
from detkit.report.svg import chart_style, inline_svg

WIDTH = 4.7
"""Inches."""
MANY_CLASSES = 20
"""More are no table of confusions but a picture."""
_MOST_CELLS = 1500
"""Confusions in that picture, the most frequent."""
_LEVELS = (0.1, 1.0)
"""False positives per image at which a recall is told."""


@dataclass(frozen=True)
class Chart:
    """A chart of the page."""

    heading: str
    figure: Figure
    caption: str
    """What it shows, with its numbers."""


def charts(diagnosis: Diagnosis) -> dict[str, tuple[str, Markup, str]]:
    """Heading, SVG and caption of every chart that the diagnosis has something for, by key."""
    with chart_style():
        drawn = {"costs": _costs(diagnosis)}
        if diagnosis.curve is not None and diagnosis.curve.scores:
            drawn["threshold"] = _threshold(diagnosis.curve)
            drawn["froc"] = _froc(diagnosis.curve)
        if diagnosis.calibration["error"] is not None:
            drawn["calibration"] = _calibration(diagnosis)
        if diagnosis.alarms["images"]:
            drawn["alarms"] = _alarms(diagnosis)
        if len(diagnosis.class_names) > MANY_CLASSES:
            drawn["confusion"] = _confusion(diagnosis)
        return {
            key: (
                chart.heading,
                inline_svg(chart.figure, key=key, title=chart.heading, description=chart.caption),
                chart.caption,
            )
            for key, chart in drawn.items()
        }


def _costs(diagnosis: Diagnosis) -> Chart:
    ranked = by_cost(diagnosis.parts[0])
    figure, axes = _plane(0.5 * len(ranked) + 0.6)
    for row, error in enumerate(ranked):
        cost = 100 * (error.cost or 0.0)
        axes.barh(row + 0.12, cost, height=0.32, color=line_colour(1 if row == 0 else 0), zorder=2)
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "zorder": 3}
        ground = {"facecolor": CARD, "edgecolor": "none", "pad": 1.0}
        axes.text(0, row - 0.1, WORDS[error.name], ha="left", bbox=ground, **place)
        value = f"{count_text(error)}, {points(error.cost)}"
        axes.text(1, row - 0.1, value, ha="right", color=MUTED, fontsize=10.5, bbox=ground, **place)
    axes.set_ylim(len(ranked) - 0.5, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    # A kind that makes average precision rise costs less than nothing, which the axis must have room for.
    costs = [100 * (error.cost or 0.0) for error in ranked]
    axes.set_xlim(min(0.0, *costs), max(1.0, 1.05 * max(costs)))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("points of AP50 to be gained by mending the kind")
    text = " ".join(costliest(diagnosis))
    return Chart("What each kind of error costs", figure, f"{text} Costs of several kinds do not add up.")


def _threshold(curve: CurveRows) -> Chart:
    figure, axes = _plane(3.6)
    scores = np.array(curve.scores)
    lines = {"precision": curve.precision, "recall": curve.recall, "F1": curve.F1}
    for index, (name, values) in enumerate(lines.items()):
        axes.plot(scores, 100 * np.array(values), color=line_colour(index), ls=line_dash(index), lw=1.9)
        # On its line, and not on the mark of the best: the names need no legend.
        across = np.quantile((scores[0], scores[-1]), (0.15, 0.4, 0.65))
        free = (
            across
            if curve.best is None
            else across[np.abs(across - scores[curve.best]) >= 0.1 * np.ptp(scores)]
        )
        wanted = np.roll(free, 1)[index % len(free)]
        place = int(np.abs(scores - wanted).argmin())
        _name(axes, scores[place], 100 * values[place], name, line_colour(index))
    caption = "No detection is correct."
    if curve.best is not None:
        at = curve.best
        axes.axvline(curve.scores[at], color=MUTED, lw=1, ls=(0, (3, 2)))
        axes.plot(
            curve.scores[at],
            100 * curve.F1[at],
            line_marker(2),
            color=line_colour(2),
            ms=9,
            mec=CARD,
            zorder=5,
        )
        caption = (
            f"F1 is highest at score {curve.scores[at]:.3g}, the marked point: F1 {points(curve.F1[at])}, precision "
            f"{points(curve.precision[at])}, recall {points(curve.recall[at])}."
        )
    axes.set(xlabel="least score of a detection", ylabel="points", ylim=(0, 103))
    axes.set_xlim(0, max(curve.scores) if max(curve.scores) > 1 else 1)
    return Chart("Precision, recall and F1 at every score", figure, caption)


def _froc(curve: CurveRows) -> Chart:
    figure, axes = _plane(3.6)
    false, recall = np.array(curve.false_positives_per_image), np.array(curve.recall)
    shown = false > 0
    axes.plot(false[shown], 100 * recall[shown], color=line_colour(0), lw=2)
    if curve.best is not None and shown[curve.best]:
        axes.plot(
            false[curve.best], 100 * recall[curve.best], line_marker(2), color=line_colour(2), ms=9, mec=CARD
        )
    if shown.any():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="false positives per image", ylabel="recall, points", ylim=(0, 103))
    told = [
        f"{points(_recall_at(false, recall, level))} at {level:g}" for level in _LEVELS if level <= false[-1]
    ]
    most = f"all detections together find {points(recall[-1])} with {false[-1]:.3g} false positives per image"
    start = f"Recall is {' and '.join(told)} false positives per image; " if told else ""
    caption = f"{start}{most}. The marked point is the best F1."
    return Chart("Recall against false positives (FROC)", figure, caption[0].upper() + caption[1:])


def _recall_at(false: np.ndarray, recall: np.ndarray, level: float) -> float:
    inside = np.flatnonzero(false <= level)
    return float(recall[inside[-1]]) if len(inside) else 0.0


def _calibration(diagnosis: Diagnosis) -> Chart:
    found = diagnosis.calibration
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    filled = [place for place, count in enumerate(found["counts"]) if count]
    scores = np.array([found["scores"][place] for place in filled])
    precisions = np.array([found["precisions"][place] for place in filled])
    above.plot([0, 100], [0, 100], color=MUTED, lw=1, ls=(0, (3, 2)))
    above.vlines(100 * scores, 100 * scores, 100 * precisions, color=line_colour(1), lw=1.4)
    above.plot(
        100 * scores, 100 * precisions, line_marker(0), ls="solid", color=line_colour(0), ms=7, mec=CARD
    )
    above.set(ylabel="correct, %", ylim=(-2, 103))
    edges = 100 * np.array(found["edges"])
    below.bar(edges[:-1], found["counts"], np.diff(edges), align="edge", color=MUTED, alpha=0.55, lw=0)
    below.set_yscale("log")
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    below.yaxis.set_minor_formatter(NullFormatter())
    below.set(xlabel="score, %", ylabel="detections", xlim=(0, 100))
    surest = filled[-1]
    caption = (
        f"Of the {found['counts'][surest]:,} surest detections, with a mean score of "
        f"{points(found['scores'][surest])} %, {points(found['precisions'][surest])} % are correct. On the dashed line "
        f"scores would be chances; the expected calibration error is {points(found['error'])} points. Below: how many "
        "detections have such scores."
    )
    return Chart("Is a score the chance of being right?", figure, caption)


def _alarms(diagnosis: Diagnosis) -> Chart:
    figure, axes = _plane(3.2)
    rates = [100 * rate for rate in diagnosis.alarms["rates"]]
    axes.step(diagnosis.alarms["scores"], rates, where="post", color=line_colour(1), lw=2)
    axes.axvline(diagnosis.score, color=MUTED, lw=1, ls=(0, (3, 2)))
    axes.set(
        xlabel="least score of a detection", ylabel="images with an alarm, %", ylim=(0, 103), xlim=(0, 1)
    )
    images = diagnosis.alarms["images"]
    caption = (
        f"Of {images:,} image{'s' if images != 1 else ''} without objects {points(alarm_rate(diagnosis))} % have a "
        f"detection at the score {diagnosis.score:.2f} of the best F1 (dashed), and {rates[50]:.1f} % at .5."
    )
    return Chart("Alarms on images without objects", figure, caption)


def _confusion(diagnosis: Diagnosis) -> Chart:
    counts = np.array(diagnosis.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows, columns = np.nonzero(counts)
    kept = np.argsort(-shares[rows, columns], kind="stable")[:_MOST_CELLS]
    rows, columns = rows[kept], columns[kept]
    figure, axes = _plane(4.6)
    right = rows == columns
    last = len(counts) - 1
    # Squares by area; their side fills a cell where the share is 1.
    largest = (72 * (WIDTH - 0.6) / len(counts)) ** 2
    for which, colour in ((right, line_colour(0)), (~right, line_colour(1))):
        sizes = np.maximum(1.0, largest * shares[rows, columns][which])
        axes.scatter(columns[which], rows[which], s=sizes, c=colour, marker="s", lw=0, alpha=0.8)
    for line in (axes.axhline, axes.axvline):
        line(last - 0.5, color=INK, lw=0.8)
    axes.set(xlim=(-0.5, last + 0.5), ylim=(last + 0.5, -0.5), xlabel="what is said (last: missed)",
             ylabel="what is there (last: background)")  # fmt: skip
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    found = int(np.trace(counts[:-1, :-1]))
    caption = (
        f"{found:,} of {int(counts[:-1].sum()):,} objects are given their class at score {diagnosis.score:.2f} or "
        "more. Classes are numbered from 0 in the order of the annotations; a square's area is the share of its row."
    )
    return Chart("Confusion at a glance", figure, caption)


def _plane(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _name(axes: Axes, x: float, y: float, name: str, colour: str) -> None:
    ground = {"facecolor": CARD, "edgecolor": "none", "pad": 1.5}
    axes.text(x, y, name, ha="center", va="center", color=colour, bbox=ground, zorder=4)


def biggest_confusions(diagnosis: Diagnosis, most: int = 20) -> list[tuple[int, int, int, float]]:
    """Class there, class said, how often, and the share of the former's objects; most frequent first."""
    counts = np.array(diagnosis.confusion)[:-1]
    objects = counts.sum(axis=1)
    pairs: Sequence[tuple[int, int]] = [
        (row, column) for row, column in np.argwhere(counts[:, :-1]).tolist() if row != column
    ]
    pairs = sorted(pairs, key=lambda pair: -counts[pair])[:most]
    return [
        (row, column, int(counts[row, column]), float(counts[row, column] / objects[row]))
        for row, column in pairs
    ]
