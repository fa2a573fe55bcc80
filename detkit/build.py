"""From a configuration to objects, by explicit calls: the one place where keys meet constructors."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from detkit.config import (
    DATA_ROOT_VARIABLE,
    Config,
    Resize,
    Split,
    parse_config,
    with_data_root,
)
from detkit.console import say
from detkit.criterion import DetectionCriterion
from detkit.data.coco import CocoAnnotations, read_coco
from detkit.data.dataset import DetectionDataset, ImageFolderDataset, Sample
from detkit.data.loader import BatchOrder, evaluation_loader, training_loader
from detkit.data.transforms import EvaluationTransform, TrainingTransform, resized_size
from detkit.devices import Device, Placement, Precision, place
from detkit.errors import ConfigError
from detkit.evaluation import DetectionTable, GroundTruth, read_ground_truth
from detkit.inference import run_detector
from detkit.models import (
    AnchorGenerator,
    PostProcess,
    PyramidBackbone,
    RetinaNet,
    RetinaNetHead,
    load_weights,
)
from detkit.training.averaging import moving_average
from detkit.training.checkpoint import load_checkpoint
from detkit.training.learner import Batch, Learner
from detkit.training.loop import Plan, Run
from detkit.training.optimiser import build_optimiser
from detkit.training.schedule import LearningRateSchedule
from detkit.training.validation import Validator


@dataclass(frozen=True)
class Detector:
    """A trained model with all that is needed to predict."""

    model: RetinaNet
    config: Config
    category_ids: tuple[int, ...]
    placement: Placement


def build_run(config: Config) -> Run:
    """Everything of a training run, from its configuration."""
    placement = place(config.device, config.precision)
    annotations, images = read_split(config, config.data.train)
    # Seeded here and nowhere else: the initial weights, and then dropout, draw from torch's global generator.
    torch.manual_seed(config.seed)
    model = build_model(config, annotations.class_names)
    if config.model.weights is not None:
        say(str(load_weights(model, config.model.weights)))
    _move(model, config, placement.device)
    training = config.training
    order = BatchOrder(len(annotations), training.batch_size * training.accumulate, seed=config.seed)
    plan = _plan(config, order.steps_per_epoch)
    dataset = DetectionDataset(annotations, images, build_training_transform(config), seed=config.seed)

    def batches_from(step: int) -> Iterator[Batch]:
        return iter(
            training_loader(
                dataset,
                order.between(step, plan.steps, parts=training.accumulate),
                workers=config.data.workers,
                stride=model.stride,
                pin_memory=placement.device.type == "cuda",
            )
        )

    criterion = build_criterion(config)
    return Run(
        folder=Path(config.output),
        plan=plan,
        learner=_learner(config, model, criterion, plan.steps, placement),
        batches_from=batches_from,
        validate=_validator(config, criterion, model, placement),
        identity={
            "config": config.model_dump(mode="json"),
            "class_names": list(annotations.class_names),
            "category_ids": list(annotations.category_ids),
        },
        tensorboard=training.tensorboard,
    )


def load_detector(
    path: str | os.PathLike,
    *,
    device: Device | None = None,
    precision: Precision | None = None,
    data_root: str | None = None,
) -> Detector:
    """The model of a checkpoint, in evaluation mode; what is not given is as in its configuration.

    Raises:
        WeightsError: the file is no checkpoint.
        ConfigError: its configuration is not of this version of detkit, or the device is not there.
    """
    checkpoint = load_checkpoint(path)
    config = parse_config(with_data_root(checkpoint["config"], data_root), source=str(path))
    placement = place(device or config.device, precision or config.precision)
    model = build_model(config, checkpoint["class_names"])
    model.load_state_dict(checkpoint["model"])
    _move(model, config, placement.device)
    return Detector(model.eval(), config, tuple(checkpoint["category_ids"]), placement)


def detect_split(detector: Detector, name: str) -> tuple[GroundTruth, DetectionTable]:
    """What there is to find in a split (``train``, ``val`` or ``test``) of a detector's data, and what it finds."""
    split = getattr(detector.config.data, name)
    if split is None:
        raise ConfigError(f"data.{name}: is not set in the checkpoint's configuration")
    classes = detector.model.class_names
    annotations, images = read_split(detector.config, split, classes)
    dataset = DetectionDataset(annotations, images, build_evaluation_transform(detector.config))
    table = _detect(detector, dataset, annotations.category_ids, detector.config.data.workers)
    return read_split_truth(detector.config, split, classes), table


def detect_images(detector: Detector, paths: Sequence[Path], *, workers: int) -> DetectionTable:
    """What a detector finds in image files; an image's id is its place in ``paths``."""
    dataset = ImageFolderDataset(paths, build_evaluation_transform(detector.config))
    return _detect(detector, dataset, detector.category_ids, workers)


def _detect(
    detector: Detector, dataset: Dataset[Sample], category_ids: Sequence[int], workers: int
) -> DetectionTable:
    loader = evaluation_loader(
        dataset,
        batch_size=detector.config.evaluation.batch_size,
        workers=workers,
        stride=detector.model.stride,
        pin_memory=detector.placement.device.type == "cuda",
    )
    return run_detector(
        detector.model,
        loader,
        category_ids=category_ids,
        placement=detector.placement,
        description="detecting",
        total=len(loader),
    )


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


def build_criterion(config: Config) -> DetectionCriterion:
    """Matching and losses."""
    return DetectionCriterion(**config.loss.model_dump(), **config.matcher.model_dump())


def evaluation_size(resize: Resize, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that evaluation resizes an image of ``size`` to."""
    return resized_size(size, _evaluated(resize), resize.longest)


def build_training_transform(config: Config) -> TrainingTransform:
    """The resize and augmentation of training."""
    data = config.data
    return TrainingTransform(
        data.resize.shorter, data.resize.longest, augment=data.augment, min_visible=data.min_visible
    )


def build_evaluation_transform(config: Config) -> EvaluationTransform:
    """The resize of evaluation; of several training sizes it takes the last."""
    return EvaluationTransform(_evaluated(config.data.resize), config.data.resize.longest)


def read_split(
    config: Config, split: Split, classes: Sequence[str] | None = None
) -> tuple[CocoAnnotations, Path]:
    """The annotations of a split and its image folder; ``classes`` in their order, or the configured ones."""
    annotations, images = split_paths(config, split)
    return read_coco(annotations, classes or config.data.classes), images


def read_split_truth(config: Config, split: Split, classes: Sequence[str]) -> GroundTruth:
    """What a split is measured against, narrowed to the classes of a model."""
    return read_ground_truth(split_paths(config, split)[0], classes)


def split_paths(config: Config, split: Split) -> tuple[Path, Path]:
    """The annotation file and the image folder of a split.

    Raises:
        ConfigError: no data root is set, or one of the two is not there.
    """
    if config.data.root is None:
        raise ConfigError(f"data.root: is not set; pass --data-root DIR or set {DATA_ROOT_VARIABLE}")
    annotations = Path(config.data.root, split.annotations)
    images = Path(config.data.root, split.images)
    for path in (annotations, images):
        if not path.exists():
            raise ConfigError(f"{path}: there is no such file or folder; data.root is {config.data.root}")
    return annotations, images


def _plan(config: Config, steps_per_epoch: int) -> Plan:
    training = config.training
    stopping = training.early_stopping
    return Plan(
        epochs=training.epochs,
        steps_per_epoch=steps_per_epoch,
        accumulate=training.accumulate,
        validate_every=training.validate_every,
        metric=training.metric,
        patience=stopping.patience if stopping else None,
        min_gain=stopping.min_gain if stopping else 0.0,
        checkpoint_every=training.checkpoint_every,
        log_every=training.log_every,
    )


def _learner(
    config: Config,
    model: RetinaNet,
    criterion: DetectionCriterion,
    steps: int,
    placement: Placement,
) -> Learner:
    decay = config.training.ema_decay
    settings: dict[str, Any] = config.schedule.model_dump()
    return Learner(
        model=model,
        criterion=criterion,
        optimiser=build_optimiser(model, **config.optimiser.model_dump()),
        schedule=LearningRateSchedule(steps=steps, **settings),
        placement=placement,
        clip_norm=config.training.clip_norm,
        average=None if decay is None else moving_average(model, decay),
    )


def _validator(
    config: Config,
    criterion: DetectionCriterion,
    model: RetinaNet,
    placement: Placement,
) -> Validator:
    # In the order of the training classes; a class that validation does not know is refused by name.
    annotations, images = read_split(config, config.data.val, model.class_names)
    dataset = DetectionDataset(annotations, images, build_evaluation_transform(config))
    return Validator(
        loader=evaluation_loader(
            dataset, batch_size=config.evaluation.batch_size, workers=config.data.workers, stride=model.stride
        ),
        ground_truth=read_split_truth(config, config.data.val, model.class_names),
        criterion=criterion,
        category_ids=annotations.category_ids,
        placement=placement,
        backend=config.evaluation.backend,
    )


def _move(model: RetinaNet, config: Config, device: torch.device) -> None:
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def _evaluated(resize: Resize) -> int:
    return resize.shorter if isinstance(resize.shorter, int) else resize.shorter[-1]
