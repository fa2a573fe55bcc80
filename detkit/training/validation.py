"""Validation: the loss and the COCO metrics of one pass over the validation images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from detkit.data.loader import BatchLoader
from detkit.devices import Placement
from detkit.evaluation import Backend, GroundTruth, evaluate_boxes, restrict
from detkit.evaluation.compared_metrics import FALSE_POSITIVE_LEVELS, recall_at_name
from detkit.evaluation.detection_curve import detection_curve
from detkit.evaluation.symptoms import symptoms
from detkit.inference import run_detector
from detkit.models import RetinaNet
from detkit.structures import DenseOutputs, Target
from detkit.training.learner import on_device


@dataclass(frozen=True)
class Validator:
    """Measures a model on the validation set; call it with the model."""

    loader: BatchLoader
    ground_truth: GroundTruth
    criterion: nn.Module
    category_ids: Sequence[int]
    placement: Placement
    backend: Backend = "pycocotools"
    false_positives: Sequence[float] = FALSE_POSITIVE_LEVELS
    """Per image, at which recall is measured."""

    def __call__(self, model: RetinaNet) -> dict[str, Any]:
        """Losses (means over images), COCO's metrics, recall at IoU .5 by ``recall_at_name``, and ``Symptoms``."""
        sums: dict[str, float] = {}

        def add_losses(outputs: DenseOutputs, targets: list[Target]) -> None:
            losses = self.criterion(outputs, on_device(targets, self.placement.device))
            losses = {"loss": sum(losses.values()), **losses}
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(targets)

        table = run_detector(
            model,
            self.loader,
            category_ids=self.category_ids,
            placement=self.placement,
            description="validating",
            total=len(self.loader),
            observe=add_losses,
        )
        metrics = evaluate_boxes(self.ground_truth, table, backend=self.backend)
        table = restrict(table, self.ground_truth)
        curve = detection_curve(self.ground_truth, table)
        images = len(self.ground_truth.image_ids)
        return {
            **{name: value / images for name, value in sums.items()},
            **metrics.overall,
            **{recall_at_name(level): curve.recall_at(level) for level in self.false_positives},
            **symptoms(self.ground_truth, table).record(),
        }
