"""3x3 convolutions with fewer multiplications, for float32 on a CPU without AVX-512.

Winograd's minimal filtering (Lavin and Gray, 2016, "Fast algorithms for convolutional neural networks", section 4.1)
takes 16 multiplications for each tile of 2x2 outputs in place of 36: image tiles, kernels and output tiles are
transformed, and 16 matrix products do the rest, forward and for both gradients. It also sums less, so that its rounding
error is smaller than that of oneDNN's convolutions. With AVX-512 oneDNN's are faster all the same: the transforms gain
nothing from wider registers, and torch's matrix products do not use them on every processor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_CHANNELS = 64
LEAST_TILES = 256
"""Below either, the transforms cost more than they spare."""
VALUES_PER_THREAD = 2**16
"""Of each of the 16 transformed parts: so much is worked on together, and stays in the cache."""


def _in_two_directions(rows: list[list[float]]) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float32)
    return torch.kron(matrix, matrix)


# B^T, A and G of the paper.
_FROM_IMAGE = _in_two_directions([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_FROM_OUTPUT = _in_two_directions([[1.0, 0], [1, 1], [1, -1], [0, -1]])
_FROM_KERNEL = _in_two_directions([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def is_faster(images: Tensor, weight: Tensor) -> bool:
    """Whether images [N, C, H, W] and a weight [O, C, 3, 3] are float32 and many, on a CPU without AVX-512."""
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return False
    rows, columns = _tiles(images)
    return (
        images.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and len(images) * rows * columns >= LEAST_TILES
    )


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with stride 1 and padding 1: [N, C, H, W] and [O, C, 3, 3] to [N, O, H, W] in channels_last memory."""
    count, _, height, width = images.shape
    rows, columns = _tiles(images)
    kernels = (_FROM_KERNEL @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(16, weight.shape[1], -1)
    shape = count, len(weight), 2 * rows, 2 * columns
    made = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    for part, output in zip(*_parts(images, made), strict=True):
        products = torch.bmm(_transform_images(part), kernels)
        tiles = (_FROM_OUTPUT.t() @ products.view(16, -1)).view(2, 2, len(part), rows, columns, -1)
        if bias is not None:
            tiles += bias
        output.unflatten(1, (rows, 2)).unflatten(3, (columns, 2)).copy_(tiles.permute(2, 3, 0, 4, 1, 5))
    if (height, width) == made.shape[2:]:
        return made
    return made[:, :, :height, :width].contiguous(memory_format=torch.channels_last)


def image_gradient(weight: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the images, [N, C, H, W], from weight [O, C, 3, 3] and the gradient of outputs [N, O, H, W]."""
    return convolve(gradient, weight.flip(2, 3).transpose(0, 1))


def weight_gradient(images: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weight, [O, C, 3, 3], from images [N, C, H, W] and the gradient of outputs [N, O, H, W]."""
    products = images.new_zeros(16, gradient.shape[1], images.shape[1])
    for part, part_gradient in zip(*_parts(images, gradient), strict=True):
        products.baddbmm_(_transform_gradients(part_gradient).transpose(1, 2), _transform_images(part))
    kernels = (_FROM_KERNEL.t() @ products.view(16, -1)).view(3, 3, *products.shape[1:])
    return kernels.permute(2, 3, 0, 1)


def _tiles(images: Tensor) -> tuple[int, int]:
    """Rows and columns of the 2x2 tiles that cover maps [N, C, H, W]."""
    return -(-images.shape[2] // 2), -(-images.shape[3] // 2)


def _parts(inputs: Tensor, outputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Both, channels last, a few images at a time."""
    rows, columns = _tiles(inputs)
    values = rows * columns * max(inputs.shape[1], outputs.shape[1])
    together = max(1, VALUES_PER_THREAD * torch.get_num_threads() // values)
    return inputs.permute(0, 2, 3, 1).split(together), outputs.permute(0, 2, 3, 1).split(together)


def _transform_images(images: Tensor) -> Tensor:
    """B^T d B of the 4x4 pixels that each tile reads: [N, H, W, C] to [16, tiles, C]."""
    _, height, width, channels = images.shape
    padded = F.pad(images, (0, 0, 1, 1 + width % 2, 1, 1 + height % 2))
    return (_FROM_IMAGE @ _squares(padded, side=4)).view(16, -1, channels)


def _transform_gradients(gradients: Tensor) -> Tensor:
    """A y A^T of each 2x2 tile: [N, H, W, O] to [16, tiles, O]."""
    _, height, width, channels = gradients.shape
    padded = F.pad(gradients, (0, 0, 0, width % 2, 0, height % 2)) if height % 2 or width % 2 else gradients
    return (_FROM_OUTPUT @ _squares(padded, side=2)).view(16, -1, channels)


def _squares(maps: Tensor, side: int) -> Tensor:
    """Squares of ``side`` at every second row and column of [N, H, W, C], pixel by pixel: [side * side, ...]."""
    squares = maps.unfold(1, side, 2).unfold(2, side, 2)
    return squares.permute(4, 5, 0, 1, 2, 3).reshape(side * side, -1)
