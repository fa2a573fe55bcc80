"""What is mined: a detector, or any program's results, over a pool; and what must not be."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from detkit.builders.data import build_evaluation_transform, held_out_images
from detkit.builders.detector import Detector
from detkit.console import warn
from detkit.data.coco import read_coco
from detkit.data.loader import BatchLoader
from detkit.errors import ConfigError
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks, read_review_marks
from detkit.inference import detect_batches, detection_table
from detkit.mining.pool import Pool, PoolDataset, PoolState, batches_of, coco_pool, folder_pool, image_files
from detkit.mining.scan import DetectedImages
from detkit.mining.source import MiningSource


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


def images_not_to_mine(detector: Detector) -> list[str]:
    """The image files of validation and test that a detector was trained beside.

    Raises:
        ConfigError: they are not there.
    """
    try:
        return held_out_images(detector.config)
    except ConfigError as error:
        remedy = (
            "the images of validation and test must not be mined: name them with --held-out or --data-root"
        )
        raise ConfigError(f"{error}; {remedy}") from None


def named_images(names: Sequence[str], images: Path) -> list[str]:
    """The image files of folders, and of COCO files as ``GT.json=DIR``, or ``GT.json`` alone for those in ``images``.

    Raises:
        DataError: a folder or file cannot be used, or has no image.
    """
    found = []
    for name in names:
        path, _, folder = name.partition("=")
        found += image_files(name) if Path(name).is_dir() else image_files(path, folder or images)
    return found


def marks_in_pool(path: Path | None, pool: Pool) -> ReviewMarks:
    """A person's marks of places in a pool; says how many are of other images.

    Raises:
        DataError: the file is no file of marks.
    """
    if path is None:
        return NO_MARKS
    told = read_review_marks(path)
    marks = told.of_images(pool.folder, pool.names.tolist())
    others = told.without(marks)
    if others:
        warn(
            f"{path}: {len(others)} marks are of images that are not mined here, as {others[0].file_name!r}; names "
            "start from the folder of the images, or are as in the annotations"
        )
    return marks


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
