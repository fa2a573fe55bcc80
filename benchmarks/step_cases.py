"""detkit's detector and torchvision's of the same architecture, and the calls of both that ``step.py`` times."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy import torchvision_twin
from timing import Call
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, box_iou

from detkit.builders import build_criterion, build_model
from detkit.config import Config, load_config
from detkit.criterion import DetectionCriterion
from detkit.devices import Placement
from detkit.models import RetinaNet
from detkit.models.backbone import freeze_batch_norm
from detkit.structures import DenseOutputs, ImageBatch, Target
from detkit.training.learner import Learner
from detkit.training.optimiser import build_optimiser
from detkit.training.schedule import LearningRateSchedule

DETKIT, TORCHVISION, CHANNELS_LAST = "detkit", "torchvision", "torchvision, channels_last"
STEP, LOSSES, MATCHING = "training step", "losses with matching", "matching"
DETECTION, FORWARD = "detection", "forward pass"
CONFIG = Path(__file__).parents[1] / "configs/coco-r50.yaml"
CANDIDATES = 1000
"""Scores of an image above the threshold, on average: a random detector has none, a trained one some hundreds."""
SETTINGS = {"learning_rate": 1e-10, "momentum": 0.9, "weight_decay": 1e-4}
"""Of SGD; so low a rate that a hundred steps on one batch leave the detector as it is."""

Calls = dict[str, Call]


@dataclass(frozen=True)
class Case:
    """What both detectors are given."""

    arch: str = "resnet18"
    size: int = 320
    batch: int = 8
    classes: int = 80
    boxes: int = 7
    """Of each image."""
    frozen: bool = False
    """Batch norm of the backbone, as where it comes trained."""

    def __str__(self) -> str:
        frozen = " frozen batch norm" if self.frozen else ""
        return f"{self.arch} {self.size}x{self.size} N={self.batch} K={self.classes} G={self.boxes}{frozen}"


class Inputs:
    """Two detectors with the same weights, and one batch, on a device."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.config = _config(case)
        torch.manual_seed(0)
        self.images, self.targets = _batch(case, device)
        self.ours = build_model(self.config, [f"class {index}" for index in range(case.classes)])
        self.ours.to(device=device, memory_format=torch.channels_last)
        _learn_statistics(self.ours, self.images)
        _spread_scores(self.ours, self.images)
        self.theirs = torchvision_twin(self.config, self.ours).to(device)
        # Images arrive in their final size, in evaluation too.
        self.theirs.transform.resize = lambda image, target: (image, target)
        if case.frozen:
            freeze_batch_norm(self.ours.backbone.body)
            freeze_batch_norm(self.theirs.backbone.body, FrozenBatchNorm2d)

    def calls(self, implementation: str, dtype: torch.dtype) -> Calls:
        """The calls of one implementation, by what they measure."""
        placement = Placement(self.device, dtype)
        if implementation == DETKIT:
            return _our_calls(self, placement)
        model = copy.deepcopy(self.theirs)
        layout = torch.channels_last if implementation == CHANNELS_LAST else torch.contiguous_format
        return _their_calls(self, model.to(memory_format=layout), placement)


def _config(case: Case) -> Config:
    size = f"data.resize={{shorter: {case.size}, longest: {case.size}}}"
    # What torchvision's losses and detector do not have is switched off.
    same = [
        "loss.box_beta=0.0",
        "model.weights=null",
        "model.frozen_batch_norm=false",
        "model.frozen_stem=false",
    ]
    return load_config(CONFIG, [f"model.backbone={case.arch}", size, *same])


def _batch(case: Case, device: torch.device) -> tuple[Tensor, list[Target]]:
    """Noise, uint8 [N, 3, H, W], and boxes whose sides are spread evenly over the octaves of the anchors."""
    images = torch.randint(256, (case.batch, 3, case.size, case.size), dtype=torch.uint8)
    targets: list[Target] = []
    for _ in range(case.batch):
        sides = 16 * (case.size / 20) ** torch.rand(case.boxes, 1) * torch.rand(case.boxes, 2).add(0.5)
        sides = sides.clamp(max=case.size)
        corners = torch.rand(case.boxes, 2) * (case.size - sides)
        boxes = torch.cat([corners, corners + sides], dim=1)
        labels = torch.randint(case.classes, (case.boxes,))
        targets.append({"boxes": boxes.to(device), "labels": labels.to(device)})
    return images.to(device), targets


@torch.no_grad()
def _learn_statistics(model: RetinaNet, images: Tensor) -> None:
    """Make the batch's own statistics those of batch norm, so that steps on this batch do not move them."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train().dense(_image_batch(images))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.inference_mode()
def _spread_scores(model: RetinaNet, images: Tensor) -> None:
    """Scale and shift the class logits so that CANDIDATES scores an image pass the threshold."""
    last = model.head.classification_head.cls_logits
    logits = torch.cat([level.flatten() for level in model.eval().dense(_image_batch(images)).logits])
    threshold = torch.tensor(model.postprocess.score_threshold).logit()
    least = logits.topk(min(len(logits), CANDIDATES * len(images))).values[-1]
    last.weight.div_(logits.std())
    last.bias.copy_((last.bias - least) / logits.std() + threshold)


def _image_batch(images: Tensor) -> ImageBatch:
    sizes = (tuple(images.shape[2:]),) * len(images)
    return ImageBatch(images, sizes, sizes)


def _our_calls(inputs: Inputs, placement: Placement) -> Calls:
    """The learner's own step, and its parts."""
    model, targets = inputs.ours, inputs.targets
    images = _image_batch(inputs.images)
    criterion = build_criterion(inputs.config)
    learner = Learner(
        model=model,
        criterion=criterion,
        optimiser=build_optimiser(model, "sgd", **SETTINGS),
        schedule=LearningRateSchedule("constant", steps=1),
        placement=placement,
    )

    def dense() -> DenseOutputs:
        with placement.autocast():
            return model.dense(images)

    def detect() -> Any:
        return model.postprocess(dense(), images.sizes, images.original_sizes)

    return {
        STEP: Call(lambda: learner.step([(images, targets)], 0)),
        **_our_loss_calls(criterion, _without_gradients(dense, model), targets),
        DETECTION: _evaluation(detect, model),
        FORWARD: _evaluation(dense, model),
    }


def _our_loss_calls(criterion: DetectionCriterion, outputs: DenseOutputs, targets: Sequence[Target]) -> Calls:
    leaves = [level.requires_grad_() for level in (*outputs.logits, *outputs.deltas)]
    anchors = torch.cat(list(outputs.anchors))
    return {
        LOSSES: Call(lambda: torch.autograd.grad(sum(criterion(outputs, targets).values()), leaves)),
        MATCHING: Call(lambda: criterion.match(anchors, targets)),
    }


def _their_calls(inputs: Inputs, model: TorchvisionRetinaNet, placement: Placement) -> Calls:
    """A step as torchvision's reference loop takes it, and its parts."""
    images = list(inputs.images.float() / 255)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=SETTINGS["learning_rate"], momentum=0.9, weight_decay=1e-4
    )

    def step() -> float:
        with placement.autocast():
            loss = sum(model(images, inputs.targets).values())
        value = loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return value

    def dense() -> tuple[ImageList, list[Tensor], dict[str, Tensor]]:
        with placement.autocast():
            batch, _ = model.transform(images)
            features = list(model.backbone(batch.tensors).values())
            return batch, features, model.head(features)

    def detect() -> Any:
        with placement.autocast():
            return model(images)

    batch, features, outputs = _without_gradients(dense, model)
    anchors = model.anchor_generator(batch, features)
    return {
        STEP: Call(lambda _: step(), prepare=model.train),
        **_their_loss_calls(model, outputs, anchors, inputs.targets),
        DETECTION: _evaluation(detect, model),
        FORWARD: _evaluation(dense, model),
    }


def _their_loss_calls(
    model: TorchvisionRetinaNet, outputs: dict[str, Tensor], anchors: list[Tensor], targets: Sequence[Target]
) -> Calls:
    leaves = [value.requires_grad_() for value in outputs.values()]

    def losses() -> Any:
        return torch.autograd.grad(sum(model.compute_loss(targets, outputs, anchors).values()), leaves)

    def match() -> Any:
        return [
            model.proposal_matcher(box_iou(target["boxes"], of_image))
            for target, of_image in zip(targets, anchors, strict=True)
        ]

    return {LOSSES: Call(losses), MATCHING: Call(match)}


def _evaluation(run: Callable[[], Any], model: nn.Module) -> Call:
    return Call(lambda _: torch.inference_mode()(run)(), prepare=model.eval)


@torch.no_grad()
def _without_gradients(run: Callable[[], Any], model: nn.Module) -> Any:
    model.train()
    return run()
