"""The ops in plain PyTorch: what they mean, and what runs where no library can be loaded.

The functions take the arguments of the ops' schemas (``_library.SCHEMAS``), and hold no more at a time than a
few copies of one level's logits, or one block of anchors against the boxes of one image.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.labels import BACKGROUND, IGNORE

ANCHORS_PER_BLOCK = 16384


def loss_dtype(logits: Tensor) -> torch.dtype:
    """The type in which a loss over these logits is computed: float64 for float64, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def sigmoid_focal_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    weights: Tensor | None,
    *,
    alpha: float | None,
    gamma: float,
) -> Tensor:
    """Loss of each anchor, [N, A]; see :func:`detkit.ops.sigmoid_focal_loss`."""
    _check_labels(labels, logits[0].shape[2])
    scale = _scale(logits[0], labels, weights)
    losses = []
    for level, level_labels, level_scale in _each_level(logits, labels, scale):
        toward_truth, positive = _logit_of_truth(level, level_labels)
        loss = torch.sigmoid(-toward_truth) ** gamma * -F.logsigmoid(toward_truth)
        loss = _balance(loss, positive, alpha).sum(dim=2)
        losses.append(torch.where(level_scale == 0, 0, level_scale * loss))
    return torch.cat(losses, dim=1)


def sigmoid_focal_loss_backward(
    grad: Tensor,
    logits: Sequence[Tensor],
    labels: Tensor,
    weights: Tensor | None,
    *,
    alpha: float | None,
    gamma: float,
) -> list[Tensor]:
    """Gradient of each level's logits, laid out as the level is, given that of the losses, [N, A]."""
    scale = _scale(logits[0], labels, weights)
    scale = torch.where(scale == 0, 0, scale * grad)
    gradients = []
    for level, level_labels, level_scale in _each_level(logits, labels, scale):
        toward_truth, positive = _logit_of_truth(level, level_labels)
        probability, miss = torch.sigmoid(toward_truth), torch.sigmoid(-toward_truth)
        slope = miss**gamma * (miss - gamma * probability * F.logsigmoid(toward_truth))
        slope = _balance(torch.where(positive, -slope, slope), positive, alpha)
        gradient = torch.where(level_scale[:, :, None] == 0, 0, level_scale[:, :, None] * slope)
        gradients.append(torch.empty_like(level).copy_(gradient))
    return gradients


def _check_labels(labels: Tensor, classes: int) -> None:
    """Refuse a label that is no class, BACKGROUND or IGNORE; a GPU is not waited for."""
    if labels.device.type != "cpu":
        return
    wrong = (labels < IGNORE) | (labels >= classes)
    if wrong.any():
        image, anchor = wrong.nonzero()[0].tolist()
        raise RuntimeError(
            f"sigmoid_focal_loss: labels[{image}, {anchor}] is {labels[image, anchor].item()}; expected a class "
            f"index from 0 to {classes - 1}, BACKGROUND ({BACKGROUND}) or IGNORE ({IGNORE})"
        )


def _scale(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """What the loss of each anchor is multiplied by, [N, A]: 0 leaves it out, NaN marks a wrong label."""
    if weights is None:
        weights = torch.ones(labels.shape, dtype=loss_dtype(logits), device=labels.device)
    wrong = (labels < IGNORE) | (labels >= logits.shape[2])
    return torch.where(wrong, torch.nan, torch.where(labels == IGNORE, 0, weights))


def _each_level(
    logits: Sequence[Tensor], labels: Tensor, scale: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Each level with the labels and scales of its anchors."""
    anchors = [level.shape[1] for level in logits]
    return zip(logits, labels.split(anchors, dim=1), scale.split(anchors, dim=1), strict=True)


def _logit_of_truth(level: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """x where the class is the anchor's and -x elsewhere, and where that is; both [N, A_l, K]."""
    classes = torch.arange(level.shape[2], device=level.device)
    positive = labels[:, :, None] == classes
    level = level.to(loss_dtype(level))
    return torch.where(positive, level, -level), positive


def _balance(terms: Tensor, positive: Tensor, alpha: float | None) -> Tensor:
    """The terms times alpha where positive and 1 - alpha elsewhere."""
    return terms if alpha is None else torch.where(positive, alpha * terms, (1 - alpha) * terms)


def match_anchors(
    anchors: Tensor,
    boxes: Sequence[Tensor],
    *,
    foreground_iou: float,
    background_iou: float,
    low_quality: bool,
) -> Tensor:
    """Match of each anchor, int32 [N, A]; see :func:`detkit.ops.match_anchors`."""
    matches = torch.full((len(boxes), len(anchors)), BACKGROUND, dtype=torch.int32, device=anchors.device)
    for image_matches, image_boxes in zip(matches, boxes, strict=True):
        if len(image_boxes) == 0 or len(anchors) == 0:
            continue
        best_of_boxes = _best_of_boxes(anchors, image_boxes) if low_quality else None
        for start in range(0, len(anchors), ANCHORS_PER_BLOCK):
            iou = box_iou(anchors[start : start + ANCHORS_PER_BLOCK], image_boxes)
            best, match = iou.max(dim=1)
            matched = best >= foreground_iou
            if best_of_boxes is not None:
                matched |= ((iou == best_of_boxes) & (iou > 0)).any(dim=1)
            unmatched = torch.where(best < background_iou, BACKGROUND, IGNORE)
            image_matches[start : start + ANCHORS_PER_BLOCK] = torch.where(matched, match, unmatched)
    return matches


def _best_of_boxes(anchors: Tensor, boxes: Tensor) -> Tensor:
    """The best IoU that each box reaches with any anchor, [G]."""
    blocks = anchors.split(ANCHORS_PER_BLOCK)
    return torch.stack([box_iou(block, boxes).amax(dim=0) for block in blocks]).amax(dim=0)


def box_iou(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union, [A, 4] and [G, 4] xyxy to [A, G]; 0 where the quotient is no number."""
    top_left = torch.maximum(anchors[:, None, :2], boxes[:, :2])
    bottom_right = torch.minimum(anchors[:, None, 2:], boxes[:, 2:])
    width, height = (bottom_right - top_left).clamp(min=0).unbind(-1)
    intersection = width * height
    iou = intersection / (_area(boxes) + _area(anchors)[:, None] - intersection)
    return torch.where(iou > 0, iou, 0)


def _area(boxes: Tensor) -> Tensor:
    """Area [G] of boxes [G, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
