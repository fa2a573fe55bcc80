"""The two heads, shared by all levels (focal loss paper, section 4)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

Norm = Literal["none", "group"]
Activation = Literal["relu", "silu", "gelu", "leaky_relu", "hardswish"]

_ACTIVATIONS = {
    "relu": partial(nn.ReLU, inplace=True),
    "silu": partial(nn.SiLU, inplace=True),
    "gelu": nn.GELU,
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
    "hardswish": partial(nn.Hardswish, inplace=True),
}
_GROUPS = 32


class RetinaNetHead(nn.Module):
    """Class logits and encoded boxes for every anchor of every level."""

    def __init__(
        self,
        channels: int,
        anchors_per_location: int,
        classes: int,
        *,
        depth: int = 4,
        norm: Norm = "none",
        activation: Activation = "relu",
        dropout: float = 0.0,
        prior: float = 0.01,
    ) -> None:
        """Build it, freshly initialised.

        Args:
            channels: of the pyramid.
            anchors_per_location: anchors at each cell, the same on every level.
            classes: number of classes, without background.
            depth: 3x3 convolutions before the last one.
            norm: after each of these; group norm has 32 groups, or as many as divide 32 and ``channels``.
            activation: after each of these.
            dropout: share of the features that training sets to zero before the last convolution.
            prior: foreground probability of every anchor at the start (focal loss paper, section 4.1).
        """
        super().__init__()
        self.anchors_per_location = anchors_per_location
        self.classes = classes
        self.classification_head = _Branch(channels, depth, norm, activation, dropout)
        self.classification_head.cls_logits = _last_convolution(
            channels, anchors_per_location * classes, bias=-math.log((1 - prior) / prior)
        )
        self.regression_head = _Branch(channels, depth, norm, activation, dropout)
        self.regression_head.bbox_reg = _last_convolution(channels, anchors_per_location * 4, bias=0.0)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map features [N, channels, H, W] of each level to logits [N, H*W*A, K] and deltas [N, H*W*A, 4].

        Anchors run along rows, then columns, then the anchors of a cell. In channels_last memory both are
        free views of what the last convolution wrote.
        """
        logits = [_per_anchor(self.classification_head(level), self.classes) for level in features]
        deltas = [_per_anchor(self.regression_head(level), 4) for level in features]
        return logits, deltas


class _Branch(nn.Sequential):
    """A tower of convolutions (``conv``), dropout, and a last convolution, named by whoever adds it."""

    def __init__(self, channels: int, depth: int, norm: Norm, activation: Activation, dropout: float) -> None:
        super().__init__()
        norm_layer = partial(nn.GroupNorm, math.gcd(_GROUPS, channels)) if norm == "group" else None
        self.conv = nn.Sequential(
            *(
                Conv2dNormActivation(
                    channels,
                    channels,
                    norm_layer=norm_layer,
                    activation_layer=_ACTIVATIONS[activation],
                    inplace=None,
                )
                for _ in range(depth)
            )
        )
        for module in self.conv.modules():
            if isinstance(module, nn.Conv2d):
                _initialise(module, bias=0.0)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()


def _last_convolution(channels: int, outputs: int, bias: float) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, outputs, kernel_size=3, padding=1)
    _initialise(convolution, bias)
    return convolution


def _initialise(convolution: nn.Conv2d, bias: float) -> None:
    nn.init.normal_(convolution.weight, std=0.01)
    if convolution.bias is not None:
        nn.init.constant_(convolution.bias, bias)


def _per_anchor(outputs: Tensor, values: int) -> Tensor:
    """[N, A * values, H, W] to [N, H * W * A, values]."""
    return outputs.permute(0, 2, 3, 1).reshape(outputs.shape[0], -1, values)
