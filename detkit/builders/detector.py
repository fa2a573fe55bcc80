"""A trained model, and what it finds."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from detkit.builders.data import build_evaluation_loader, build_evaluation_transform, split_paths
from detkit.builders.model import build_model, place_model
from detkit.config import Config, parse_config, with_data_root
from detkit.data.coco import read_coco
from detkit.data.dataset import DetectionDataset, ImageFolderDataset, Sample
from detkit.devices import Device, Placement, Precision, place
from detkit.evaluation import DetectionTable, GroundTruth, read_ground_truth
from detkit.inference import Observer, run_detector
from detkit.models import RetinaNet
from detkit.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Detector:
    """A trained model with all that is needed to predict."""

    model: RetinaNet
    config: Config
    category_ids: tuple[int, ...]
    placement: Placement

    @property
    def names(self) -> Mapping[int, str]:
        """The name of each class by its COCO id."""
        return dict(zip(self.category_ids, self.model.class_names, strict=True))


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
    place_model(model, config, placement.device)
    return Detector(model.eval(), config, tuple(checkpoint["category_ids"]), placement)


def detect_coco(
    detector: Detector, annotations: Path, images: Path, *, observe: Observer | None = None
) -> tuple[GroundTruth, DetectionTable]:
    """What there is to find in the images of a COCO file, and what a detector finds; in the detector's classes.

    ``observe`` is called with the dense outputs and targets of each batch.
    """
    classes = detector.model.class_names
    coco = read_coco(annotations, classes)
    dataset = DetectionDataset(coco, images, build_evaluation_transform(detector.config))
    table = _detect(detector, dataset, coco.category_ids, detector.config.data.workers, observe)
    return read_ground_truth(annotations, classes), table


def files_of(
    detector: Detector, split: str, annotations: Path | None = None, images: Path | None = None
) -> tuple[Path, Path]:
    """The COCO file and the folder of images that are given, or else those of a split of the detector's data.

    Raises:
        ConfigError: its configuration has no such split or data root, or one of the two is not there.
    """
    if annotations is None or images is None:
        return split_paths(detector.config, getattr(detector.config.data, split))
    return annotations, images


def detect_images(detector: Detector, paths: Sequence[Path], *, workers: int) -> DetectionTable:
    """What a detector finds in image files; an image's id is its place in ``paths``."""
    dataset = ImageFolderDataset(paths, build_evaluation_transform(detector.config))
    return _detect(detector, dataset, detector.category_ids, workers)


def _detect(
    detector: Detector,
    dataset: Dataset[Sample],
    category_ids: Sequence[int],
    workers: int,
    observe: Observer | None = None,
) -> DetectionTable:
    loader = build_evaluation_loader(detector.config, dataset, detector.model, detector.placement, workers)
    return run_detector(
        detector.model,
        loader,
        category_ids=category_ids,
        placement=detector.placement,
        description="detecting",
        total=len(loader),
        observe=observe,
    )
