"""Gradients of a 3x3 convolution most of whose output cells have none.

A dense detector learns boxes at its positive anchors alone, and with mined negatives classes at few more. All other
cells of the last convolution pass nothing back; the one before has a gradient in their neighbourhood, and so on through
the towers. The products that only multiply zeros are left out: what is left are matrix products over the cells that
count, which torch runs as 1x1 convolutions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SHARE = 0.25
"""Of cells with a gradient; above it the whole convolution is as fast."""
LEAST_CELLS = 2048
"""Of a batch of maps, with a gradient or without; below it there is too little to spare."""
PATCH_BYTES = 2**24
"""Of the neighbourhoods that are gathered at a time; more is slow because its memory is new each time."""


def cells_with_gradient(gradient: Tensor) -> Tensor | None:
    """Which cells of a gradient [N, O, H, W] in channels_last memory are not zero: bool [N, H, W].

    None where they are too many, or the maps too small, for the functions below to be faster.
    """
    count, _, height, width = gradient.shape
    if count * height * width < LEAST_CELLS:
        return None
    maps = gradient.permute(0, 2, 3, 1)
    if _share(maps[:, ::4, ::4].any(-1)) > 2 * LARGEST_SHARE:  # read a sixteenth, to know what is dense soon
        return None
    cells = maps.any(-1)
    return cells if _share(cells) <= LARGEST_SHARE else None


def weight_gradient(images: Tensor, gradient: Tensor, cells: Tensor) -> Tensor:
    """Gradient of the weight, [O, C, 3, 3], from images [N, C, H, W] and the gradient of outputs [N, O, H, W].

    The gradient is zero except at these cells, bool [N, H, W]. All lie in channels_last memory.
    """
    precise = torch.promote_types(gradient.dtype, torch.float32)  # so that half precision is rounded to once
    made = gradient.new_zeros(gradient.shape[1], 3, 3, images.shape[1], dtype=precise)
    for part in _parts(cells, images):
        made += _pointwise_weight_gradient(_neighbours(images, part), _rows(gradient, part)).view(made.shape)
    return made.to(gradient.dtype).permute(0, 3, 1, 2)


def image_gradient(weight: Tensor, gradient: Tensor, cells: Tensor) -> Tensor:
    """Gradient of the images, [N, C, H, W], from weight [O, C, 3, 3] and the gradient of outputs [N, O, H, W].

    The gradient is zero except at these cells, bool [N, H, W]. All lie in channels_last memory.
    """
    count, _, height, width = gradient.shape
    kernels = weight.flip(2, 3).permute(1, 2, 3, 0).reshape(weight.shape[1], -1, 1, 1)
    made = gradient.new_zeros(count * height * width, weight.shape[1])
    reached = F.max_pool2d(cells[:, None].float(), kernel_size=3, stride=1, padding=1) > 0
    for part in _parts(reached, gradient):
        made[part] = F.conv2d(_neighbours(gradient, part), kernels)[0, :, 0].t()
    return made.view(count, height, width, -1).permute(0, 3, 1, 2)


def _share(cells: Tensor) -> float:
    return cells.count_nonzero().item() / cells.numel()


def _parts(cells: Tensor, maps: Tensor) -> tuple[Tensor, ...]:
    """The flat indices of the cells that are set, so many at a time as fit together with their neighbours."""
    found = cells.flatten().nonzero().squeeze(1)
    bytes_each = 9 * maps.shape[1] * maps.element_size()
    return found.split(max(1, PATCH_BYTES // bytes_each)) if len(found) else ()


def _rows(maps: Tensor, cells: Tensor) -> Tensor:
    """The channels of these cells of [N, C, H, W] as a column of pixels: [1, C, M, 1] in channels_last memory."""
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).index_select(0, cells)
    return _pixels(rows)


def _neighbours(maps: Tensor, cells: Tensor) -> Tensor:
    """The 3x3 neighbours of these cells of [N, C, H, W], row by row, zero outside: [1, 9 * C, M, 1] as ``_rows``."""
    count, channels, height, width = maps.shape
    steps = torch.arange(-1, 2)
    rows = (cells // width % height)[:, None, None] + steps[:, None]
    columns = (cells % width)[:, None, None] + steps
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    neighbours = cells[:, None, None] + steps[:, None] * width + steps
    flat = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    found = flat.index_select(0, neighbours.clamp_(0, count * height * width - 1).view(-1))
    found.index_fill_(0, outside.view(-1).nonzero().squeeze(1), 0)
    return _pixels(found.view(len(cells), -1))


def _pixels(rows: Tensor) -> Tensor:
    """Rows [M, C] as an image of one row of pixels: [1, C, 1, M] in channels_last memory."""
    return rows.view(1, 1, *rows.shape).permute(0, 3, 1, 2)


def _pointwise_weight_gradient(inputs: Tensor, gradient: Tensor) -> Tensor:
    """Of a 1x1 convolution: inputs [1, I, M, 1] and gradient [1, O, M, 1] to [O, I, 1, 1]."""
    shape = gradient.new_empty(()).expand(gradient.shape[1], inputs.shape[1], 1, 1)
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, inputs, shape, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, mask
    )[1]
