"""The model, and where it runs."""

from collections.abc import Sequence

import torch

from detkit.config import Config
from detkit.models import AnchorGenerator, PostProcess, PyramidBackbone, RetinaNet, RetinaNetHead


def build_model(config: Config, class_names: Sequence[str]) -> RetinaNet:
    """The detector, freshly initialised from torch's global generator."""
    model = config.model
    anchors = build_anchors(config)
    backbone = PyramidBackbone(
        model.backbone,
        levels=model.levels,
        channels=model.pyramid_channels,
        extra_from=model.extra_from,
        nodes=model.nodes,
        frozen_batch_norm=model.frozen_batch_norm,
        frozen_stem=model.frozen_stem,
    )
    head = RetinaNetHead(
        model.pyramid_channels,
        anchors.per_location,
        len(class_names),
        depth=model.head_depth,
        norm=model.head_norm,
        activation=model.head_activation,
        dropout=model.dropout,
        prior=model.prior,
    )
    postprocess = PostProcess(**config.postprocess.model_dump())
    return RetinaNet(
        backbone, head, anchors, postprocess, class_names=class_names, mean=model.mean, std=model.std
    )


def build_anchors(config: Config) -> AnchorGenerator:
    """The anchors of every pyramid level."""
    model = config.model
    return AnchorGenerator(
        model.anchor_sizes, model.anchor_ratios, strides=[2**level for level in model.levels]
    )


def place_model(model: RetinaNet, config: Config, device: torch.device) -> None:
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
