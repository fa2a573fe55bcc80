"""Counts the logits of a detector, by how right they are."""

import numpy as np
import torch
from torch import Tensor

from detkit.evaluation.loss_shares import BINS, BINS_PER_UNIT, LIMIT, LogitCounts
from detkit.labels import IGNORE
from detkit.selection import Candidates


class LogitCounter:
    """Hand it to the criterion as ``observe``; every anchor that is not ignored counts, selected or not."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS), dtype=np.int64)

    @torch.no_grad()
    def __call__(self, candidates: Candidates, losses: Tensor) -> None:
        """Count a batch; the losses are not needed, for any gamma follows from the logits."""
        levels = candidates.outputs.logits
        for logits, labels in zip(
            levels, candidates.labels.split([level.shape[1] for level in levels], dim=1), strict=True
        ):
            counted = labels != IGNORE
            kept, of_kept = logits[counted].float(), labels[counted]
            positive = of_kept[:, None] == torch.arange(kept.shape[1], device=kept.device)
            truth = torch.where(positive, kept, -kept)
            places = ((truth + LIMIT) * BINS_PER_UNIT).floor().clamp(0, BINS - 1).long()
            for row, chosen in enumerate((positive, ~positive)):
                self._counts[row] += torch.bincount(places[chosen], minlength=BINS).cpu().numpy()

    def counts(self, about: str) -> LogitCounts:
        """All batches so far."""
        return LogitCounts(self._counts[0].copy(), self._counts[1].copy(), about)
