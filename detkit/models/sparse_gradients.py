"""Gradients of a 3x3 convolution most of whose output cells have none, on a CPU.

A dense detector learns boxes at its positive anchors alone, and with selected negatives classes at few more. All other
cells of the last convolution pass nothing back; the one before has a gradient in their neighbourhood, and so on through
the towers. Here the products that only multiply zeros are left out: cells that count are gathered with their
neighbours, and multiplied as pixels of a 1x1 convolution. (A matrix product would say the same, but on processors where
torch leaves those in float32 to another library than oneDNN they are half as fast.)

What is left out is not seen either: an infinite value that only meets zeros makes no gradient NaN.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

LARGEST_SHARE = 0.4
"""Of the work of the whole convolution; with more it is as fast."""
LEAST_CELLS = 2048
"""Of a batch of maps, with a gradient or without; below it there is too little to spare."""
PATCH_BYTES = 2**24
"""Of the neighbourhoods that are gathered at a time; more is slow because its memory is new each time."""
IMAGES = 16
"""That gathered cells are told to be the pixels of: with fewer and one thread torch does not ask oneDNN."""


def are_large(maps: Tensor) -> bool:
    """Whether maps [N, C, H, W] have so many cells that something can be spared."""
    count, _, height, width = maps.shape
    return count * height * width >= LEAST_CELLS


def cells_with_gradient(gradient: Tensor) -> Tensor | None:
    """Which cells of a gradient [N, O, H, W] are not zero: bool [N, H, W].

    None where they are too many, or the maps too small, for the functions below to be faster.
    """
    if not are_large(gradient):
        return None
    maps = gradient.permute(0, 2, 3, 1)
    if _share(maps[:, ::4, ::4].any(-1)) > 2 * LARGEST_SHARE:  # read a sixteenth, to know what is dense soon
        return None
    cells = maps.any(-1)
    # The gradient of the weight takes work for these cells, that of the images for all that they reach.
    work = (_share(cells) + _share(_reached(cells))) / 2
    return cells if work <= LARGEST_SHARE else None


def weight_gradient(images: Tensor, gradient: Tensor, cells: Tensor) -> Tensor:
    """Gradient of the weight, [O, C, 3, 3], from images [N, C, H, W] and the gradient of outputs [N, O, H, W].

    The gradient is zero except at these cells, bool [N, H, W]. What is returned lies in channels_last memory; the
    others may lie in any, and are copied where it is another.
    """
    pixels, gradients = _flat(images), _flat(gradient)
    # Parts are added up in float32 at least, so that their sums do not round in half precision.
    precise = torch.promote_types(gradient.dtype, torch.float32)
    made = gradient.new_zeros(gradient.shape[1], 3, 3, images.shape[1], dtype=precise)
    for part in _parts(cells, images):
        patches = _patches(pixels, images.shape, part)
        rows = F.pad(gradients.index_select(0, part), (0, 0, 0, -len(part) % IMAGES))
        shape = len(made), 9 * images.shape[1], 1, 1
        made += conv2d_weight(patches, shape, _as_images(rows)).view(made.shape)
    return made.to(gradient.dtype).permute(0, 3, 1, 2)


def image_gradient(weight: Tensor, gradient: Tensor, cells: Tensor) -> Tensor:
    """Gradient of the images, [N, C, H, W], from weight [O, C, 3, 3] and the gradient of outputs [N, O, H, W].

    The gradient is zero except at these cells, bool [N, H, W]. Memory is as in ``weight_gradient``.
    """
    count, _, height, width = gradient.shape
    gradients = _flat(gradient)
    kernels = weight.flip(2, 3).permute(1, 2, 3, 0).reshape(weight.shape[1], -1, 1, 1)
    made = gradient.new_zeros(count * height * width, weight.shape[1])
    for part in _parts(_reached(cells), gradient):
        found = F.conv2d(_patches(gradients, gradient.shape, part), kernels)
        made[part] = found.permute(0, 2, 3, 1).reshape(-1, weight.shape[1])[: len(part)]
    return made.view(count, height, width, -1).permute(0, 3, 1, 2)


def _share(cells: Tensor) -> float:
    return cells.count_nonzero().item() / cells.numel()


def _reached(cells: Tensor) -> Tensor:
    """Cells, bool [N, H, W], and their neighbours."""
    return F.max_pool2d(cells[:, None].float(), kernel_size=3, stride=1, padding=1)[:, 0] > 0


def _flat(maps: Tensor) -> Tensor:
    """[N, C, H, W] to [N * H * W, C]."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _parts(cells: Tensor, maps: Tensor) -> tuple[Tensor, ...]:
    """The flat indices of the cells that are set, so many at a time as fit together with their neighbours."""
    found = cells.flatten().nonzero().squeeze(1)
    bytes_each = 9 * maps.shape[1] * maps.element_size()
    return found.split(max(1, PATCH_BYTES // bytes_each)) if len(found) else ()


def _patches(pixels: Tensor, shape: torch.Size, cells: Tensor) -> Tensor:
    """The 3x3 neighbours of M cells, row by row and zero outside, of maps of this shape, flat.

    Zeros fill M up to what divides by IMAGES. Returns [IMAGES, 9 * C, 1, M / IMAGES] in channels_last memory.
    """
    count, channels, height, width = shape
    steps = torch.arange(-1, 2)
    filled = F.pad(cells, (0, -len(cells) % IMAGES))[:, None, None]
    rows = filled // width % height + steps[:, None]
    columns = filled % width + steps
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    outside[len(cells) :] = True
    neighbours = filled + steps[:, None] * width + steps
    found = pixels.index_select(0, neighbours.clamp_(0, count * height * width - 1).view(-1))
    found.index_fill_(0, outside.view(-1).nonzero().squeeze(1), 0)
    return _as_images(found.view(-1, 9 * channels))


def _as_images(rows: Tensor) -> Tensor:
    """Rows [M, C] as pixels, [IMAGES, C, 1, M / IMAGES] in channels_last memory."""
    return rows.view(IMAGES, 1, -1, rows.shape[1]).permute(0, 3, 1, 2)
