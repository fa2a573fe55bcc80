"""Which anchors count in the classification loss: the rows of the table of cures, next to the weighting.

Every selection takes the anchors of a batch and returns a weight for each: 1 where it counts, 0 where it does not.
IGNORE anchors never count. Any selection goes with any weighting (alpha and gamma of the criterion).

===================  ==================================================================================
none                 every anchor counts: cross entropy, balanced cross entropy and focal loss
``RandomNegatives``  every positive, and k times as many negatives by chance
``HardNegatives``    every positive, and the k times as many negatives with the highest loss (SSD)
``HardExamples``     the anchors with the highest loss after suppression of overlapping ones (OHEM)
``MinedNegatives``   every positive, and the background that was mined (bootstrapping)
===================  ==================================================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import nms

from detkit.labels import BACKGROUND
from detkit.models import box_coder
from detkit.ops import match_anchors
from detkit.structures import DenseOutputs, Target


@dataclass(frozen=True)
class Candidates:
    """The anchors of a batch, and what selections look at."""

    labels: Tensor
    """Class index, BACKGROUND or IGNORE, int32 [N, A]."""
    anchors: Tensor
    """xyxy in pixels of the canvas, float32 [A, 4]."""
    outputs: DenseOutputs
    targets: Sequence[Target]
    loss: Callable[[], Tensor]
    """Computes the classification loss of every anchor under the weighting in use, [N, A], 0 where IGNORE."""

    @cached_property
    def losses(self) -> Tensor:
        """The loss of every anchor, [N, A], without gradient."""
        with torch.no_grad():
            return self.loss()

    @property
    def positive(self) -> Tensor:
        """Where an anchor has a class, bool [N, A]."""
        return self.labels >= 0

    @property
    def negative(self) -> Tensor:
        """Where an anchor is background, bool [N, A]."""
        return self.labels == BACKGROUND


class Selection(Protocol):
    """Chooses the anchors that count."""

    def __call__(self, candidates: Candidates) -> Tensor:
        """Weights, float32 [N, A]."""


@dataclass(frozen=True)
class RandomNegatives:
    """Every positive, and negatives drawn by chance from the whole batch.

    The quota belongs to the batch: one of each image's own would leave an image without objects out.

    Args:
        ratio: negatives for each positive.
        minimum: the fewest negatives of a batch.
        generator: where chance comes from; None is the device's default one, whose state checkpoints keep.
    """

    ratio: float
    minimum: int
    generator: torch.Generator | None = None

    def __call__(self, candidates: Candidates) -> Tensor:
        """Weights, float32 [N, A]."""
        chance = torch.rand(
            candidates.labels.shape, generator=self.generator, device=candidates.labels.device
        )
        return _with_top_negatives(candidates, chance, self.ratio, self.minimum)


@dataclass(frozen=True)
class HardNegatives:
    """Every positive, and the negatives of the batch with the highest loss.

    Hard negative mining as of SSD (Liu et al., 2016, section 2.2), but with one quota for the whole batch.

    Args:
        ratio: negatives for each positive.
        minimum: the fewest negatives of a batch.
    """

    ratio: float
    minimum: int

    def __call__(self, candidates: Candidates) -> Tensor:
        """Weights, float32 [N, A]."""
        return _with_top_negatives(candidates, candidates.losses, self.ratio, self.minimum)


@dataclass(frozen=True)
class HardExamples:
    """The anchors of each image with the highest loss, positive or negative, of which none overlap much.

    Online hard example mining (Shrivastava et al., 2016, section 4). Suppression runs on the decoded boxes, as in the
    paper on its regions, and sees only the ``shortlist`` hardest anchors of an image.

    Args:
        budget: anchors of each image.
        nms_iou: of two boxes that overlap more, the one with the lower loss is left out.
        shortlist: anchors of each image that suppression is given.
    """

    budget: int
    nms_iou: float = 0.7
    shortlist: int = 2000

    def __call__(self, candidates: Candidates) -> Tensor:
        """Weights, float32 [N, A]."""
        weights = torch.zeros_like(candidates.losses, dtype=torch.float32)
        counted = candidates.positive | candidates.negative
        losses = candidates.losses.float().masked_fill(~counted, -1)
        deltas = torch.cat([level.detach() for level in candidates.outputs.deltas], dim=1)
        values, rows = losses.topk(min(self.shortlist, losses.shape[1]), dim=1)
        for image, (image_values, image_rows) in enumerate(zip(values, rows, strict=True)):
            hardest = image_rows[image_values >= 0]
            boxes = box_coder.decode(deltas[image, hardest].float(), candidates.anchors[hardest])
            kept = nms(boxes, losses[image, hardest], self.nms_iou)[: self.budget]
            weights[image, hardest[kept]] = 1
        return weights


@dataclass(frozen=True)
class MinedNegatives:
    """Every positive, and the background anchors that lie on a mined region.

    An image whose target has no ``negative_regions`` was mined as a whole, as canvases of background crops are: all its
    background counts.

    Args:
        iou: from which overlap on an anchor lies on a region; the best anchor of each region always does.
    """

    iou: float = 0.5

    def __call__(self, candidates: Candidates) -> Tensor:
        """Weights, float32 [N, A]."""
        mined = torch.stack([self._on_regions(candidates.anchors, target) for target in candidates.targets])
        return (candidates.positive | (candidates.negative & mined)).float()

    def _on_regions(self, anchors: Tensor, target: Target) -> Tensor:
        """Where an anchor lies on a mined region, bool [A]."""
        regions = target.get("negative_regions")
        if regions is None:
            return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        matches = match_anchors(
            anchors, [regions], foreground_iou=self.iou, background_iou=self.iou, low_quality=True
        )
        return matches[0] >= 0


def _with_top_negatives(candidates: Candidates, ranks: Tensor, ratio: float, minimum: int) -> Tensor:
    """Weights of all positives, and of the negatives with the highest ranks [N, A] up to the batch's quota."""
    positive, negative = candidates.positive, candidates.negative
    quota = max(minimum, round(ratio * int(positive.sum())))
    quota = min(quota, int(negative.sum()))
    weights = positive.float()
    chosen = ranks.masked_fill(~negative, -1).flatten().topk(quota).indices
    weights.view(-1)[chosen] = 1
    return weights
