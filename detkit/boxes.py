"""Geometry of boxes, which are xyxy float32 pixels everywhere inside."""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] xyxy moved inside an image of ``size`` (height, width)."""
    return clip_boxes_to_image(boxes, size)


def intersection_over_first(first: Tensor, second: Tensor) -> Tensor:
    """Share of each first box that each second box covers: [A, 4] and [C, 4] to [A, C], from 0 to 1.

    This is the overlap COCO uses for crowds: a crowd is no single object, so its own area says nothing.
    """
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    width, height = (bottom_right - top_left).clamp(min=0).unbind(-1)
    area = (first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1])
    return width * height / area.clamp(min=torch.finfo(area.dtype).tiny)[:, None]
