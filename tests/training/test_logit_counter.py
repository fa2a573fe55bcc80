"""Counting logits against a loop."""

from collections import Counter

import numpy as np
import torch

from detkit.criterion import DetectionCriterion
from detkit.evaluation.loss_shares import BINS, BINS_PER_UNIT, LIMIT
from detkit.labels import IGNORE
from detkit.selection import RandomNegatives
from detkit.structures import DenseOutputs
from detkit.training.logit_counter import LogitCounter

FINE = torch.tensor([[x, y, x + 16, y + 16] for y in range(0, 64, 8) for x in range(0, 64, 8)]).float()
COARSE = torch.tensor([[x, y, x + 32, y + 32] for y in range(0, 64, 16) for x in range(0, 64, 16)]).float()


def test_counts_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    criterion, counter = DetectionCriterion(selection=RandomNegatives(3.0, 4)), LogitCounter()
    expected, labels = (Counter(), Counter()), []
    for _ in range(2):
        logits = [20 * torch.randn(2, len(anchors), 3, generator=generator) for anchors in (FINE, COARSE)]
        deltas = [torch.zeros(2, len(anchors), 4) for anchors in (FINE, COARSE)]
        targets = [
            {"boxes": torch.tensor([[8.0, 8, 24, 24], [30, 30, 60, 60]]), "labels": torch.tensor([1, 0])},
            {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        ]

        def observe(candidates, losses):
            labels[:] = candidates.labels.tolist()
            counter(candidates, losses)

        criterion(DenseOutputs(logits, deltas, [FINE, COARSE]), targets, observe)
        for image, of_image in enumerate(torch.cat(logits, dim=1).tolist()):
            for label, of_anchor in zip(labels[image], of_image, strict=True):
                for number, logit in enumerate(of_anchor if label != IGNORE else []):
                    truth = logit if label == number else -logit
                    place = int(np.clip((truth + LIMIT) * BINS_PER_UNIT, 0, BINS - 1))
                    expected[label != number][place] += 1
    counts = counter.counts("two batches")
    for column, told in zip((counts.positives, counts.negatives), expected, strict=True):
        assert {place: int(column[place]) for place in np.flatnonzero(column)} == dict(told)
    assert counts.negatives[0] > 0  # beyond the limit
