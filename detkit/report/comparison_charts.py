"""Which charts a report has, and what each says to those who do not see it."""

from markupsafe import Markup
from matplotlib.figure import Figure

from detkit.evaluation.compared_metrics import (
    COMMON_RECALL,
    COMPARED_METRICS,
    PAIR_METRIC,
    ComparedMetric,
    false_positives_at_name,
)
from detkit.evaluation.comparison_results import Arm, Comparison, ranking
from detkit.report.comparison_plots import (
    acceptance_chart,
    difference_chart,
    false_positives_chart,
    learning_chart,
    mined_chart,
    precision_chart,
    ranking_chart,
)
from detkit.report.comparison_svg import chart_style, inline_svg


def charts(comparison: Comparison) -> dict[str, Markup]:
    """Every chart that the comparison has something for, by key, as SVG."""
    with chart_style():
        drawn = {**_of_arms(comparison), **_of_pairs(comparison)}
        return {
            key: inline_svg(figure, key=key, title=title, description=description)
            for key, (figure, title, description) in drawn.items()
        }


def _of_arms(comparison: Comparison) -> dict[str, tuple[Figure, str, str]]:
    main = COMPARED_METRICS[0]
    false_positives = next(
        metric for metric in COMPARED_METRICS if metric.name == false_positives_at_name(COMMON_RECALL)
    )
    drawn = {
        key: (
            ranking_chart(_numbered(comparison, ranking(comparison.arms, metric)), metric),
            f"Ranking of the arms by {metric.words}",
            f"From best to worst: {_ranked_text(comparison, metric)}. The table below has every number.",
        )
        for key, metric in (("ranking", main), ("ranking-fppi", false_positives))
    }
    names = ", ".join(arm.name for arm in comparison.arms)
    drawn["precision"] = (
        precision_chart(comparison),
        "Precision against recall",
        f"One curve each for {names}.",
    )
    drawn["froc"] = (
        false_positives_chart(comparison),
        "Recall against false positives per image",
        f"One curve each for {names}.",
    )
    learned = {
        name
        for arm in comparison.arms
        for run in arm.runs
        for point in run.learning
        for name in point.metrics
    }
    metric = main.name if main.name in learned else min(learned, default=None)
    if metric is not None:
        drawn["learning"] = (
            learning_chart(comparison.arms, metric),
            f"{metric} over compute",
            f"Validation {metric} on the way, one thick line each for {names}.",
        )
    mined = [arm for arm in comparison.arms if any(run.rounds for run in arm.runs)]
    if mined:
        numbered = _numbered(comparison, mined)
        table = "The tables below have every number."
        drawn["mined"] = (mined_chart(numbered), "False positives found and added in each round", table)
        if any(one.acceptance for arm in mined for run in arm.runs for one in run.rounds):
            drawn["acceptance"] = (acceptance_chart(numbered), "Share accepted in each round", table)
    return drawn


def _of_pairs(comparison: Comparison) -> dict[str, tuple[Figure, str, str]]:
    drawn = {}
    for key, metric in (("differences", COMPARED_METRICS[0]), ("differences-fppi", PAIR_METRIC)):
        measured = [
            one for one in comparison.differences if one.metric == metric.name and one.value is not None
        ]
        if measured:
            drawn[key] = (
                difference_chart(measured, metric),
                f"Differences of all pairs in {metric.words}",
                "The better arm of each pair first. The sentences beside it say the same.",
            )
    return drawn


def _numbered(comparison: Comparison, arms: list[Arm]) -> list[tuple[int, Arm]]:
    numbers = {arm.name: index for index, arm in enumerate(comparison.arms)}
    return [(numbers[arm.name], arm) for arm in arms]


def _ranked_text(comparison: Comparison, metric: ComparedMetric) -> str:
    return ", ".join(
        f"{arm.name} {metric.text(arm.estimates[metric.name].value)}"
        for arm in ranking(comparison.arms, metric)
    )
