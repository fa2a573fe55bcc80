"""From a configuration to objects, by explicit calls: the one place where keys meet constructors."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from detkit import selection as selections
from detkit.config import (
    DATA_ROOT_VARIABLE,
    Config,
    Selection,
    Split,
    parse_config,
    with_data_root,
)
from detkit.console import say
from detkit.criterion import DetectionCriterion
from detkit.data.coco import CocoAnnotations, read_coco
from detkit.data.dataset import DetectionDataset, ImageFolderDataset, Sample
from detkit.data.loader import BatchLoader, BatchOrder, evaluation_loader, training_loader
from detkit.data.mixing import JoinedDataset, MixedOrder, Stream
from detkit.data.transforms import EvaluationTransform, TrainingTransform
from detkit.devices import Device, Placement, Precision, place
from detkit.errors import ConfigError
from detkit.evaluation import DetectionTable, GroundTruth, read_ground_truth
from detkit.inference import detect_batches, detection_table, run_detector
from detkit.mining.held_out import refuse_held_out
from detkit.mining.pool import (
    Pool,
    PoolDataset,
    PoolState,
    batches_of,
    coco_pool,
    folder_pool,
    image_files,
)
from detkit.mining.scan import DetectedImages
from detkit.mining.source import MiningSource
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


def build_run(config: Config, *, resumed: bool = False) -> Run:
    """Everything of a training run, from its configuration.

    A ``resumed`` run does not read ``model.weights``: a checkpoint follows.
    """
    placement = place(config.device, config.precision)
    file, images = split_paths(config, config.data.train)
    annotations = read_coco(file, config.data.classes)
    # Seeded here and nowhere else: the initial weights, and then dropout, draw from torch's global generator.
    torch.manual_seed(config.seed)
    model = build_model(config, annotations.class_names)
    if config.model.weights is not None and not resumed:
        say(str(load_weights(model, config.model.weights)))
    _move(model, config, placement.device)
    background = _background(config, annotations)
    step_size = config.training.batch_size * config.training.accumulate - _background_per_step(config)
    order = BatchOrder(len(annotations), step_size, seed=config.seed)
    plan = _plan(config, order.steps_per_epoch)
    dataset = DetectionDataset(annotations, images, build_training_transform(config), seed=config.seed)
    criterion = build_criterion(config)
    return Run(
        folder=Path(config.output),
        plan=plan,
        learner=_learner(config, model, criterion, plan.steps, placement),
        batches_from=_batches(config, [dataset, *background], order, plan, model),
        validate=_validator(config, criterion, model, placement),
        identity={
            "config": config.model_dump(mode="json"),
            "class_names": list(annotations.class_names),
            "category_ids": list(annotations.category_ids),
        },
        tensorboard=config.training.tensorboard,
    )


def _batches(
    config: Config, datasets: Sequence[Dataset[Sample]], order: BatchOrder, plan: Plan, model: RetinaNet
) -> Callable[[int], Iterator[Batch]]:
    """The batches from an optimiser step on, for the rest of the run; after the first, datasets are background."""
    joined = JoinedDataset(datasets)
    starts, sizes = joined.starts[1:-1].tolist(), [len(part) for part in joined.parts[1:]]  # type: ignore[arg-type]
    background = [
        (start, Stream(size, _background_per_step(config), config.seed))
        for start, size in zip(starts, sizes, strict=True)
    ]

    def batches_from(step: int) -> Iterator[Batch]:
        images = order.between(step, plan.steps, parts=plan.accumulate)
        keys = MixedOrder(images, background, first=step, parts=plan.accumulate)
        pinned = next(model.parameters()).is_cuda
        loader = training_loader(
            joined, keys, workers=config.data.workers, stride=model.stride, pin_memory=pinned
        )
        return iter(loader)

    return batches_from


def _background(config: Config, annotations: CocoAnnotations) -> list[Dataset[Sample]]:
    """The images without objects to train on, none where there are none.

    Raises:
        ConfigError: there is no such folder.
        DataError: one of them is also in validation or test.
    """
    told = config.data.background
    if told is None:
        return []
    pool = folder_pool(
        in_data_root(config, told.images),
        state=told.state,
        class_names=annotations.class_names,
        category_ids=annotations.category_ids,
    )
    refuse_held_out(pool.files.tolist(), held_out_images(config), near_duplicates=True)
    return [PoolDataset(pool, build_training_transform(config), seed=config.seed)]


def _background_per_step(config: Config) -> int:
    """Images without objects in each step."""
    told, training = config.data.background, config.training
    if told is None:
        return 0
    size = training.batch_size * training.accumulate
    count = max(1, round(told.share * size))
    if count >= size:
        raise ConfigError(
            f"data.background.share: {told.share} of {size} images in a step leaves none of train; lower it, or raise "
            "training.batch_size"
        )
    return count


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


def detect_coco(detector: Detector, annotations: Path, images: Path) -> tuple[GroundTruth, DetectionTable]:
    """What there is to find in the images of a COCO file, and what a detector finds; in the detector's classes."""
    classes = detector.model.class_names
    coco = read_coco(annotations, classes)
    dataset = DetectionDataset(coco, images, build_evaluation_transform(detector.config))
    table = _detect(detector, dataset, coco.category_ids, detector.config.data.workers)
    return read_ground_truth(annotations, classes), table


def detect_images(detector: Detector, paths: Sequence[Path], *, workers: int) -> DetectionTable:
    """What a detector finds in image files; an image's id is its place in ``paths``."""
    dataset = ImageFolderDataset(paths, build_evaluation_transform(detector.config))
    return _detect(detector, dataset, detector.category_ids, workers)


def mining_source(
    detector: Detector,
    images: Path,
    annotations: Path | None = None,
    *,
    state: PoolState,
    name: str,
    workers: int | None = None,
) -> MiningSource:
    """A detector over the images of a folder or COCO file, for mining; its threshold and limits hold.

    Args:
        detector: finds what is mined.
        images: the images, or the folder that the file names of the annotations start from.
        annotations: a COCO file.
        state: what is known of the objects in the images.
        name: the detector's, for the record.
        workers: processes that read images; None is as in training.

    Raises:
        ConfigError: the detector's classes are not those of the COCO file, and it was trained on all of its file's.
        DataError: the images cannot be used.
    """
    transform = build_evaluation_transform(detector.config)
    pool = _pool_for(detector, images, annotations, state)
    dataset = PoolDataset(pool, transform)

    def detect(wanted: Sequence[int]) -> Iterator[DetectedImages]:
        loader = BatchLoader(
            dataset,
            list(batches_of(wanted, detector.config.evaluation.batch_size)),
            workers=detector.config.data.workers if workers is None else workers,
            stride=detector.model.stride,
            pin_memory=detector.placement.device.type == "cuda",
        )
        for batch, found in detect_batches(detector.model, loader, placement=detector.placement):
            places = list(batch.image_ids)
            image_ids = pool.ground_truth.image_ids[places].tolist()
            table = detection_table(image_ids, found, pool.ground_truth.category_ids)
            yield DetectedImages(places, batch.original_sizes, table)

    return MiningSource(pool, detect, transform.size_for, name)


def _pool_for(detector: Detector, images: Path, annotations: Path | None, state: PoolState) -> Pool:
    classes = detector.model.class_names
    if annotations is None:
        return folder_pool(images, state=state, class_names=classes, category_ids=detector.category_ids)
    unknown = [name for name in read_coco(annotations).class_names if name not in classes]
    if unknown and detector.config.data.classes is None:
        raise ConfigError(
            f"{annotations}: has the classes {', '.join(unknown)}, which the checkpoint does not know (it knows "
            f"{', '.join(classes)}); mine with a checkpoint that was trained on these annotations"
        )
    return coco_pool(annotations, images, state=state, classes=classes)


def held_out_images(config: Config) -> list[str]:
    """The image files of validation and test.

    Raises:
        ConfigError: they are not there.
        DataError: their annotations cannot be used.
    """
    splits = [split for split in (config.data.val, config.data.test) if split is not None]
    return [file for split in splits for file in image_files(*split_paths(config, split))]


def _detect(
    detector: Detector, dataset: Dataset[Sample], category_ids: Sequence[int], workers: int
) -> DetectionTable:
    loader = _evaluation_loader(detector.config, dataset, detector.model, detector.placement, workers)
    return run_detector(
        detector.model,
        loader,
        category_ids=category_ids,
        placement=detector.placement,
        description="detecting",
        total=len(loader),
    )


def _evaluation_loader(
    config: Config, dataset: Dataset[Sample], model: RetinaNet, placement: Placement, workers: int
) -> BatchLoader:
    return evaluation_loader(
        dataset,
        batch_size=config.evaluation.batch_size,
        workers=workers,
        stride=model.stride,
        pin_memory=placement.device.type == "cuda",
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


def build_criterion(config: Config) -> DetectionCriterion:
    """Matching, selection and losses."""
    return DetectionCriterion(
        **config.loss.model_dump(),
        **config.matcher.model_dump(),
        selection=build_selection(config.selection),
    )


def build_selection(selection: Selection) -> selections.Selection | None:
    """Which anchors count; None for all."""
    parameters = selection.model_dump(exclude={"name"})
    match selection.name:
        case "all":
            return None
        case "random":
            return selections.RandomNegatives(**parameters)
        case "hard":
            return selections.HardNegatives(**parameters)
        case "ohem":
            return selections.HardExamples(**parameters)


def build_training_transform(config: Config) -> TrainingTransform:
    """The resize and augmentation of training."""
    data = config.data
    return TrainingTransform(
        data.resize.shorter, data.resize.longest, augment=data.augment, min_visible=data.min_visible
    )


def build_evaluation_transform(config: Config) -> EvaluationTransform:
    """The resize of evaluation; of several training sizes it takes the last."""
    return EvaluationTransform(config.data.resize.shorter, config.data.resize.longest)


def split_paths(config: Config, split: Split | None) -> tuple[Path, Path]:
    """The annotation file and the image folder of a split.

    Raises:
        ConfigError: the configuration has no such split or data root, or one of the two is not there.
    """
    if split is None:
        raise ConfigError("data.test: is not set in this configuration")
    return in_data_root(config, split.annotations), in_data_root(config, split.images)


def in_data_root(config: Config, name: str) -> Path:
    """A file or folder of the data.

    Raises:
        ConfigError: the data root is not set, or there is no such path.
    """
    if config.data.root is None:
        raise ConfigError(f"data.root: is not set; pass --data-root DIR or set {DATA_ROOT_VARIABLE}")
    path = Path(config.data.root, name)
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder; data.root is {config.data.root}")
    return path


def _plan(config: Config, steps_per_epoch: int) -> Plan:
    training = config.training
    stopping = training.early_stopping
    steps = training.steps or training.epochs * steps_per_epoch
    if config.schedule.name != "constant" and config.schedule.warmup_steps >= steps:
        raise ConfigError(
            f"schedule.warmup_steps: {config.schedule.warmup_steps} steps of warm-up leave nothing of a run of "
            f"{steps}; warm up for less, or train for more epochs"
        )
    return Plan(
        steps=steps,
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
    file, images = split_paths(config, config.data.val)
    annotations = read_coco(file, model.class_names)
    dataset = DetectionDataset(annotations, images, build_evaluation_transform(config))
    return Validator(
        loader=_evaluation_loader(config, dataset, model, placement, config.data.workers),
        ground_truth=read_ground_truth(file, model.class_names),
        criterion=criterion,
        category_ids=annotations.category_ids,
        placement=placement,
        backend=config.evaluation.backend,
    )


def _move(model: RetinaNet, config: Config, device: torch.device) -> None:
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
