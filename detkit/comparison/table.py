"""A comparison as Markdown."""

from detkit.evaluation.compared_metrics import COMPARED_METRICS, PAIR_METRIC, ComparedMetric
from detkit.evaluation.comparison_results import Arm, Comparison, Estimate, ranking

_SPECIAL = "\\`*_{}[]<>#|$~!&"


def markdown(comparison: Comparison) -> str:
    """The verdict, a row for each arm from best to worst, and a sentence for each pair.

    Names are untrusted: what Markdown or HTML would read as markup is escaped.
    """
    main = COMPARED_METRICS[0]
    head = ("arm", "seeds", *(metric.words for metric in COMPARED_METRICS), "minutes")
    rows = [_row(arm) for arm in ranking(comparison.arms, main)]
    lines = [
        f"## {_escaped(comparison.title)}",
        "",
        *(f"- {_escaped(sentence)}" for sentence in comparison.verdict),
        "",
        f"{comparison.images} images, {comparison.objects} objects. In brackets the 95 % interval "
        f"({_resampling(comparison)}). AP, AR and recall in points; "
        "false positives as counts per image, where less is better.",
        "",
        _cells(head),
        _cells(["---", *["---:"] * (len(head) - 1)]),
        *(_cells(row) for row in rows),
    ]
    for metric in (main, PAIR_METRIC):
        sentences = [d.sentence for d in comparison.differences if d.metric == metric.name]
        if sentences:
            title = metric.words[0].upper() + metric.words[1:]
            lines += ["", f"### {title}, pair by pair", "", *(f"- {_escaped(text)}" for text in sentences)]
    return "\n".join(lines) + "\n"


def _resampling(comparison: Comparison) -> str:
    told = comparison.resampling
    parts = "images" if told.groups is None else f"{told.groups} groups of images that are alike"
    seeds = "seeds and " if any(len(arm.runs) > 1 for arm in comparison.arms) else ""
    return f"bootstrap of {seeds}{parts}, {told.resamples} resamples"


def _row(arm: Arm) -> list[str]:
    minutes = sum(run.wall_clock for run in arm.runs) / len(arm.runs) / 60
    return [
        _escaped(arm.name),
        str(len(arm.runs)),
        *(_estimate(arm.estimates[metric.name], metric) for metric in COMPARED_METRICS),
        f"{minutes:.1f}",
    ]


def _estimate(estimate: Estimate, metric: ComparedMetric) -> str:
    if estimate.value is None:
        return "n/a"
    if estimate.low is None and estimate.high is None:
        return f"{metric.text(estimate.value)} (open)"
    ends = ("open" if end is None else metric.text(end) for end in (estimate.low, estimate.high))
    return f"{metric.text(estimate.value)} ({' to '.join(ends)})"


def _cells(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """On one line, every character with a meaning in Markdown or HTML preceded by a backslash."""
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in " ".join(text.split()))
