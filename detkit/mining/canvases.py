"""Mined crops as training images: canvases of background, each full of crops."""

import os
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from detkit.boxes import clip, through_affine
from detkit.data.dataset import Sample, SampleKey, sample_seed
from detkit.data.images import read_image
from detkit.data.transforms import Transform
from detkit.errors import ConfigError, DataError
from detkit.mining.negative_set import MinedCrops
from detkit.mining.packing import pack
from detkit.structures import Target

FILL = (124, 116, 104)
"""RGB of what no crop covers: the mean that images are normalised with, so that it has no edge to the padding."""


class CanvasDataset(Dataset[Sample]):
    """Canvases of crops without an object, for any loader of training images; the hardest crops are on the first.

    Every canvas goes through the transform that training images go through, which takes the false positives for its
    objects, so that a window that looks for objects finds them. Targets tell where they are (``false_positives``). What
    no crop covers is an ignore region. A sample's image id is negative, for it is no image of the annotations.

    Args:
        crops: at least one; of none there are no canvases.
        folder: where their files are.
        canvas: (height, width) in pixels; usually the size to which training images are resized.
        transform: see ``detkit.data.transforms``; augmentation draws a fresh seed for every epoch and canvas.
        seed: the run's.

    Raises:
        DataError: a crop is larger than the canvas.
    """

    def __init__(
        self,
        crops: MinedCrops,
        folder: str | os.PathLike,
        canvas: tuple[int, int],
        transform: Transform,
        *,
        seed: int = 0,
    ) -> None:
        crops = crops.select(np.argsort(-crops.scores, kind="stable"))
        too_large = np.flatnonzero((crops.sizes > np.array(canvas)).any(axis=1))
        if len(too_large):
            height, width = crops.sizes[too_large[0]].tolist()
            raise DataError(
                f"{crops.files[too_large[0]]}: is {width} x {height}, larger than a canvas of {canvas[1]} x "
                f"{canvas[0]}; mine again with this as the largest crop"
            )
        self.crops = crops
        self.folder = Path(folder)
        self.canvas = canvas
        self.transform = transform
        self.seed = seed
        self.packed = pack(crops.sizes, canvas)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Lay the crops of one canvas, and transform it.

        Raises:
            DataError: a crop's file is missing or has another size.
            ConfigError: the augmentation cannot be applied.
        """
        try:
            image, found, regions = self._transformed(key)
        except ConfigError as error:
            raise ConfigError(f"{error} (canvas {key.image}, epoch {key.epoch})") from error
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
            target=Target(
                boxes=torch.zeros((0, 4)),
                labels=torch.zeros(0, dtype=torch.int64),
                ignore_regions=regions,
                false_positives=found,
            ),
            image_id=-1 - key.image,
            file_name=f"canvas {key.image}",
            original_size=self.canvas,
        )

    def _transformed(self, key: SampleKey) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """The canvas, its false positives, and what crops leave uncovered in it, xyxy [M, 4] and [C, 4]."""
        packed, seed = self.packed[key.image], sample_seed(self.seed, key)
        pixels, uncovered = self.pixels(key.image), packed.uncovered.astype(np.float32)
        laid = self.crops.false_positives[packed.items] + np.tile(packed.places[:, :2], 2)
        image, boxes, _, affine = self.transform(pixels, laid.astype(np.float32), seed)
        found = torch.from_numpy(boxes)
        if affine is None:  # it bends, and what is uncovered has to be bent with it
            image, bent, *_ = self.transform(pixels, uncovered, seed, np.ones(len(uncovered), dtype=bool))
            return image, found, torch.from_numpy(bent)
        moved = through_affine(torch.from_numpy(uncovered), torch.from_numpy(affine))
        regions = clip(moved, image.shape[:2])
        return image, found, regions[(regions[:, 2:] > regions[:, :2]).all(dim=1)]

    def pixels(self, index: int) -> np.ndarray:
        """A canvas before it is transformed, uint8 RGB [H, W, 3]."""
        canvas = np.full((*self.canvas, 3), FILL, dtype=np.uint8)
        packed = self.packed[index]
        for item, (x1, y1, x2, y2) in zip(packed.items.tolist(), packed.places.tolist(), strict=True):
            size = tuple(self.crops.sizes[item].tolist())
            canvas[y1:y2, x1:x2] = read_image(self.folder / str(self.crops.files[item]), size)
        return canvas
