"""The report of a search: one HTML file that holds everything, made from search.json and test.json."""

from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from detkit.evaluation.number_texts import points, value_text
from detkit.evaluation.search_results import (
    SEARCH_FILE,
    TEST_FILE,
    Search,
    SearchTrial,
    TestScore,
    best_trial,
    cost_front,
    is_near,
    read_search,
    read_test_score,
    smaller_trial,
)
from detkit.files import write_text
from detkit.report.colours import css_variables
from detkit.report.page import page_environment
from detkit.report.search_plots import (
    cost_chart,
    curves_chart,
    history_chart,
    importance_chart,
    slice_chart,
)
from detkit.report.svg import chart_style, inline_svg


def write_search_report(folder: str | PathLike) -> Path:
    """Make report.html in a search's folder, from search.json, and test.json where it is.

    The file needs nothing else: no network, no script, no other file. Names are untrusted and escaped, and a content
    security policy forbids the page to load anything.

    Returns:
        Where the report is.

    Raises:
        DataError: a file cannot be read.
    """
    folder = Path(folder)
    score = folder / TEST_FILE
    text = render_search(
        read_search(folder / SEARCH_FILE), read_test_score(score) if score.exists() else None
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


def render_search(search: Search, score: TestScore | None) -> str:
    """The report as text; without a score nothing of it speaks of test but to say that there is none yet."""
    environment = page_environment()
    environment.filters |= {"value_text": value_text, "points": points, "giga": giga}
    winner = best_trial(search.trials)
    return environment.get_template("search.html").render(
        search=search,
        score=score,
        winner=winner,
        smaller=_smaller(search, winner),
        front=[_front_row(one, winner) for one in cost_front(search.trials)] if winner else [],
        one_cost=len({one.cost.flops for one in search.trials if one.cost}) < 2,
        counts={
            state: sum(one.state == state for one in search.trials)
            for state in ("complete", "pruned", "failed", "running")
        },
        charts=_charts(search),
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
    )


def giga(value: float) -> str:
    """FLOPs in thousands of millions."""
    return f"{value / 1e9:.3g}"


def _smaller(search: Search, winner: SearchTrial | None) -> dict[str, Any] | None:
    chosen = smaller_trial(search.trials)
    if chosen is None or winner is None:
        return None
    return {**_front_row(chosen, winner), "near": is_near(chosen, winner)}


def _front_row(trial: SearchTrial, winner: SearchTrial) -> dict[str, Any]:
    """A trial beside the winner."""
    share = trial.cost.flops / winner.cost.flops if winner.cost and trial.cost else 1.0
    return {"trial": trial, "share": share, "loss": (winner.value or 0.0) - (trial.value or 0.0)}


def _charts(search: Search) -> dict[str, Markup]:
    """Every chart that the search has something for, by key, as SVG."""
    metric = search.metric
    measured = [one for one in search.trials if one.value is not None]
    drawn: dict[str, tuple[Figure, str, str]] = {}
    if not measured:
        return {}
    with chart_style():
        table = "The table of all trials below has every number."
        drawn["history"] = (history_chart(search), f"{metric} of each trial", table)
        drawn["curves"] = (curves_chart(search), f"{metric} of each trial, epoch by epoch", table)
        known = [one for one in search.parameters if one.importance is not None]
        if len(known) > 1:
            text = ", ".join(f"{one.name} {100 * (one.importance or 0.0):.0f} %" for one in known)
            drawn["importance"] = (importance_chart(known), "Importance of each range", text)
        for place, one in enumerate(search.parameters):
            drawn[f"slice-{place}"] = (slice_chart(search, one), f"{metric} against {one.name}", table)
        if len(cost_front(search.trials)) and len({one.cost for one in measured}) > 1:
            drawn["cost"] = (cost_chart(search), f"{metric} against the cost of the model", table)
        return {
            key: inline_svg(figure, key=key, title=title, description=description)
            for key, (figure, title, description) in drawn.items()
        }
