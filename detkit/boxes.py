"""Geometry of boxes, which are xyxy float32 pixels everywhere inside."""

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] xyxy moved inside an image of ``size`` (height, width)."""
    return clip_boxes_to_image(boxes, size)


def through_affine(boxes: Tensor, affine: Tensor) -> Tensor:
    """The boxes around where an affine map [2, 3] takes boxes [R, 4]: float32 [R, 4]."""
    x1, y1, x2, y2 = boxes.double().unbind(1)
    corners = torch.stack([torch.stack(corner, 1) for corner in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], 1)
    moved = corners @ affine[:, :2].T.double() + affine[:, 2].double()
    return torch.cat([moved.amin(dim=1), moved.amax(dim=1)], dim=1).float()


def intersection_over_first(first: Tensor, second: Tensor) -> Tensor:
    """Share of each first box that each second box covers: [A, 4] and [C, 4] to [A, C], from 0 to 1.

    This is the overlap COCO uses for crowds: a crowd is no single object, so its own area says nothing.
    """
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    width, height = (bottom_right - top_left).clamp(min=0).unbind(-1)
    area = (first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1])
    return width * height / area.clamp(min=torch.finfo(area.dtype).tiny)[:, None]
