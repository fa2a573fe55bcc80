"""Whether a run was too short, too long, or learned nothing: a verdict on the curves of its metrics.jsonl."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

LEAST_VALIDATIONS = 3
LEARNED = 0.02
"""A run whose metric never got here learned nothing."""
RISE = 1.08
"""Overfitting: so many times its least is the validation loss at the end. Validation sets are small, and half of that
is chance."""
GAIN = 0.01
"""Of the metric since then, with which it is no overfitting: the detector is surer of its mistakes, and better."""
LAST_PART, FALL, CLIMB = 0.25, 0.75, 0.05
"""Still falling: in the last quarter of the run the validation loss fell below three quarters of what it was, and the
metric grew by more than a twentieth of its best."""
ANNEALED, ANNEALED_FALL = 0.1, 0.6
"""The same where the learning rate ends below a tenth of its highest: that alone lets a healthy run fall to 0.7."""


@dataclass(frozen=True)
class Fitting:
    """What the curves say."""

    verdict: Literal["never learned", "overfitting", "still falling", "settled"]
    epoch: float
    """From which on it is so; where it settled, the one with the best metric."""
    sentence: str
    """With the numbers, and what to do."""


def fitting(rows: Sequence[dict[str, Any]], *, metric: str = "AP") -> Fitting | None:
    """Read the curves of a run; None with too few validations to say anything.

    Args:
        rows: the parsed lines of metrics.jsonl.
        metric: of the validation rows, higher is better.
    """
    measured = [
        row
        for row in rows
        if row.get("event") == "validate" and _number(row, "loss") and _number(row, metric)
    ]
    if len(measured) < LEAST_VALIDATIONS:
        return None
    epochs, losses, metrics = (
        np.array([row[name] for row in measured], dtype=float) for name in ("epoch", "loss", metric)
    )
    best = int(metrics.argmax())
    if metrics[best] < LEARNED:
        return Fitting(
            "never learned",
            epochs[0],
            f"never learned: the best {metric} is {metrics[best]:.3f}; look at the learning rate, the anchors and the "
            "labels (tools/check_data.py)",
        )
    return (
        _overfitting(rows, epochs, losses, metrics)
        or _still_falling(rows, epochs, losses, metrics)
        or Fitting("settled", epochs[best], f"best {metric} {metrics[best]:.3f} at epoch {epochs[best]:g}")
    )


def _overfitting(
    rows: Sequence[dict[str, Any]], epochs: np.ndarray, losses: np.ndarray, metrics: np.ndarray
) -> Fitting | None:
    least = int(losses.argmin())
    later = losses[least + 1 :]
    if len(later) < 2 or later[-2:].min() < RISE * losses[least]:
        return None
    before, after = _training_loss(rows, epochs[least]), _training_loss(rows, epochs[-1])
    if not after < before or metrics[-1] > metrics[least] + GAIN:
        return None
    sentence = (
        f"overfitting since epoch {epochs[least]:g}: the validation loss rose from {losses[least]:.3g} to "
        f"{losses[-1]:.3g} while that of training fell from {before:.3g} to {after:.3g}; train for fewer epochs, "
        "augment more, or take best.pt"
    )
    return Fitting("overfitting", epochs[least], sentence)


def _still_falling(
    rows: Sequence[dict[str, Any]], epochs: np.ndarray, losses: np.ndarray, metrics: np.ndarray
) -> Fitting | None:
    since = (1 - LAST_PART) * epochs[-1]
    before, reached = (float(np.interp(since, epochs, values)) for values in (losses, metrics))
    climbed = metrics[-1] - reached > CLIMB * metrics.max()
    rates = [row["learning_rate"] for row in rows if _number(row, "learning_rate")]
    annealed = bool(rates) and rates[-1] < ANNEALED * max(rates)
    if epochs[0] > since or losses[-1] > (ANNEALED_FALL if annealed else FALL) * before or not climbed:
        return None
    sentence = (
        f"still falling: the validation loss went from {before:.3g} to {losses[-1]:.3g} since epoch {since:.3g}; train "
        "for more epochs, or with a higher learning rate"
    )
    return Fitting("still falling", since, sentence)


def _training_loss(rows: Sequence[dict[str, Any]], epoch: float) -> float:
    """The mean over the training rows of the tenth of the run before an epoch; the nearest row, if there is none."""
    train = [row for row in rows if row.get("event") == "train" and _number(row, "loss")]
    if not train:
        return math.nan
    width = train[-1]["epoch"] / 10
    near = [row["loss"] for row in train if epoch - width < row["epoch"] <= epoch]
    return float(np.mean(near)) if near else min(train, key=lambda row: abs(row["epoch"] - epoch))["loss"]


def _number(row: dict[str, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, (int, float)) and math.isfinite(value)
