"""From dense outputs and objects to losses: match the anchors, label them, select and weigh them.

The classification loss is one fused op for every selection and weighting (``detkit.ops.sigmoid_focal_loss``): weight 0
leaves an anchor out, gamma 0 is cross entropy, an alpha balances it, gamma fades the easy anchors out. IGNORE rows
count for nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from detkit.boxes import intersection_over_first
from detkit.labels import BACKGROUND, IGNORE
from detkit.models import box_coder
from detkit.ops import match_anchors, sigmoid_focal_loss
from detkit.selection import Candidates, Remembering, Selection
from detkit.structures import DenseOutputs, Detections, ImageBatch, Target

CROWD_COVER = 0.5
"""An anchor of which a crowd covers at least this share is neither object nor background."""


class DetectionCriterion(nn.Module):
    """The losses of RetinaNet (focal loss paper, sections 3 and 4), with any alpha and gamma.

    Both losses are sums over the batch divided by its number of positive anchors (at least one), over all
    processes: an image without objects then weighs no more than one with many.

    Args:
        alpha: weight of positives, 1 - alpha that of negatives; None leaves both at 1.
        gamma: focusing parameter, 0 for cross entropy.
        box: ``smooth_l1`` on encoded boxes or ``giou`` on decoded ones.
        box_beta: where smooth L1 turns from square to straight; 0 is plain L1.
        box_weight: factor of the box loss.
        foreground_iou, background_iou, low_quality: see ``detkit.ops.match_anchors``.
        selection: which anchors count (see ``detkit.selection``), None for all. A positive that is not selected has
            no box loss either, but belongs to the number that the losses are divided by.
    """

    def __init__(
        self,
        *,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        box: Literal["smooth_l1", "giou"] = "smooth_l1",
        box_beta: float = 0.0,
        box_weight: float = 1.0,
        foreground_iou: float = 0.5,
        background_iou: float = 0.4,
        low_quality: bool = True,
        selection: Selection | None = None,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.box = box
        self.box_beta = box_beta
        self.box_weight = box_weight
        self.foreground_iou = foreground_iou
        self.background_iou = background_iou
        self.low_quality = low_quality
        self.selection = selection

    def forward(
        self,
        outputs: DenseOutputs,
        targets: Sequence[Target],
        observe: Callable[[Candidates, Tensor], None] | None = None,
    ) -> dict[str, Tensor]:
        """Scalar float32 losses ``classification`` and ``box``; their sum is what to minimise.

        Args:
            outputs: of the model.
            targets: the objects of each image.
            observe: is shown the anchors and the classification loss of each, [N, A], before they are summed.
        """
        sums, positives = self.sums(outputs, targets, observe)
        return {name: value / positives.clamp(min=1) for name, value in sums.items()}

    def sums(
        self,
        outputs: DenseOutputs,
        targets: Sequence[Target],
        observe: Callable[[Candidates, Tensor], None] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The same losses before they are divided, and the positive anchors, of which there may be none.

        The positives are float32, their mean over all processes. Batches that share a step are to be divided by the
        sum of theirs.
        """
        anchors = torch.cat(list(outputs.anchors))
        matches = self.match(anchors, targets)
        labels = anchor_labels(matches, targets)
        positives = mean_over_processes((labels >= 0).sum().float())
        weigh = partial(sigmoid_focal_loss, outputs.logits, labels, alpha=self.alpha, gamma=self.gamma)
        candidates = Candidates(labels, anchors, outputs, targets, loss=weigh)
        weights = None
        if self.selection is not None:
            weights = self.selection(candidates)
            matches = matches.masked_fill(weights == 0, IGNORE)
        classification = weigh(weights=weights)
        if observe is not None:
            observe(candidates, classification)
        box = self.box_weight * self._box_loss(outputs, anchors, matches, targets)
        return {"classification": classification.sum(), "box": box}, positives

    def get_extra_state(self) -> Any:
        """What the selection remembers from step to step, for checkpoints; most remember nothing."""
        return self.selection.state_dict() if isinstance(self.selection, Remembering) else None

    def set_extra_state(self, state: Any) -> None:
        """Take back what ``get_extra_state`` gave."""
        if isinstance(self.selection, Remembering):
            self.selection.load_state_dict(state)

    def match(self, anchors: Tensor, targets: Sequence[Target]) -> Tensor:
        """Index of each anchor's box, BACKGROUND or IGNORE, int32 [N, A].

        Of the background, what lies on an ignore region is IGNORE, and what would not be background if the region were
        an object: it may be one that nobody labelled, and smaller than every anchor.
        """
        matches = self._match(anchors, [target["boxes"] for target in targets])
        for row, target in zip(matches, targets, strict=True):
            regions = target.get("ignore_regions")
            if regions is not None and len(regions):
                covered = (intersection_over_first(anchors, regions) >= CROWD_COVER).any(dim=1)
                meant = self._match(anchors, [regions])[0] != BACKGROUND
                row[(covered | meant) & (row == BACKGROUND)] = IGNORE
        return matches

    def _match(self, anchors: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        return match_anchors(
            anchors,
            boxes,
            foreground_iou=self.foreground_iou,
            background_iou=self.background_iou,
            low_quality=self.low_quality,
        )

    def _box_loss(
        self, outputs: DenseOutputs, anchors: Tensor, matches: Tensor, targets: Sequence[Target]
    ) -> Tensor:
        """Summed box loss of the positive anchors."""
        images, rows = (matches >= 0).nonzero(as_tuple=True)
        deltas = torch.cat(list(outputs.deltas), dim=1)[images, rows].float()
        boxes, offsets = _stack([target["boxes"] for target in targets])
        wanted = boxes[offsets[images] + matches[images, rows]]
        if self.box == "giou":
            decoded = box_coder.decode(deltas, anchors[rows])
            return generalized_box_iou_loss(decoded, wanted, reduction="sum")
        encoded = box_coder.encode(wanted, anchors[rows])
        return F.smooth_l1_loss(deltas, encoded, beta=self.box_beta, reduction="sum")


class DetectorWithLoss(nn.Module):
    """A detector and its criterion under torchvision's call, for loops written for torchvision's detectors.

    In training ``model(images, targets)`` returns the dict of losses, else ``model(images)`` the detections.
    """

    def __init__(self, model: nn.Module, criterion: DetectionCriterion) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion

    def forward(
        self, images: ImageBatch | Tensor | list[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """Images as ``RetinaNet`` takes them; targets with boxes in their pixels (see ``Target``)."""
        outputs = self.model(images)
        if not self.training:
            return outputs
        if targets is None:
            raise ValueError("in training mode the targets must be passed: model(images, targets)")
        return self.criterion(outputs, targets)


def anchor_labels(matches: Tensor, targets: Sequence[Target]) -> Tensor:
    """Turn matches (index of a box) into labels (its class); both int32 [N, A], sentinels kept."""
    labels, offsets = _stack([target["labels"] for target in targets])
    if not len(labels):
        return matches
    classes = labels.to(torch.int32)[(matches + offsets[:, None]).clamp(min=0, max=len(labels) - 1)]
    return torch.where(matches >= 0, classes, matches)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes of distributed training; itself where there is but one."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    dist.all_reduce(value)
    return value / dist.get_world_size()


def _stack(ragged: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """All rows one after another, and the index of each tensor's first row, int64 [N]."""
    lengths = torch.tensor([0, *(len(rows) for rows in ragged[:-1])])
    return torch.cat(list(ragged)), lengths.cumsum(0).to(ragged[0].device, non_blocking=True)
