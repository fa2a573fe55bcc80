"""Boxes are xyxy float32 pixels everywhere inside; these convert where a file is read or written."""

import torch
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

__all__ = ["clip", "intersection_over_first", "xywh_to_xyxy", "xyxy_to_xywh"]


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """COCO's [x, y, width, height] to [x1, y1, x2, y2]; [..., 4] to [..., 4]."""
    return box_convert(boxes, "xywh", "xyxy")


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """[x1, y1, x2, y2] to COCO's [x, y, width, height]; [..., 4] to [..., 4]."""
    return box_convert(boxes, "xyxy", "xywh")


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
