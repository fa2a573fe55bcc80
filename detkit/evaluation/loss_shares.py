"""Which samples the loss of a trained detector comes from, for any gamma (focal loss paper, Figure 4).

A sample is a class of an anchor; its truth's logit is the logit where the anchor shows that class, and the logit turned
where it does not. The loss falls with it, so that counts over bins of it are all that is needed.

The file, format version 1, is an object of JSON: ``format`` ("detkit loss shares"), ``format_version``, ``about`` (what
was counted, for people), ``positives`` and ``negatives``, the counts of the bins from ``first`` on.
Bin b holds the truth's logits from b / 32 to (b + 1) / 32.
"""

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from detkit.errors import DataError
from detkit.files import read_json, write_json

FORMAT = "detkit loss shares"
FORMAT_VERSION = 1
BINS_PER_UNIT = 32
LIMIT = 40
"""Logits beyond it are counted as this."""
BINS = 2 * LIMIT * BINS_PER_UNIT

Sign = Literal["positives", "negatives"]


@dataclass(frozen=True)
class LogitCounts:
    """How many samples there are by the truth's logit."""

    positives: np.ndarray
    """int64 [BINS], from -LIMIT to LIMIT."""
    negatives: np.ndarray
    """The same of the others."""
    about: str = ""

    def losses(self, sign: Sign, gamma: float) -> np.ndarray:
        """The loss of all samples of each bin together, as far as gamma shapes it: float64 [BINS]."""
        middles = (np.arange(BINS) + 0.5) / BINS_PER_UNIT - LIMIT
        wrong = 1 / (1 + np.exp(middles))  # the probability that is not given to the truth
        return getattr(self, sign) * wrong**gamma * np.logaddexp(0, -middles)

    def cumulative(self, sign: Sign, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the easiest samples in all of them, and in the loss: float64 [BINS + 1] each."""
        counts, losses = getattr(self, sign)[::-1], self.losses(sign, gamma)[::-1]
        return _rising(counts), _rising(losses)

    def hardest(self, share: float, sign: Sign, gamma: float) -> float:
        """The share in the loss of this share of the samples, the hardest."""
        samples, losses = self.cumulative(sign, gamma)
        return 1 - float(np.interp(1 - share, samples, losses))

    def save(self, path: str | os.PathLike) -> None:
        """Write the file, whole or not at all."""
        used = np.flatnonzero(self.positives + self.negatives)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        tree = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "about": self.about,
            "first": first - LIMIT * BINS_PER_UNIT,
            "positives": self.positives[first:last].tolist(),
            "negatives": self.negatives[first:last].tolist(),
        }
        write_json(path, tree, indent=None)


def load_logit_counts(path: str | os.PathLike) -> LogitCounts:
    """Read what ``LogitCounts.save`` wrote.

    Raises:
        DataError: the file cannot be used.
    """
    tree = read_json(path)
    try:
        if (tree["format"], tree["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("another format")
        columns = []
        for sign in ("positives", "negatives"):
            column = np.zeros(BINS, dtype=np.int64)
            column[tree["first"] + LIMIT * BINS_PER_UNIT + np.arange(len(tree[sign]))] = tree[sign]
            columns.append(column)
        return LogitCounts(columns[0], columns[1], str(tree["about"]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise DataError(
            f"{path}: is no file of loss shares of format version {FORMAT_VERSION}; count again (tools/loss_shares.py)"
        ) from None


def _rising(values: np.ndarray) -> np.ndarray:
    """Cumulative shares from 0 to 1; all 0 where there is nothing."""
    sums = np.append(0.0, np.cumsum(values, dtype=np.float64))
    return sums / sums[-1] if sums[-1] else sums
