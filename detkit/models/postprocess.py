"""From dense outputs to detections (focal loss paper, section 4, "Inference")."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from detkit.boxes import clip
from detkit.models.box_coder import decode
from detkit.structures import DenseOutputs, Detections


@dataclass(frozen=True)
class PostProcess:
    """Threshold, best candidates of each level, decoding, NMS within each class, best detections."""

    score_threshold: float = 0.05
    """Only scores above this are looked at."""
    nms_iou: float = 0.5
    """Of two boxes of a class that overlap more than this, the better one stays."""
    candidates_per_level: int = 1000
    detections_per_image: int = 100

    @torch.no_grad()
    def __call__(
        self,
        outputs: DenseOutputs,
        sizes: Sequence[tuple[int, int]],
        original_sizes: Sequence[tuple[int, int]],
    ) -> list[Detections]:
        """Detections of each image, best first; equal scores in the order of level, anchor and class.

        Args:
            outputs: of N images.
            sizes: (height, width) of each image on the canvas; boxes are clipped to it.
            original_sizes: (height, width) of each image before it was resized; boxes are returned in its
                pixels.
        """
        return [
            self._one_image(outputs, image, size, original)
            for image, (size, original) in enumerate(zip(sizes, original_sizes, strict=True))
        ]

    def _one_image(
        self, outputs: DenseOutputs, image: int, size: tuple[int, int], original: tuple[int, int]
    ) -> Detections:
        levels = [
            self._candidates(logits[image], deltas[image], anchors)
            for logits, deltas, anchors in zip(outputs.logits, outputs.deltas, outputs.anchors, strict=True)
        ]
        boxes, labels, scores = (torch.cat(parts) for parts in zip(*levels, strict=True))
        order = scores.argsort(descending=True, stable=True)
        boxes = clip(boxes[order], size)
        # A box on the padding alone has nothing of the image, and must not take a real one's place.
        within = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, labels, scores = boxes[within], labels[order][within], scores[order][within]
        keep = nms_per_class(boxes, labels, scores, self.nms_iou)[: self.detections_per_image]
        return Detections(
            boxes=_to_original(boxes[keep], size, original), labels=labels[keep], scores=scores[keep]
        )

    def _candidates(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best of one level: boxes [C, 4], labels [C] and scores [C], from logits [A, K]."""
        flat = logits.flatten()
        # Thresholding logits spares the sigmoid of nearly all of them.
        places = torch.nonzero(flat > _logit(self.score_threshold)).squeeze(1)
        values = flat[places]
        if len(places) > self.candidates_per_level:
            # topk names any of several equal values; everything from its last value up, cut after a stable
            # sort, is the same on every machine.
            lowest = values.topk(self.candidates_per_level).values[-1]
            best = torch.nonzero(values >= lowest).squeeze(1)
            best = best[values[best].argsort(descending=True, stable=True)][: self.candidates_per_level]
            places, values = places[best], values[best]
        rows = torch.div(places, logits.shape[1], rounding_mode="floor")
        scores = values.to(torch.promote_types(values.dtype, torch.float32)).sigmoid()
        return decode(deltas[rows], anchors[rows]), places % logits.shape[1], scores


def nms_per_class(boxes: Tensor, labels: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Non-maximum suppression within each class.

    Args:
        boxes: xyxy in pixels [D, 4].
        labels: class index, int64 [D].
        scores: [D].
        iou: of two boxes of a class that overlap more than this, the better one stays.

    Returns:
        int64, the rows that stay, best first; of equal scores the earlier row first.
    """
    if len(boxes) == 0:
        return labels
    # Each class is moved to a place of its own. float32 would lose the boxes' own digits there: at class 1000
    # of a canvas of 10,000 pixels it steps by whole pixels.
    distance = boxes.max().double() - boxes.min().double() + 1
    apart = boxes.double() + (labels.double() * distance)[:, None]
    return nms(apart, scores.double(), iou)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability)) if probability > 0 else -math.inf


def _to_original(boxes: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Boxes in pixels of an image on the canvas, to pixels of the image before it was resized."""
    y, x = (before / after for before, after in zip(original, size, strict=True))
    return clip(boxes * boxes.new_tensor([x, y, x, y]), original)
