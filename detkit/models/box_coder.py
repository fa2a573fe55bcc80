"""Boxes relative to anchors (Girshick et al., 2014, "Rich feature hierarchies", appendix C)."""

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""A decoded side is at most this many times its anchor's, so that exp cannot overflow."""


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Encode boxes relative to anchors.

    Args:
        boxes: xyxy in pixels [..., 4], of positive width and height.
        anchors: xyxy in pixels [..., 4].

    Returns:
        [..., 4]: the shift of the centre along x and y in widths and heights of the anchor, and the logarithm
        of the ratio of the widths and of the heights; float32 (float64 where an input is).
    """
    boxes, anchors = _at_least_float32(boxes, anchors)
    x, y, width, height = _centre_and_size(boxes)
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_and_size(anchors)
    return torch.stack(
        [
            (x - anchor_x) / anchor_width,
            (y - anchor_y) / anchor_height,
            (width / anchor_width).log(),
            (height / anchor_height).log(),
        ],
        dim=-1,
    )


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Decode what ``encode`` encoded.

    Args:
        deltas: [..., 4], any floating type.
        anchors: xyxy in pixels [..., 4].

    Returns:
        Boxes, xyxy in pixels [..., 4], float32 (float64 where an input is).
    """
    deltas, anchors = _at_least_float32(deltas, anchors)
    anchor_x, anchor_y, anchor_width, anchor_height = _centre_and_size(anchors)
    dx, dy, log_width, log_height = deltas.unbind(-1)
    x = dx * anchor_width + anchor_x
    y = dy * anchor_height + anchor_y
    half_width = 0.5 * (log_width.clamp(max=MAX_LOG_SCALE).exp() * anchor_width)
    half_height = 0.5 * (log_height.clamp(max=MAX_LOG_SCALE).exp() * anchor_height)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=-1)


def _at_least_float32(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their types: a half-precision pixel coordinate is off by whole pixels."""
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    return first.to(dtype), second.to(dtype)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
