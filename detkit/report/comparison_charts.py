"""Which charts a report has, and what each says to those who do not see it."""

from markupsafe import Markup
from matplotlib.figure import Figure

from detkit.evaluation.compared_metrics import PAIR_METRIC, ComparedMetric
from detkit.evaluation.comparison_results import Arm, Comparison, ranking
from detkit.report.comparison_highlights import FALSE_POSITIVES, RANKED_BY
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

Drawn = tuple[Figure, str, str]
"""A figure, its title and its description."""


def charts(comparison: Comparison) -> dict[str, Markup]:
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
            key: inline_svg(figure, key=key, title=title, description=description)
            for key, (figure, title, description) in drawn.items()
        }


def _rankings(comparison: Comparison) -> dict[str, Drawn]:
    return {
        key: (
            ranking_chart(_numbered(comparison, ranking(comparison.arms, metric)), metric),
            f"Ranking of the arms by {metric.words}",
            f"From best to worst: {_ranked_text(comparison, metric)}. The table below has every number.",
        )
        for key, metric in (("ranking", RANKED_BY), ("ranking-fppi", FALSE_POSITIVES))
        if any(arm.estimates[metric.name].value is not None for arm in comparison.arms)
    }


def _differences(comparison: Comparison) -> dict[str, Drawn]:
    numbers = {arm.name: index for index, arm in enumerate(comparison.arms)}
    drawn = {}
    for key, metric in (("differences", RANKED_BY), ("differences-fppi", PAIR_METRIC)):
        measured = [
            one for one in comparison.differences if one.metric == metric.name and one.value is not None
        ]
        if measured:
            drawn[key] = (
                difference_chart(measured, metric, numbers),
                f"Differences of all pairs in {metric.words}",
                "The better arm of each pair first. The sentences below it say the same.",
            )
    return drawn


def _learning(comparison: Comparison) -> dict[str, Drawn]:
    points = [point for arm in comparison.arms for run in arm.runs for point in run.learning]
    learned = {name for point in points for name, value in point.metrics.items() if value is not None}
    metric = RANKED_BY.name if RANKED_BY.name in learned else min(learned, default=None)
    if metric is None:
        return {}
    text = f"Validation {metric} on the way, one thick line each for {_names(comparison)}."
    return {"learning": (learning_chart(comparison.arms, metric), f"{metric} over compute", text)}


def _curves(comparison: Comparison) -> dict[str, Drawn]:
    curves = [run.curves for arm in comparison.arms for run in arm.runs]
    text = f"One curve each for {_names(comparison)}."
    drawn = {}
    if any(value is not None for curve in curves for value in curve.recall):
        drawn["froc"] = (
            false_positives_chart(comparison), "Recall against false positives per image", text
        )  # fmt: skip
    if any(value is not None for curve in curves for value in curve.precision):
        drawn["precision"] = (precision_chart(comparison), "Precision against recall", text)
    return drawn


def _mining(comparison: Comparison) -> dict[str, Drawn]:
    mined = [arm for arm in comparison.arms if any(run.rounds for run in arm.runs)]
    if not mined:
        return {}
    numbered = _numbered(comparison, mined)
    table = "The tables below have every number."
    drawn = {"mined": (mined_chart(numbered), "False positives found and added in each round", table)}
    if any(one.acceptance for arm in mined for run in arm.runs for one in run.rounds):
        drawn["acceptance"] = (
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
