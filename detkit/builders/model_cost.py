"""What a detector costs to use, counted without computing anything."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from detkit.builders.data import build_evaluation_transform
from detkit.builders.model import build_model
from detkit.config import Config
from detkit.data.coco import read_coco
from detkit.evaluation.search_results import ModelCost
from detkit.models import RetinaNet
from detkit.structures import ImageBatch


class ModelCosts:
    """Costs of models that see the images of one COCO file."""

    def __init__(self, annotations: Path) -> None:
        """Read the sizes of the images; the commonest stands for all."""
        coco = read_coco(annotations)
        self._classes = coco.class_names
        sizes, counts = np.unique(coco.sizes, axis=0, return_counts=True)
        self._size = (int(sizes[counts.argmax()][0]), int(sizes[counts.argmax()][1]))
        self._known: dict[str, ModelCost] = {}

    def of(self, config: Config) -> ModelCost:
        """Parameters, and FLOPs of one image at the evaluation size, as plain convolutions.

        Raises:
            ConfigError: there is no such model.
        """
        key = config.model.model_dump_json() + config.data.resize.model_dump_json()
        if key not in self._known:
            self._known[key] = self._count(config)
        return self._known[key]

    def _count(self, config: Config) -> ModelCost:
        # On the meta device tensors have a shape and no values, so that neither size nor a GPU makes a difference.
        model = build_model(config, config.data.classes or self._classes).eval().to("meta")
        size = build_evaluation_transform(config).size_for(self._size)
        height, width = (side + -side % model.stride for side in size)
        return ModelCost(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            flops=_flops(model, height, width),
            height=height,
            width=width,
        )


def _flops(model: RetinaNet, height: int, width: int) -> int:
    pixels = torch.empty(1, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.dense(ImageBatch(pixels, ((height, width),), ((height, width),)))
    return int(counter.get_total_flops())
