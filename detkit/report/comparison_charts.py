"""Which charts a report has, and what each says to those who do not see it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from detkit.evaluation.compared_metrics import PAIR_METRIC, ComparedMetric
from detkit.evaluation.comparison_results import Arm, Comparison, Difference, lead, ranking
from detkit.report.comparison_frame import (
    Frame,
    Row,
    arm_row,
    difference_frame,
    pair_row,
    ranking_frame,
)
from detkit.report.comparison_highlights import FALSE_POSITIVES, RANKED_BY, interval
from detkit.report.comparison_plots import (
    acceptance_chart,
    difference_chart,
    false_positives_chart,
    learning_chart,
    mined_chart,
    precision_chart,
    ranking_chart,
)
from detkit.report.svg import chart_style, inline_svg


@dataclass(frozen=True)
class Drawn:
    """A figure and what is said of it."""

    figure: Figure
    title: str
    description: str
    note: str = ""
    """For the caption: what arrow heads mean; empty where there are none."""


@dataclass(frozen=True)
class Chart:
    """Stands in a template for its SVG."""

    svg: Markup
    note: str
    """Of ``Drawn``."""

    def __html__(self) -> str:
        return self.svg


def charts(comparison: Comparison) -> dict[str, Chart]:
    """Every chart that the comparison has something for, by key, as SVG."""
    with chart_style():
        drawn = {
            **_rankings(comparison),
            **_differences(comparison),
            **_learning(comparison),
            **_curves(comparison),
            **_mining(comparison),
        }
        return {
            key: Chart(
                inline_svg(one.figure, key=key, title=one.title, description=one.description), one.note
            )
            for key, one in drawn.items()
        }


def _rankings(comparison: Comparison) -> dict[str, Drawn]:
    return {
        key: _ranking(comparison, metric)
        for key, metric in (("ranking", RANKED_BY), ("ranking-fppi", FALSE_POSITIVES))
        if any(arm.estimates[metric.name].value is not None for arm in comparison.arms)
    }


def _ranking(comparison: Comparison, metric: ComparedMetric) -> Drawn:
    ranked = ranking(comparison.arms, metric)
    frame = ranking_frame(ranked, metric)
    rows = {arm.name: (arm, row) for arm in ranked if (row := arm_row(arm, metric)) is not None}
    cut = [f"{name} ({interval(arm, metric)})" for name, (arm, row) in rows.items() if frame.cuts(row)]
    text = f"From best to worst: {_ranked_text(comparison, metric)}. "
    if cut:
        text += f"Intervals that go on beyond the chart: {', '.join(cut)}. "
    return Drawn(
        ranking_chart(_numbered(comparison, ranked), metric),
        f"Ranking of the arms by {metric.words}",
        f"{text}The table below has every number.",
        _note([row for _, row in rows.values()], frame, "the mean", "The numbers beside the names tell"),
    )


def _differences(comparison: Comparison) -> dict[str, Drawn]:
    drawn = {}
    for key, metric in (("differences", RANKED_BY), ("differences-fppi", PAIR_METRIC)):
        measured = [
            one for one in comparison.differences if one.metric == metric.name and one.value is not None
        ]
        if measured:
            drawn[key] = _difference(comparison, measured, metric)
    return drawn


def _difference(comparison: Comparison, measured: list[Difference], metric: ComparedMetric) -> Drawn:
    numbers = {arm.name: index for index, arm in enumerate(comparison.arms)}
    leads = [lead(one, metric) for one in measured]
    frame = difference_frame(leads, metric)
    rows = [pair_row(one, metric) for one in leads]
    text = "The better arm of each pair first. "
    if cut := sum(frame.cuts(row) for row in rows):
        text += f"The intervals of {cut} of {len(rows)} pairs go on beyond the chart. "
    return Drawn(
        difference_chart(measured, metric, numbers),
        f"Differences of all pairs in {metric.words}",
        f"{text}The sentences below it say the same.",
        _note(rows, frame, "the difference", "The sentences below tell"),
    )


def _note(rows: Sequence[Row], frame: Frame, value: str, told: str) -> str:
    """What the arrow heads of a chart mean: those that it has."""
    if not any(frame.cuts(row) for row in rows):
        return ""
    heads = ["An arrow: the interval goes on beyond the chart"]
    if not all(frame.shows(row.value) for row in rows):
        heads.append(f"a double arrow: {value} lies there too")
    if not all(frame.shows(seed) for row in rows for seed in row.seeds):
        heads.append("a small one: a seed lies there")
    return f"{'; '.join(heads)}. {told} how far."


def _learning(comparison: Comparison) -> dict[str, Drawn]:
    points = [point for arm in comparison.arms for run in arm.runs for point in run.learning]
    learned = {name for point in points for name, value in point.metrics.items() if value is not None}
    metric = RANKED_BY.name if RANKED_BY.name in learned else min(learned, default=None)
    if metric is None:
        return {}
    text = f"Validation {metric} on the way, one thick line each for {_names(comparison)}."
    return {"learning": Drawn(learning_chart(comparison.arms, metric), f"{metric} over compute", text)}


def _curves(comparison: Comparison) -> dict[str, Drawn]:
    curves = [run.curves for arm in comparison.arms for run in arm.runs]
    text = f"One curve each for {_names(comparison)}."
    drawn = {}
    if any(value is not None for curve in curves for value in curve.recall):
        drawn["froc"] = Drawn(
            false_positives_chart(comparison), "Recall against false positives per image", text
        )  # fmt: skip
    if any(value is not None for curve in curves for value in curve.precision):
        drawn["precision"] = Drawn(precision_chart(comparison), "Precision against recall", text)
    return drawn


def _mining(comparison: Comparison) -> dict[str, Drawn]:
    mined = [arm for arm in comparison.arms if any(run.rounds for run in arm.runs)]
    if not mined:
        return {}
    numbered = _numbered(comparison, mined)
    table = "The tables below have every number."
    drawn = {"mined": Drawn(mined_chart(numbered), "False positives found and added in each round", table)}
    if any(one.acceptance for arm in mined for run in arm.runs for one in run.rounds):
        drawn["acceptance"] = Drawn(
            acceptance_chart(numbered),
            "New hard negatives per image in each round",
            table,
        )
    return drawn


def _names(comparison: Comparison) -> str:
    return ", ".join(arm.name for arm in comparison.arms)


def _numbered(comparison: Comparison, arms: list[Arm]) -> list[tuple[int, Arm]]:
    numbers = {arm.name: index for index, arm in enumerate(comparison.arms)}
    return [(numbers[arm.name], arm) for arm in arms]


def _ranked_text(comparison: Comparison, metric: ComparedMetric) -> str:
    return ", ".join(
        f"{arm.name} {metric.text(arm.estimates[metric.name].value)}"
        for arm in ranking(comparison.arms, metric)
    )
