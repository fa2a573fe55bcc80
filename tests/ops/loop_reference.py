"""The ops as explicit loops over Python numbers, to hold against the fast ones."""

import math

import torch
from torch import Tensor

from detkit.labels import BACKGROUND, IGNORE


def focal_loss_loop(logits: Tensor, labels: Tensor, weights: Tensor | None, alpha, gamma) -> Tensor:
    """The definition: -alpha_t (1 - p_t)^gamma log(p_t), summed over the classes; float64 [N, A]."""
    images, anchors, classes = logits.shape
    loss = torch.zeros(images, anchors, dtype=torch.float64)
    for n in range(images):
        for a in range(anchors):
            label = labels[n, a].item()
            if label == IGNORE:
                continue
            total = 0.0
            for k in range(classes):
                x = logits[n, a, k].item() if k == label else -logits[n, a, k].item()
                p_t, miss = 1 / (1 + math.exp(-x)), 1 / (1 + math.exp(x))
                alpha_t = 1.0 if alpha is None else (alpha if k == label else 1 - alpha)
                total += -alpha_t * miss**gamma * math.log(p_t)
            loss[n, a] = total * (1.0 if weights is None else weights[n, a].item())
    return loss


def iou_loop(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return width * height / (area - width * height)


def match_loop(anchors: Tensor, boxes: Tensor, foreground: float, background: float, low_quality: bool):
    """Matches of one image, from exact IoUs of boxes with small integer coordinates."""
    iou = [[iou_loop(anchor, box) for box in boxes.tolist()] for anchor in anchors.tolist()]
    best_of_boxes = [max(row[g] for row in iou) for g in range(len(boxes))]
    matches = []
    for row in iou:
        best = max(row, default=0.0)
        is_best_of_a_box = any(value == top > 0 for value, top in zip(row, best_of_boxes, strict=True))
        if row and (best >= foreground or (low_quality and is_best_of_a_box)):
            matches.append(row.index(best))
        else:
            matches.append(BACKGROUND if best < background else IGNORE)
    return matches
