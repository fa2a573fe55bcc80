"""The 3x3 convolutions of a detector that trains on a CPU, where they are nearly all of the work.

They equal ``nn.Conv2d`` up to rounding and spare multiplications in two ways: where an image is convolved
(``winograd.py``), and where most cells of a gradient are zero (``sparse_gradients.py``).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detkit.models import sparse_gradients, winograd

LEAST_CHANNELS = 64
"""Of the images; with fewer there is nothing to spare."""


class FastConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` of 3x3, stride 1 and padding 1 that is faster on a CPU.

    It can be differentiated once, and not by ``torch.func``; ``torch.compile`` and export find an ``nn.Conv2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Conv2d``, and nothing else on a GPU, compiled, or where nothing can be spared."""
        if not _can_spare(input, self.weight):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return _Convolution.apply(input.to(dtype), self.weight.to(dtype), bias)


def use_fast_convolutions(module: nn.Module) -> None:
    """Turn every convolution inside ``module`` that can be one into a ``FastConv2d``; all that it holds stays."""
    for convolution in module.modules():
        if type(convolution) is nn.Conv2d and _fits(convolution):
            convolution.__class__ = FastConv2d


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        if winograd.is_faster(images, weight):
            return winograd.convolve(images, weight, bias)
        return F.conv2d(images, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):  # what the forward pass cast is cast already
            return _gradients(images, weight, gradient, ctx.needs_input_grad)


def _gradients(
    images: Tensor, weight: Tensor, gradient: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, ...]:
    """Of images, weight and bias, where wanted, in the way that takes the fewest multiplications."""
    of_images, of_weight, of_bias = wanted
    cells = sparse_gradients.cells_with_gradient(gradient)
    if cells is not None:
        made = (
            sparse_gradients.image_gradient(weight, gradient, cells) if of_images else None,
            sparse_gradients.weight_gradient(images, gradient, cells) if of_weight else None,
        )
    elif winograd.is_faster(images, weight):
        made = (
            winograd.image_gradient(weight, gradient) if of_images else None,
            winograd.weight_gradient(images, gradient) if of_weight else None,
        )
    else:
        ones, zeros = [1, 1], [0, 0]
        return torch.ops.aten.convolution_backward(
            gradient, images, weight, [len(weight)], ones, ones, ones, False, zeros, 1, wanted
        )
    return *made, gradient.sum((0, 2, 3)) if of_bias else None


def _fits(convolution: nn.Conv2d) -> bool:
    """Whether it is a plain 3x3 convolution of enough channels."""
    shape = convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation
    plain = convolution.groups == 1 and convolution.padding_mode == "zeros"
    return plain and convolution.in_channels >= LEAST_CHANNELS and shape == ((3, 3), (1, 1), (1, 1), (1, 1))


def _can_spare(images: Tensor, weight: Tensor) -> bool:
    """Whether there may be multiplications to spare, in types that go together."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if not images.is_contiguous(memory_format=torch.channels_last):
        return False
    trains = torch.is_grad_enabled() and sparse_gradients.are_large(images)
    if torch.is_autocast_enabled("cpu"):
        usual = torch.float32, torch.get_autocast_dtype("cpu")
        return trains and weight.dtype == torch.float32 and images.dtype in usual
    return images.dtype == weight.dtype and (trains or winograd.is_faster(images, weight))
