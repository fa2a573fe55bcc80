"""Pictures of the focal loss itself: what it is made of, over the probability that is given to the truth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detkit.evaluation.loss_shares import LogitCounts, Sign
from detkit.report.colours import MUTED, line_colour, line_dash

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Those of the paper's Figure 1."""
SIGNS: tuple[Sign, ...] = ("positives", "negatives")
HARDEST: tuple[tuple[Sign, float], ...] = (
    ("positives", 0.2),
    ("negatives", 0.2),
    ("negatives", 0.01),
    ("negatives", 0.0001),
)
"""What is said of the hardest: the paper's 20 % of the positives, and ever fewer negatives."""


def focal_loss(p: np.ndarray, *, gamma: float, alpha: float = 1.0) -> np.ndarray:
    """-alpha (1 - p)^gamma log(p) (Lin et al., 2017, equation 5), p being the probability given to the truth."""
    return -alpha * (1 - p) ** gamma * np.log(p)


def focal_slope(p: np.ndarray, *, gamma: float, alpha: float = 1.0) -> np.ndarray:
    """Its derivative by the truth's logit: alpha (1 - p)^gamma (gamma p log(p) + p - 1) (appendix B)."""
    return alpha * (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1)


def loss_chart(gammas: Sequence[float] = GAMMAS, *, alpha: float | None = None) -> Figure:
    """Cross entropy, what the factor makes of it, and the gradient, each over p.

    Draw it within ``svg.chart_style``.

    Args:
        gammas: a line for each.
        alpha: of the positives, drawn for them; the negatives' lines are those times (1 - alpha) / alpha. None leaves
            it out.
    """
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    p = np.linspace(0.002, 0.998, 499)
    weight = 1.0 if alpha is None else alpha
    for number, gamma in enumerate(gammas):
        style = {"color": line_colour(number), "linestyle": line_dash(number), "linewidth": 1.8}
        loss = focal_loss(p, gamma=gamma, alpha=weight)
        panels[0, 0].plot(p, (1 - p) ** gamma, **style)
        panels[0, 1].plot(p, loss, label=f"gamma {gamma:g}", **style)
        panels[1, 0].plot(p, loss, **style)
        panels[1, 1].plot(p, -focal_slope(p, gamma=gamma, alpha=weight), **style)
    _title(panels[0, 0], "The factor, (1 - p)^gamma")
    _title(panels[0, 1], "The loss: the factor times -log p")
    _title(panels[1, 0], "The same on a logarithmic scale")
    _title(panels[1, 1], "The gradient's size, by the logit")
    panels[0, 1].set_ylim(0, 5 * weight)
    panels[1, 0].set_yscale("log")
    panels[1, 0].yaxis.set_major_formatter("{x:g}")
    panels[1, 0].set_ylim(1e-4 * weight, 10 * weight)
    panels[0, 1].legend(frameon=False)
    for axes in panels[1]:
        axes.set_xlabel("p, the probability given to the truth")
    panels[0, 0].set_xlim(0, 1)
    return figure


def shares_chart(counts: LogitCounts, gammas: Sequence[float]) -> Figure:
    """Cumulative loss over the samples, the easiest first: positives and negatives for themselves (Figure 4).

    Draw it within ``svg.chart_style``.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, sign in zip(figure.subplots(1, 2, sharey=True), SIGNS, strict=True):
        for number, gamma in enumerate(gammas):
            samples, losses = counts.cumulative(sign, gamma)
            style = {"color": line_colour(number), "linestyle": line_dash(number), "linewidth": 1.8}
            axes.plot(samples, losses, label=f"gamma {gamma:g}", **style)
        axes.set_title(f"{sign.capitalize()}: {getattr(counts, sign).sum():,}", fontsize=11, loc="left")
        axes.set_xlabel("share of them, the easiest first")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.01)
    figure.axes[0].set_ylabel("share of their loss")
    figure.axes[0].legend(frameon=False)
    return figure


def shares_table(counts: LogitCounts, gammas: Sequence[float]) -> tuple[str, list[str], list[list[str]]]:
    """How much of the loss the hardest samples hold: title, columns and rows."""
    columns = ["gamma"] + [f"{share:.2%} of {sign}".replace(".00", "") for sign, share in HARDEST]
    rows = [
        [f"{gamma:g}", *(f"{counts.hardest(share, sign, gamma):.1%}" for sign, share in HARDEST)]
        for gamma in gammas
    ]
    return "Share of the loss in the hardest", columns, rows


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=11, loc="left")
    axes.axvspan(0.6, 1, color=MUTED, alpha=0.08, linewidth=0)  # what is well classified, as in the paper
