"""A trained model, and what it is used for: to detect and to mine."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset

from detkit.builders.data import build_evaluation_loader, build_evaluation_transform
from detkit.builders.model import build_model, place_model
from detkit.config import Config, parse_config, with_data_root
from detkit.data.coco import read_coco
from detkit.data.dataset import DetectionDataset, ImageFolderDataset, Sample
from detkit.data.loader import BatchLoader
from detkit.devices import Device, Placement, Precision, place
from detkit.errors import ConfigError
from detkit.evaluation import DetectionTable, GroundTruth, read_ground_truth
from detkit.inference import Observer, detect_batches, detection_table, run_detector
from detkit.mining.pool import Pool, PoolDataset, PoolState, batches_of, coco_pool, folder_pool
from detkit.mining.scan import DetectedImages
from detkit.mining.source import MiningSource
from detkit.models import RetinaNet
from detkit.training.checkpoint import load_checkpoint


@dataclass(frozen=True)
class Detector:
    """A trained model with all that is needed to predict."""

    model: RetinaNet
    config: Config
    category_ids: tuple[int, ...]
    placement: Placement


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
    pool = _pool_for(detector, images, annotations, state)
    return source_of_pool(detector, pool, name=name, workers=workers)


def source_of_pool(detector: Detector, pool: Pool, *, name: str, workers: int | None = None) -> MiningSource:
    """A detector over a pool of its classes; arguments as of ``mining_source``."""
    transform = build_evaluation_transform(detector.config)
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
