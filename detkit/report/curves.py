"""The course of a training run, drawn from the rows of its metrics.jsonl."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detkit.files import written_whole
from detkit.report.fitting import fitting

_TRAINING, _VALIDATION, _SECOND = "#1f77b4", "#d95f02", "#1b9e77"

Rows = Sequence[dict[str, Any]]


def training_curves(rows: Rows, path: str | PathLike, *, metric: str = "AP") -> None:
    """Write a PNG with losses, AP and AP50, and learning rate over epochs; ``metric`` chooses the best epoch.

    Args:
        rows: the parsed lines of metrics.jsonl; those with event "train" and "validate" are drawn. A value
            that is missing, None or not finite leaves a gap.
        path: of the PNG, which is written whole or not at all.
    """
    figure = draw_curves(rows, metric=metric)
    with written_whole(path) as partial:
        FigureCanvasAgg(figure).print_png(partial)


def draw_curves(rows: Rows, *, metric: str = "AP") -> Figure:
    """The figure that ``training_curves`` writes: three panels above one another, and what ``fitting`` says of them."""
    train = [row for row in rows if row.get("event") == "train"]
    validate = [row for row in rows if row.get("event") == "validate"]
    figure = Figure(figsize=(8, 8.5), dpi=120, layout="constrained")
    losses, metrics, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.3))
    _draw_losses(losses, train, validate)
    _draw_metrics(metrics, validate, metric)
    _draw_rate(rate, train)
    best, fit = best_row(validate, metric), fitting(rows, metric=metric)
    if fit is not None and fit.verdict != "settled":
        losses.set_title(fit.sentence.partition(";")[0], fontsize=10, loc="left")
    for axes in (losses, metrics, rate):
        axes.grid(color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if best is not None:
            axes.axvline(best["epoch"], color="0.35", linewidth=1, linestyle="--", zorder=1)
    rate.set_xlabel("epoch")
    rate.set_xlim(left=0)
    return figure


def best_row(validate: Rows, metric: str) -> dict[str, Any] | None:
    """The first validation row with the highest value of ``metric``; None where no row has one."""
    measured = [row for row in validate if math.isfinite(_number(row.get(metric)))]
    return max(measured, key=lambda row: row[metric]) if measured else None


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over about a tenth of the values, leaving out what is not finite; [R]."""
    if len(values) == 0:
        return values
    window = np.hanning(2 * max(1, len(values) // 10) + 3)
    finite = np.isfinite(values)
    half = len(window) // 2
    sums, weights = (
        np.convolve(np.pad(series, half), window, mode="valid")
        for series in (np.where(finite, values, 0.0), finite.astype(float))
    )
    return np.divide(sums, weights, out=np.full(len(values), np.nan), where=finite & (weights > 0))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _series(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values, [R] each."""
    epochs = np.array([_number(row.get("epoch")) for row in rows])
    return epochs, np.array([_number(row.get(name)) for row in rows])


def _draw_losses(axes: Axes, train: Rows, validate: Rows) -> None:
    epochs, values = _series(train, "loss")
    smoothed = smooth(values)
    axes.plot(epochs, values, color=_TRAINING, alpha=0.3, linewidth=1)
    axes.plot(epochs, smoothed, color=_TRAINING, linewidth=2, label="training, smoothed")
    val_epochs, val_values = _series(validate, "loss")
    if np.isfinite(val_values).any():
        axes.plot(val_epochs, val_values, color=_VALIDATION, linewidth=2, marker="o", markersize=4,
                  label="validation")  # fmt: skip
    finite, val_finite = values[np.isfinite(values)], val_values[np.isfinite(val_values)]
    if len(finite) or len(val_finite):
        # A first batch or a spike may be many times the rest: it must not set the scale.
        usual = np.percentile(finite, 95) if len(finite) else 0.0
        axes.set_ylim(0, 1.2 * max(usual, *val_finite, 1e-6))
        axes.legend(frameon=False, loc="upper right")
    axes.set_ylabel("loss")


def _draw_metrics(axes: Axes, validate: Rows, metric: str) -> None:
    best = best_row(validate, metric)
    for name, colour in (("AP", _VALIDATION), ("AP50", _SECOND)):
        epochs, values = _series(validate, name)
        if np.isfinite(values).any():
            axes.plot(epochs, values, color=colour, linewidth=2, marker="o", markersize=4, label=name)
            last = np.flatnonzero(np.isfinite(values))[-1]
            axes.annotate(f"{values[last]:.3f}", (epochs[last], values[last]), xytext=(6, 0),
                          textcoords="offset points", va="center", color=colour, annotation_clip=False)  # fmt: skip
    if best is None:
        axes.text(0.5, 0.5, "nothing validated yet", transform=axes.transAxes, ha="center", color="0.5")
    else:
        axes.set_title(
            f"best {metric} {best[metric]:.3f} at epoch {best['epoch']:g}", fontsize=10, loc="left"
        )
        axes.legend(frameon=False, loc="lower right")
    axes.set_ylim(0, 1)
    axes.set_ylabel("validation")


def _draw_rate(axes: Axes, train: Rows) -> None:
    epochs, values = _series(train, "learning_rate")
    axes.plot(epochs, values, color="0.35", linewidth=1.5)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
