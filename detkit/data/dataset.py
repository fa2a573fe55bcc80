"""Sets of images: read, transformed, and turned into tensors one at a time.

A sample depends on the seed, the epoch and its index alone, so it comes out the same in any worker process,
in any order, and after a run was resumed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detkit.data.coco import CocoAnnotations
from detkit.data.images import read_image
from detkit.data.transforms import Transform
from detkit.errors import ConfigError
from detkit.structures import Target


class SampleKey(NamedTuple):
    """An image of the set in one epoch, for augmentation differs from epoch to epoch."""

    epoch: int
    image: int
    """Its place in the set."""


def sample_seed(seed: int, key: SampleKey) -> int:
    """What decides the augmentation of a sample: a function of the run's seed, the epoch and the image alone."""
    sequence = np.random.SeedSequence(seed, spawn_key=(key.epoch, key.image))
    return int(sequence.generate_state(1, np.uint64)[0])


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its objects, transformed."""

    image: Tensor
    """RGB, uint8 [3, H, W], of any strides."""
    target: Target
    image_id: int
    file_name: str
    original_size: tuple[int, int]
    """(height, width) of the image in its file, in pixels."""


class DetectionDataset(Dataset[Sample]):
    """The images of a COCO file with their boxes; crowds become ignore regions and never targets.

    Args:
        annotations: what the file says, in flat arrays that worker processes share.
        image_folder: the folder that the file names start from.
        transform: see ``detkit.data.transforms``; augmentation draws a fresh seed for every epoch and image.
        seed: the run's.
        tracked: targets tell the image and the way to it, for selections that remember places in images.
    """

    def __init__(
        self,
        annotations: CocoAnnotations,
        image_folder: str | os.PathLike,
        transform: Transform,
        *,
        seed: int = 0,
        tracked: bool = False,
    ) -> None:
        self.annotations = annotations
        self.image_folder = Path(image_folder)
        self.transform = transform
        self.seed = seed
        self.tracked = tracked

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read and transform one image.

        Raises:
            DataError: the file is missing, is no image, or has another size than the annotations say.
            ConfigError: the augmentation cannot be applied to this image.
        """
        annotations, index = self.annotations, key.image
        height, width = annotations.sizes[index].tolist()
        file_name = str(annotations.file_names[index])
        image = read_image(self.image_folder / file_name, (height, width))
        rows = annotations.rows(index)
        crowd = annotations.crowd[rows]
        try:
            image, boxes, kept, affine = self.transform(
                image, annotations.boxes[rows], sample_seed(self.seed, key), crowd
            )
            tracked = None
            if self.tracked:
                shapes = image.shape, (height, width)
                tracked = tracked_target(annotations.image_ids[index], affine, *shapes)
        except ConfigError as error:
            raise ConfigError(f"{error} (image {file_name}, epoch {key.epoch})") from error
        crowd = crowd[kept]
        labels = annotations.labels[rows][kept]
        target = Target(
            boxes=torch.from_numpy(boxes[~crowd]),
            labels=torch.from_numpy(labels[~crowd].astype(np.int64)),
            ignore_regions=torch.from_numpy(boxes[crowd]),
        )
        if tracked is not None:
            target |= tracked
        return Sample(
            image=_to_tensor(image),
            target=target,
            image_id=int(annotations.image_ids[index]),
            file_name=file_name,
            original_size=(height, width),
        )


def tracked_target(
    image_id: int, affine: np.ndarray | None, shape: Sequence[int], original: Sequence[int]
) -> Target:
    """What a target tells of where it comes from.

    Args:
        image_id: of the image.
        affine: takes the pixels of its file to those of the sample, float64 [2, 3].
        shape, original: (height, width) of the sample and of the file.

    Raises:
        ConfigError: there is no such map.
    """
    if affine is None:
        raise ConfigError(
            "data.augment: bends the image, and places that are remembered can't follow; use transforms that keep "
            "straight lines parallel (crops, flips, Affine, ...), or another selection"
        )
    return {  # type: ignore[typeddict-item]
        "image_id": torch.tensor(image_id, dtype=torch.int64),
        "to_canvas": torch.from_numpy(affine),
        "size": torch.tensor([shape[0], shape[1]], dtype=torch.float32),
        "original_size": torch.tensor([original[0], original[1]], dtype=torch.float32),
    }


class ImageFolderDataset(Dataset[Sample]):
    """Image files alone, for prediction: targets are empty, and an image's id is its place in the list.

    Args:
        paths: the files, in the order of the samples.
        transform: usually an ``EvaluationTransform``.
    """

    def __init__(self, paths: Sequence[str | os.PathLike], transform: Transform) -> None:
        self.paths = [os.fspath(path) for path in paths]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read and transform one image.

        Raises:
            DataError: the file is missing or is no image.
        """
        original = read_image(self.paths[key.image])
        image, boxes, *_ = self.transform(original, np.zeros((0, 4), np.float32), key.image)
        return Sample(
            image=_to_tensor(image),
            target=Target(boxes=torch.from_numpy(boxes), labels=torch.zeros(0, dtype=torch.int64)),
            image_id=key.image,
            file_name=self.paths[key.image],
            original_size=original.shape[:2],
        )


def _to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] to a [3, H, W] view of the same memory; the batch is where it is laid out anew."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
