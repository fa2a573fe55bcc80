"""The images that mining looks for negatives in, and what is known of the objects in them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from detkit.data.coco import read_coco
from detkit.data.dataset import Sample, SampleKey, sample_seed, tracked_target
from detkit.data.images import find_images, inspect_image, read_image
from detkit.data.transforms import Transform
from detkit.errors import ConfigError, DataError
from detkit.evaluation import GroundTruth, read_ground_truth
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.files import sha256_of
from detkit.mining.negative_set import real_paths
from detkit.structures import Target

PoolState = Literal["annotated", "verified-empty", "unverified"]
"""What is known: every object has a box; there is no object at all; objects without a box may be among the images."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Images, by their place in the pool.

    Raises:
        DataError: there is no image, or a pool that is declared empty has objects.
    """

    name: str
    """The folder or file, for messages and manifests."""
    state: PoolState
    folder: Path
    """What the names start from."""
    names: np.ndarray
    """Of the image files, relative to the folder, str [I]."""
    ground_truth: GroundTruth
    """The objects of the classes that are looked for; its images are in the order of the files."""
    sizes: np.ndarray | None = None
    """(height, width) of each image as its annotations say, int32 [I, 2]; None for files without annotations."""

    def __post_init__(self) -> None:
        if not len(self.names):
            raise DataError(f"{self.name}: the pool is empty; give a folder or COCO file with images")
        if self.state == "verified-empty" and len(self.ground_truth):
            raise DataError(
                f"{self.name}: was declared verified-empty, but has {len(self.ground_truth)} boxes of "
                f"{', '.join(self.ground_truth.class_names)}; leave these images out, or do not declare it empty"
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def files(self) -> np.ndarray:
        """The paths of the images, str [I]."""
        return np.array([str(self.folder / name) for name in self.names.tolist()])

    @cached_property
    def real_files(self) -> np.ndarray:
        """The paths of the images, however the folder was told: str [I]."""
        return real_paths(self.files)

    def digest(self, index: int) -> str:
        """The first 16 digits of the SHA-256 of an image's file, which is read once."""
        if index not in self._digests:
            self._digests[index] = sha256_of(self.files[index])[:16]
        return self._digests[index]

    @cached_property
    def _digests(self) -> dict[int, str]:
        return {}

    def part(self, index: int, count: int) -> range:
        """The images of one of ``count`` equal parts; each image is in one part, and a part is spread over the pool.

        Raises:
            DataError: the part has no image.
        """
        part = range(len(self))[index::count]
        if not part:
            raise DataError(
                f"{self.name}: has {len(self)} images, so that part {index + 1} of {count} is empty"
            )
        return part

    def read(self, index: int) -> np.ndarray:
        """An image, uint8 RGB [H, W, 3].

        Raises:
            DataError: the file cannot be used.
        """
        size = None if self.sizes is None else tuple(self.sizes[index].tolist())
        return read_image(self.files[index], size)

    def image_sizes(self) -> np.ndarray:
        """(height, width) of every image, int64 [I, 2]; where no annotations say it, every file is read.

        Raises:
            DataError: a file cannot be used.
        """
        if self.sizes is not None:
            return self.sizes
        with ThreadPoolExecutor() as threads:
            facts = threads.map(inspect_image, self.files.tolist())
            return np.array([one.upright_size for one in facts])

    def objects_in(self, images: Sequence[int]) -> GroundTruth:
        """The ground truth of these images alone."""
        truth, starts = self.ground_truth, self._object_starts
        rows = [self._object_order[starts[index] : starts[index + 1]] for index in images]
        chosen = np.concatenate([np.zeros(0, np.int64), *rows])
        return replace(
            truth,
            image_ids=truth.image_ids[list(images)],
            object_image_ids=truth.object_image_ids[chosen],
            object_category_ids=truth.object_category_ids[chosen],
            boxes=truth.boxes[chosen],
            areas=truth.areas[chosen],
            crowd=truth.crowd[chosen],
        )

    def regions_in(self, boxes: Mapping[str, np.ndarray]) -> IgnoreRegions:
        """Boxes, xyxy [M, 4] by the name of their image, as regions; those of other images are left out."""
        found = [
            (image_id, boxes[name])
            for name, image_id in zip(self.names.tolist(), self.ground_truth.image_ids.tolist(), strict=True)
            if name in boxes
        ]
        image_ids = np.array([image_id for image_id, of_image in found for _ in of_image], dtype=np.int64)
        return IgnoreRegions(image_ids, np.concatenate([np.zeros((0, 4)), *(one for _, one in found)]))

    def files_of(self, regions: IgnoreRegions) -> list[tuple[str, list[float]]]:
        """The file and box of each region."""
        files = self.files[self.places_of(regions.image_ids)].tolist()
        return list(zip(files, regions.boxes.tolist(), strict=True))

    def places_of(self, image_ids: np.ndarray) -> np.ndarray:
        """The place in the pool of each image id, which must be one of its own: int64 [N]."""
        order = np.argsort(self.ground_truth.image_ids)
        return order[np.searchsorted(self.ground_truth.image_ids, image_ids, sorter=order)]

    @cached_property
    def _object_order(self) -> np.ndarray:
        return np.argsort(self.places_of(self.ground_truth.object_image_ids), kind="stable")

    @cached_property
    def _object_starts(self) -> np.ndarray:
        places = self.places_of(self.ground_truth.object_image_ids)
        return np.concatenate([[0], np.cumsum(np.bincount(places, minlength=len(self)))])


def coco_pool(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    *,
    state: PoolState = "annotated",
    classes: Sequence[str] | None = None,
) -> Pool:
    """The images of a COCO file.

    Args:
        annotations: the file.
        images: the folder that its file names start from.
        state: what its boxes are.
        classes: names of the classes that are looked for; boxes of others are background. None looks for all.

    Raises:
        DataError: the file cannot be used, has no image, or lacks a class.
    """
    coco = read_coco(annotations, classes)
    return Pool(
        name=str(annotations),
        state=state,
        folder=Path(images),
        names=coco.file_names,
        ground_truth=read_ground_truth(annotations, classes),
        sizes=coco.sizes,
    )


def folder_pool(
    folder: str | os.PathLike,
    *,
    state: PoolState,
    class_names: Sequence[str],
    category_ids: Sequence[int],
) -> Pool:
    """The image files in and below a folder, by name; an image's id is its place.

    Args:
        folder: where the images are.
        state: "verified-empty" or "unverified".
        class_names, category_ids: of the detector's classes.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if Path(folder).is_file():
        raise DataError(f"{folder}: is a file; name the folder of the images")
    files = find_images([folder])
    nothing = np.zeros(0, dtype=np.int64)
    return Pool(
        name=str(folder),
        state=state,
        folder=Path(folder),
        names=np.array([file.relative_to(folder).as_posix() for file in files]),
        ground_truth=GroundTruth(
            image_ids=np.arange(len(files)),
            category_ids=tuple(category_ids),
            class_names=tuple(class_names),
            object_image_ids=nothing,
            object_category_ids=nothing,
            boxes=np.zeros((0, 4)),
            areas=np.zeros(0),
            crowd=np.zeros(0, dtype=bool),
        ),
    )


def image_files(source: str | os.PathLike, images: str | os.PathLike | None = None) -> list[str]:
    """The image files of a folder, or of a COCO file whose file names start from ``images``, or else its own folder.

    Raises:
        DataError: the folder or file cannot be used, or has no image.
    """
    path = Path(source)
    if path.suffix.lower() != ".json":
        return [str(file) for file in find_images([path])]
    folder = path.parent if images is None else Path(images)
    return [str(folder / name) for name in read_coco(path).file_names.tolist()]


def tracked_id(place: int) -> int:
    """The id with which the targets of a ``PoolDataset`` tell an image by its place: as no training image has it."""
    return -1 - place


class PoolDataset(Dataset[Sample]):
    """The images of a pool for a loader; targets are without objects, and a sample's image id is its place in the pool.

    Args:
        pool: the images.
        transform: an ``EvaluationTransform`` to look for objects, a ``TrainingTransform`` to train against.
        seed: the run's; augmentation draws a fresh one for every epoch and image.
        tracked: targets tell the image (see ``tracked_id``) and the way to it, for selections that remember places in
            images.
        ignore: what counts neither as object nor as background.
    """

    def __init__(
        self,
        pool: Pool,
        transform: Transform,
        *,
        seed: int = 0,
        tracked: bool = False,
        ignore: IgnoreRegions | None = None,
    ) -> None:
        self.pool = pool
        self.transform = transform
        self.seed = seed
        self.tracked = tracked
        self.ignore = ignore or IgnoreRegions.none()

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read and transform one image.

        Raises:
            DataError: the file is missing, is no image, or has another size than its annotations say.
            ConfigError: the augmentation cannot be applied to this image.
        """
        original = self.pool.read(key.image)
        ignored = self.ignore.boxes[self.ignore.image_ids == self.pool.ground_truth.image_ids[key.image]]
        crowd = np.ones(len(ignored), dtype=bool)
        try:
            image, regions, _, affine = self.transform(
                original, ignored.astype(np.float32), sample_seed(self.seed, key), crowd
            )
            tracked = None
            if self.tracked:
                tracked = tracked_target(tracked_id(key.image), affine, image.shape, original.shape)
        except ConfigError as error:
            raise ConfigError(f"{error} (image {self.pool.files[key.image]}, epoch {key.epoch})") from error
        target = Target(
            boxes=torch.zeros((0, 4)),
            labels=torch.zeros(0, dtype=torch.int64),
            ignore_regions=torch.from_numpy(regions),
        )
        if tracked is not None:
            target |= tracked
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
            target=target,
            image_id=key.image,
            file_name=str(self.pool.files[key.image]),
            original_size=original.shape[:2],
        )


def batches_of(images: Sequence[int], size: int) -> Iterator[list[SampleKey]]:
    """The keys of a ``PoolDataset``'s batches, in order."""
    for start in range(0, len(images), size):
        yield [SampleKey(0, index) for index in images[start : start + size]]
