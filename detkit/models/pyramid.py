"""The feature pyramid over a backbone (Lin et al., 2017, "Feature pyramid networks for object detection")."""

import copy
from collections.abc import Sequence
from typing import Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from detkit.errors import ConfigError
from detkit.models.backbone import build_body

LAST_BODY_LEVEL = 5
"""Classification networks end at stride 32."""


class PyramidBackbone(nn.Module):
    """A torchvision classification network (``body``) and the pyramid on it (``fpn``).

    Maps images [N, 3, H, W] to one tensor [N, channels, ceil(H / 2**level), ceil(W / 2**level)] per level,
    finest first, where H and W divide by ``stride``.
    """

    def __init__(
        self,
        name: str,
        *,
        levels: Sequence[int] = (3, 4, 5, 6, 7),
        channels: int = 256,
        extra_from: Literal["pyramid", "backbone"] = "pyramid",
        nodes: Sequence[str] | None = None,
        frozen_batch_norm: bool = False,
        frozen_stem: bool = False,
    ) -> None:
        """Build it, freshly initialised.

        Args:
            name: of a torchvision classification network.
            levels: consecutive, ascending, of stride ``2**level``; strided convolutions make any beyond the body.
            channels: of every level.
            extra_from: what the first strided convolution reads: the last pyramid level (torchvision's v1) or
                the backbone's last features (the focal loss paper, torchvision's v2).
            nodes: backbone modules to tap, finest first; None finds the last stage of each level up to 5.
            frozen_batch_norm: the backbone's batch norm uses stored statistics and does not train.
            frozen_stem: what precedes the first tap (a ResNet's conv1, bn1, layer1) keeps its weights and statistics.

        Raises:
            ConfigError: the backbone does not exist or cannot give these levels.
        """
        super().__init__()
        body_levels, extra_levels = _split_levels(levels, nodes)
        self.body, taps = build_body(
            name, body_levels, nodes=nodes, frozen_batch_norm=frozen_batch_norm, frozen_stem=frozen_stem
        )
        self.name = name
        self.nodes = tuple(tap.node for tap in taps)
        self.levels = tuple(levels)
        self.stride = 2 ** body_levels[-1]
        """What the sides of a canvas must divide by; the strided convolutions take any size."""
        self.channels = channels
        self.fpn = _build_pyramid([tap.channels for tap in taps], channels, extra_levels, extra_from)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.fpn(self.body(images)).values())

    def train(self, mode: bool = True) -> Self:
        """Train or evaluate; batch norm whose weight does not train keeps its statistics in either."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
                module.eval()
        return self

    def __deepcopy__(self, memo: dict) -> "PyramidBackbone":
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        # torchvision's feature extractor comes out of a copy in training mode, whatever it was in.
        copied.train(self.training)
        return copied


class ExtraLevels(ExtraFPNBlock):
    """Levels beyond the backbone, each half as fine as the one before (focal loss paper, section 4).

    torchvision's LastLevelP6P7, for any levels and with its source named instead of guessed from channels.
    """

    def __init__(
        self, levels: Sequence[int], in_channels: int, channels: int, source: Literal["pyramid", "backbone"]
    ) -> None:
        super().__init__()
        self.source = source
        for level in levels:
            convolution = nn.Conv2d(in_channels, channels, kernel_size=3, stride=2, padding=1)
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            self.add_module(f"p{level}", convolution)
            in_channels = channels

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        features = p[-1] if self.source == "pyramid" else c[-1]
        for position, (name, convolution) in enumerate(self.named_children()):
            features = F.relu(features) if position else features
            if features.shape[-1] == 1:
                # A column of the padding itself, which changes nothing: of a map one column wide, oneDNN 3.12 makes
                # nonsense of this weight's gradient in bfloat16.
                features = F.pad(features, (0, 1))
            features = convolution(features)
            p.append(features)
            names.append(name)
        return p, names


def _build_pyramid(
    body_channels: list[int],
    channels: int,
    extra_levels: Sequence[int],
    extra_from: Literal["pyramid", "backbone"],
) -> FeaturePyramidNetwork:
    """The pyramid on a body's features, with its extra levels if there are any."""
    extra = None
    if extra_levels:
        source_channels = channels if extra_from == "pyramid" else body_channels[-1]
        extra = ExtraLevels(extra_levels, source_channels, channels, extra_from)
    return FeaturePyramidNetwork(body_channels, channels, extra)


def _split_levels(levels: Sequence[int], nodes: Sequence[str] | None) -> tuple[list[int], list[int]]:
    """Levels that the backbone gives, and levels made on top of it."""
    in_body = len(nodes) if nodes is not None else sum(level <= LAST_BODY_LEVEL for level in levels)
    if in_body == 0:
        raise ConfigError(
            f"model.levels: found {list(levels)}; the first must be {LAST_BODY_LEVEL} or lower, so that the "
            "backbone gives it"
        )
    if in_body > len(levels):
        raise ConfigError(
            f"model.nodes: found {in_body} for {len(levels)} levels; give one per level at most"
        )
    return list(levels[:in_body]), list(levels[in_body:])
