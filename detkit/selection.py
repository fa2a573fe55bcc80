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
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torchvision.ops import nms

from detkit.labels import BACKGROUND
from detkit.models import box_coder
from detkit.negative_regions import NegativeRegions, in_sight, on_canvas, on_original
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

    def scores(self) -> Tensor:
        """The highest class score of every anchor, from 0 to 1, float32 [N, A], without gradient."""
        with torch.no_grad():
            return torch.cat([level.amax(dim=2).float() for level in self.outputs.logits], dim=1).sigmoid()

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


@runtime_checkable
class Remembering(Protocol):
    """A selection that remembers something from step to step."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, for a checkpoint."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""


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

    Online hard example mining (Shrivastava et al., 2016, section 4), by the loss of classification alone, where the
    paper ranks by all of it: an object that is easy to name is left out however badly its box lies. Suppression runs on
    the decoded boxes, as in the paper on its regions, and sees only the ``shortlist`` hardest anchors of an image.

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


@dataclass
class MinedNegatives:
    """Every positive, and the background that was mined: bootstrapping.

    Of an image that is tracked (see ``structures.Target``), the anchors on its regions count (see
    ``negative_regions``). Of a canvas of mined crops, those on its false positives, and a few by chance: all of its
    background would be thousands of easy anchors for each hard one, and bring back what mining is to cure. Of both,
    the hardest of the anchors that do not count yet are noted: those of images as regions; a canvas has its own
    memory, the crops. Of other images, as those of an unverified pool are, all background counts.

    Args:
        regions: those that count; they grow.
        initial: regions of each image drawn by chance when it is first seen, and anchors of a canvas at each step.
        per_image: anchors that one step may note of an image, the hardest.
        threshold: the least score of what is noted.
        iou: from which overlap on an anchor lies on a region; the best anchor of each region always does.
        at_once: what a step notes counts in this step already.
        generator: where chance comes from; None is torch's default one, whose state checkpoints keep.
    """

    regions: NegativeRegions
    initial: int
    per_image: int
    threshold: float
    iou: float = 0.5
    at_once: bool = True
    generator: torch.Generator | None = None

    def __call__(self, candidates: Candidates) -> Tensor:
        """Weights, float32 [N, A]."""
        counted = candidates.negative.clone()
        for key, known in (("to_canvas", self._on_regions), ("false_positives", self._on_false_positives)):
            images = [index for index, target in enumerate(candidates.targets) if key in target]
            if images:
                scores = candidates.scores()[images]
                mined = known(candidates, images, scores)
                new = self._note(candidates, images, scores.masked_fill(mined, -1))
                counted[images] &= (mined | new) if self.at_once else mined
        return (candidates.positive | counted).float()

    def state_dict(self) -> dict[str, Any]:
        """The regions."""
        return self.regions.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.regions.load_state_dict(state)

    def _on_regions(self, candidates: Candidates, images: list[int], scores: Tensor) -> Tensor:
        """Where an anchor of these images lies on one of their regions, bool [n, A]; the regions learn their scores."""
        anchors = candidates.anchors
        boxes = []
        for index in images:
            target = candidates.targets[index]
            image_id = int(target["image_id"])
            if not self.regions.knows(image_id):
                self._begin(candidates, index)
            placed = on_canvas(self.regions.of(image_id).boxes, target["to_canvas"].cpu())
            # Without area where it is out of sight, so that no anchor at the border is taken for the best of it.
            boxes.append(placed * in_sight(placed, target["size"].cpu())[:, None])
        self.regions.seen += len(images)
        matches = self._matches(anchors, boxes)
        # An object beside a region has a high score too, and is not what the region is remembered for.
        background = matches.masked_fill(~candidates.negative[images], -1)
        for index, row, values in zip(images, background.cpu(), scores.cpu(), strict=True):
            self.regions.of(int(candidates.targets[index]["image_id"])).update(row, values)
        return matches >= 0

    def _on_false_positives(self, candidates: Candidates, images: list[int], scores: Tensor) -> Tensor:
        """Where an anchor of these canvases lies on a false positive, or is one of the few by chance: bool [n, A]."""
        boxes = [candidates.targets[index]["false_positives"] for index in images]
        counting = self._matches(candidates.anchors, boxes) >= 0
        for row, index in zip(counting, images, strict=True):
            row[self._by_chance(candidates.negative[index]).to(row.device)] = True
        return counting

    def _matches(self, anchors: Tensor, boxes: list[Tensor]) -> Tensor:
        """The box of each image that an anchor lies on, int32 [n, A]; negative where on none."""
        return match_anchors(
            anchors,
            [box.to(anchors.device) for box in boxes],
            foreground_iou=self.iou,
            background_iou=self.iou,
            low_quality=True,
        )

    def _by_chance(self, background: Tensor) -> Tensor:
        """``initial`` anchors of some background, bool [A]: their rows."""
        rows = background.nonzero()[:, 0].cpu()
        return rows[torch.randperm(len(rows), generator=self.generator)[: self.initial]]

    def _begin(self, candidates: Candidates, index: int) -> None:
        target = candidates.targets[index]
        chosen = self._by_chance(candidates.negative[index] & _shows_image(candidates.anchors, target))
        boxes = on_original(candidates.anchors[chosen].cpu(), target["to_canvas"].cpu())
        self.regions.begin(int(target["image_id"]), boxes)

    def _note(self, candidates: Candidates, images: list[int], scores: Tensor) -> Tensor:
        """The hardest background anchors, remembered where the image is tracked; where they are, bool [n, A].

        Those in padding too, for a detector meets padding when it is used; but they are no place that could be
        remembered.
        """
        new = torch.zeros_like(scores, dtype=torch.bool)
        scores = scores.masked_fill(~candidates.negative[images], -1)
        values, rows = scores.topk(min(8 * self.per_image, scores.shape[1]), dim=1)
        for place, (index, image_values, image_rows) in enumerate(zip(images, values, rows, strict=True)):
            hard = image_values >= self.threshold
            chosen = image_rows[hard]
            kept = nms(candidates.anchors[chosen], image_values[hard], self.iou)[: self.per_image]
            new[place, chosen[kept]] = True
            if "to_canvas" in candidates.targets[index]:
                self._remember(candidates, index, chosen[kept], image_values[hard][kept])
        return new

    def _remember(self, candidates: Candidates, index: int, rows: Tensor, scores: Tensor) -> None:
        target = candidates.targets[index]
        shown = _shows_image(candidates.anchors[rows], target)
        if shown.any():
            boxes = on_original(candidates.anchors[rows[shown]].cpu(), target["to_canvas"].cpu())
            self.regions.note(int(target["image_id"]), boxes, scores[shown].cpu())


def _shows_image(boxes: Tensor, target: Target) -> Tensor:
    """Which boxes [B, 4] have their centre on the image, and not on padding or what augmentation filled: bool [B].

    Half of a box would be asked too much: large anchors at the border of an image show less of it than that, and fire.
    """
    size, original, to_canvas = (
        target[key].to(boxes.device) for key in ("size", "original_size", "to_canvas")
    )
    return in_sight(boxes, size) & in_sight(on_original(boxes, to_canvas), original)


def _with_top_negatives(candidates: Candidates, ranks: Tensor, ratio: float, minimum: int) -> Tensor:
    """Weights of all positives, and of the negatives with the highest ranks [N, A] up to the batch's quota."""
    positive, negative = candidates.positive, candidates.negative
    quota = max(minimum, round(ratio * int(positive.sum())))
    quota = min(quota, int(negative.sum()))
    weights = positive.float()
    chosen = ranks.masked_fill(~negative, -1).flatten().topk(quota).indices
    weights.view(-1)[chosen] = 1
    return weights
