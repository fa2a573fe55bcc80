"""Compute the tables of focal_loss.md, and draw its picture.

python docs/focal_loss.py           # write both anew
python docs/focal_loss.py --check   # fail where the text holds other numbers
"""

import argparse
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch

from detkit.console import run_tool, say
from detkit.errors import DataError
from detkit.evaluation.loss_shares import load_logit_counts
from detkit.files import write_text
from detkit.labels import BACKGROUND
from detkit.ops import sigmoid_focal_loss
from detkit.report.loss_pictures import (
    GAMMAS,
    focal_loss,
    focal_slope,
    loss_chart,
    shares_chart,
    shares_table,
)
from detkit.report.svg import chart_style, standing_svg

TEXT = Path(__file__).with_suffix(".md")
PICTURE = Path(__file__).with_suffix(".svg")
COUNTED = ("demo", "bloodcells-sparse")
"""Detectors whose logits tools/loss_shares.py has counted."""
COUNTS = {name: TEXT.with_name(f"loss_shares_{name}.json") for name in COUNTED}
FIGURE_4 = (0.0, 0.5, 1.0, 2.0)


def fading() -> str:
    """How much the factor leaves of the cross entropy."""
    rows = []
    for p in (0.1, 0.5, 0.9, 0.968, 0.99):
        losses = [float(focal_loss(np.float64(p), gamma=gamma)) for gamma in (0, 1, 2)]
        rows.append([f"{p:g}", *(f"{loss:.2g}" for loss in losses), f"{losses[0] / losses[2]:,.0f} times"])
    return _table(["$p_t$", "cross entropy", "$\\gamma = 1$", "$\\gamma = 2$", "less at $\\gamma = 2$"], rows)


def stability() -> str:
    """The formula as it is often written, in single precision, against the op and the exact value."""
    logits = torch.tensor([-60.0, -20.0, -5.0, 5.0, 20.0, 100.0])
    p = torch.sigmoid(logits)
    naive = -(p**2) * torch.log(1 - p)
    labels = torch.full((1, len(logits)), BACKGROUND, dtype=torch.int32)
    ours = sigmoid_focal_loss(logits.view(1, -1, 1), labels, alpha=None, gamma=2.0)[0]
    rows = [
        [f"{x:g}", *(f"{value + 0.0:.3g}" for value in (_exact(x), written, given))]
        for x, written, given in zip(logits.tolist(), naive.tolist(), ours.tolist(), strict=True)
    ]
    return _table(["logit", "exact", "as written", "the op"], rows)


def prior() -> str:
    """Loss and gradient of the first step, without and with the prior."""
    negatives, positives = 100_000, 100
    rows = []
    for p in (0.5, 0.01):
        for name, gamma, alpha in (("cross entropy", 0.0, None), ("focal loss", 2.0, 0.25)):
            of_positive, of_negative = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
            loss = negatives * focal_loss(np.float64(1 - p), gamma=gamma, alpha=of_negative)
            pull = negatives * -focal_slope(np.float64(1 - p), gamma=gamma, alpha=of_negative)
            push = positives * -focal_slope(np.float64(p), gamma=gamma, alpha=of_positive)
            rows.append([f"{p:g}", name, _short(loss), _short(pull), _short(push), _short(pull / push)])
    header = ["$p$ of all", "loss", "loss of negatives", "their gradient", "that of positives", "ratio"]
    return _table(header, rows)


def _exact(logit: float) -> float:
    """In double precision, by the form that loses nothing."""
    softplus = max(logit, 0.0) + math.log1p(math.exp(-abs(logit)))
    p = 1 / (1 + math.exp(-logit)) if logit > 0 else math.exp(logit) / (1 + math.exp(logit))
    return p**2 * softplus


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shares() -> str:
    """Where the loss of trained detectors comes from (Figure 4 of the paper)."""
    rows = []
    for name in COUNTED:
        _, columns, lines = shares_table(load_logit_counts(COUNTS[name]), FIGURE_4)
        rows += [[name, *line] for line in lines]
    return _table(["detector", *columns], rows)


TABLES = {"fading": fading, "stability": stability, "prior": prior, "shares": shares}


def with_tables(text: str) -> str:
    """The text with each table computed."""
    for name, table in TABLES.items():
        place = re.compile(f"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        text, places = place.subn(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", text)
        if places != 1:
            raise DataError(f"{TEXT}: {places} places for the table {name!r}; there must be one")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where numbers differ"
    )
    arguments = parser.parse_args()
    text = TEXT.read_text(encoding="utf-8")
    computed = with_tables(text)
    if arguments.check:
        return 0 if computed == text else 1
    write_text(TEXT, computed)
    with chart_style():
        write_text(PICTURE, standing_svg(loss_chart(GAMMAS)))
        shown = standing_svg(shares_chart(load_logit_counts(COUNTS["demo"]), FIGURE_4))
        write_text(TEXT.with_name("loss_shares.svg"), shown)
    say(f"{TEXT}, {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
