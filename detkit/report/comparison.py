"""The report of a comparison: one HTML file that holds everything, made from results.json and its pictures."""

from collections.abc import Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detkit.evaluation.compared_metrics import COMPARED_METRICS, PAIR_METRIC
from detkit.evaluation.comparison_results import (
    EQUAL_COMPUTE,
    Arm,
    Comparison,
    hardest_of_images,
    off_mean_compute,
    ranking,
    read_comparison,
)
from detkit.files import write_text
from detkit.report.colours import css_classes, css_variables, line_class, line_key
from detkit.report.comparison_charts import charts
from detkit.report.comparison_highlights import highlights, interval
from detkit.report.comparison_pictures import ENLARGED, DrawnPicture, crop_uri, drawn_picture
from detkit.report.page import page_environment

GALLERY, ALL_GALLERIES = 12, 36
"""Crops that are shown of each arm, the hardest, and of all arms together."""


def write_report(folder: str | PathLike, path: str | PathLike | None = None) -> Path:
    """Make report.html from a comparison's folder.

    The file needs nothing else: no network, no script, no other file. File, class and arm names are untrusted and
    escaped, and a content security policy forbids the page to load anything.

    Args:
        folder: with results.json and the pictures that it names.
        path: of the report; report.html in the folder if not given.

    Returns:
        Where the report is.

    Raises:
        DataError: results.json cannot be read, or a picture is missing, outside the folder or no picture.
    """
    folder = Path(folder)
    path = folder / "report.html" if path is None else Path(path)
    write_text(path, render(read_comparison(folder / "results.json"), folder))
    return path


def render(comparison: Comparison, folder: Path) -> str:
    """The report as text; pictures are read from ``folder``."""
    numbers = {arm.name: index for index, arm in enumerate(comparison.arms)}
    template = page_environment().get_template("comparison.html")
    return template.render(
        comparison=comparison,
        keys={name: line_key(index) for name, index in numbers.items()},
        line_classes={name: line_class(index) for name, index in numbers.items()},
        highlights=highlights(comparison),
        charts=charts(comparison),
        columns=[
            list(group) for _, group in groupby(COMPARED_METRICS, key=lambda one: one.group or one.words)
        ],
        table=_metrics_table(comparison),
        families=_families(comparison),
        equal_compute=_equal_compute(comparison),
        several_seeds=max(len(arm.runs) for arm in comparison.arms) > 1,
        compute=[_compute_row(arm) for arm in comparison.arms],
        mining=_mining(comparison, folder),
        pictures=_pictures(comparison, folder),
        enlarged=ENLARGED,
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        arm_rules=Markup(css_classes()),
    )


def _metrics_table(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each arm from best to worst; a cell has value, interval and whether it is the best."""
    ranked = ranking(comparison.arms, COMPARED_METRICS[0])
    best = {
        metric.name: ranking(ranked, metric)[0].estimates[metric.name].value if len(ranked) > 1 else None
        for metric in COMPARED_METRICS
    }
    return [{"name": arm.name, "seeds": len(arm.runs), "cells": _cells(arm, best)} for arm in ranked]


def _cells(arm: Arm, best: dict[str, float | None]) -> list[tuple[str, str, bool]]:
    cells = []
    for metric in COMPARED_METRICS:
        value = arm.estimates[metric.name].value
        is_best = value is not None and value == best[metric.name]
        cells.append((metric.text(value), interval(arm, metric), is_best))
    return cells


def _families(comparison: Comparison) -> list[dict[str, Any]]:
    """The differences by metric: those of the main metric and of the pairs' own first."""
    order = [COMPARED_METRICS[0], PAIR_METRIC, *COMPARED_METRICS[1:]]
    found = [
        {
            "name": metric.name,
            "words": metric.words + (" at equal recall" if metric is PAIR_METRIC else ""),
            "differences": [one for one in comparison.differences if one.metric == metric.name],
        }
        for metric in order
    ]
    return [family for family in found if family["differences"]]


def _compute_row(arm: Arm) -> dict[str, Any]:
    """Means over the runs: each part's compute, all of it, and minutes."""
    parts = sorted({part for run in arm.runs for part in run.compute}, key=lambda part: part != "training")
    means = {part: _mean([run.compute.get(part, 0.0) for run in arm.runs]) for part in parts}
    total = sum(means.values())
    return {
        "name": arm.name,
        "runs": len(arm.runs),
        "total": total,
        "parts": [(part, mean, mean / total if total else 0.0) for part, mean in means.items() if mean],
        "minutes": _mean([run.wall_clock for run in arm.runs]) / 60,
    }


def _equal_compute(comparison: Comparison) -> bool:
    farthest = off_mean_compute(comparison.arms)
    return farthest is not None and abs(farthest[2]) < EQUAL_COMPUTE


def _mining(comparison: Comparison, folder: Path) -> list[dict[str, Any]]:
    """Of each arm that mined: every round of every seed, and the hardest crop of each image with its picture."""
    mined = [arm for arm in comparison.arms if any(run.rounds or run.hardest for run in arm.runs)]
    rows = []
    for arm in mined:
        crops = [crop for run in arm.runs for crop in run.hardest]
        hardest = hardest_of_images(crops, lambda crop: crop.source)
        count = min(GALLERY, max(1, ALL_GALLERIES // len(mined)))
        rows.append(
            {
                "name": arm.name,
                "rounds": [(run.seed, one) for run in arm.runs for one in run.rounds],
                "crops": [(crop, crop_uri(folder, crop.picture)) for crop in hardest[:count]],
            }
        )
    return rows


def _pictures(comparison: Comparison, folder: Path) -> list[DrawnPicture]:
    runs = {(arm.name, run.seed): run.curves.highest_recall for arm in comparison.arms for run in arm.runs}
    at_most = {}
    for panel in (panel for picture in comparison.pictures for panel in picture.panels):
        highest = runs.get((panel.arm, panel.seed))
        if highest is not None and highest < (comparison.picture_recall or 0):
            at_most[panel.arm] = highest
    return [
        drawn_picture(folder, picture, number, at_most)
        for number, picture in enumerate(comparison.pictures, 1)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
