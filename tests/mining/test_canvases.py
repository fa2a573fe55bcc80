"""Canvases as training samples."""

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from detkit.data.dataset import SampleKey
from detkit.data.loader import BatchOrder, training_loader
from detkit.data.transforms import EvaluationTransform, TrainingTransform
from detkit.errors import DataError
from detkit.mining.canvases import FILL, CanvasDataset
from detkit.mining.negative_set import MinedCrops

CANVAS = (64, 80)
AUGMENT = [{"name": "HorizontalFlip", "p": 0.5}, {"name": "RandomCrop", "height": 48, "width": 48}]


@pytest.fixture
def crops(make_crops, tmp_path) -> MinedCrops:
    """Twelve crops, each of one colour."""
    rng = np.random.default_rng(0)
    crops = make_crops(
        rng.random(12).tolist(), [tuple(size) for size in rng.integers(16, 40, (12, 2)).tolist()]
    )
    for place, (file, (height, width)) in enumerate(zip(crops.files, crops.sizes, strict=True)):
        cv2.imwrite(str(tmp_path / file), np.full((height, width, 3), 10 * place, dtype=np.uint8))
    return crops


def covered_by(regions: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    for x1, y1, x2, y2 in regions.round().int().tolist():
        mask[y1:y2, x1:x2] = True
    return mask


def test_crops_lie_where_they_are_said_to_and_the_rest_is_ignored(crops, tmp_path):
    dataset = CanvasDataset(crops, tmp_path, CANVAS, EvaluationTransform(64, 80))
    hardest_first = crops.select(np.argsort(-crops.scores))
    seen = set()
    for place, packed in enumerate(dataset.packed):
        sample = dataset[SampleKey(0, place)]
        pixels = sample.image.permute(1, 2, 0).numpy()
        assert pixels.shape == (*CANVAS, 3)
        for item, (x1, y1, x2, y2) in zip(packed.items, packed.places, strict=True):
            colour = int(hardest_first.files[item].removeprefix("1-").removesuffix(".png")) * 10
            assert (pixels[y1:y2, x1:x2] == colour).all()
            seen.add(colour)
        assert sample.target["boxes"].shape == (0, 4)
        assert len(sample.target["labels"]) == 0
        rest = covered_by(sample.target["ignore_regions"], CANVAS)
        np.testing.assert_array_equal(rest, (pixels == FILL).all(axis=2))
        assert sample.image_id < 0
    assert seen == {10 * place for place in range(12)}


def test_augmentation_moves_ignore_regions_along(crops, tmp_path):
    dataset = CanvasDataset(crops, tmp_path, CANVAS, TrainingTransform(64, 80, AUGMENT), seed=3)
    first = [dataset[SampleKey(epoch, 0)] for epoch in range(6)]
    for sample in first:
        pixels = sample.image.permute(1, 2, 0).numpy()
        assert pixels.shape == (48, 48, 3)
        rest = covered_by(sample.target["ignore_regions"], (48, 48))
        np.testing.assert_array_equal(rest, (pixels == FILL).all(axis=2))
    assert len({sample.image.numpy().tobytes() for sample in first}) > 3


def test_false_positives_are_told_where_augmentation_puts_them(make_crops, tmp_path):
    """Each crop shows its source at half its size; its false positive is white."""
    sizes = [(20, 30), (32, 24), (40, 40), (16, 36)]
    crops = make_crops([0.9, 0.8, 0.7, 0.6], sizes)
    corners = np.array([[100, 50], [7, 3], [0, 0], [31, 64]])
    windows = np.concatenate([corners, corners + 2 * np.array(sizes)[:, ::-1]], axis=1).astype(np.float32)
    seen = np.array([[4, 6, 16, 14], [8, 8, 20, 26], [0, 10, 8, 40], [10, 2, 36, 12]])
    boxes = np.tile(corners, 2) + 2 * seen
    crops = replace(crops, windows=windows, boxes=boxes.astype(np.float32))
    np.testing.assert_array_equal(crops.false_positives, seen)
    for file, size, (x1, y1, x2, y2) in zip(crops.files, sizes, seen, strict=True):
        picture = np.zeros((*size, 3), dtype=np.uint8)
        picture[y1:y2, x1:x2] = 255
        cv2.imwrite(str(tmp_path / file), picture)
    for transform in (EvaluationTransform(64, 80), TrainingTransform(64, 80, AUGMENT, min_visible=0)):
        dataset = CanvasDataset(crops, tmp_path, CANVAS, transform, seed=3)
        for key in [SampleKey(epoch, place) for epoch in range(8) for place in range(len(dataset))]:
            sample = dataset[key]
            white = (sample.image == 255).all(dim=0).numpy()
            told = covered_by(sample.target["false_positives"], white.shape)
            np.testing.assert_array_equal(told, white)


def test_the_same_key_gives_the_same_sample_and_another_seed_another(crops, tmp_path):
    make = partial(CanvasDataset, crops, tmp_path, CANVAS, TrainingTransform(64, 80, AUGMENT))
    one, again, other = (make(seed=seed) for seed in (1, 1, 2))
    keys = [SampleKey(epoch, 1) for epoch in range(5)]
    assert all(torch.equal(one[key].image, again[key].image) for key in keys)
    assert not all(torch.equal(one[key].image, other[key].image) for key in keys)


def test_a_loader_takes_them(crops, tmp_path):
    dataset = CanvasDataset(crops, tmp_path, CANVAS, TrainingTransform(64, 80, AUGMENT))
    order = BatchOrder(len(dataset), 2, seed=0).between(0, 3)
    batches = list(training_loader(dataset, order, workers=1, stride=16))
    assert [len(images) for images, _ in batches] == [2, 2, 2]
    assert batches[0][0].pixels.shape == (2, 3, 48, 48)
    assert "ignore_regions" in batches[0][1][0]


def test_no_crops_no_canvases(tmp_path):
    assert len(CanvasDataset(MinedCrops.none(), tmp_path, CANVAS, EvaluationTransform(64, 80))) == 0


def test_what_cannot_be_used_is_told(crops, make_crops, tmp_path):
    with pytest.raises(DataError, match=r"1-0.png: is 90 x 20, larger than a canvas of 80 x 64"):
        CanvasDataset(make_crops([0.5], [(20, 90)]), tmp_path, CANVAS, EvaluationTransform(64, 80))
    dataset = CanvasDataset(crops, tmp_path, CANVAS, EvaluationTransform(64, 80))
    (tmp_path / crops.files[0]).unlink()
    with pytest.raises(DataError, match=r"1-0.png: there is no such file"):
        [dataset[SampleKey(0, place)] for place in range(len(dataset))]


def test_windows_that_look_for_boxes_find_crops_and_not_what_they_leave_uncovered(crops, tmp_path):
    def uncovered(name):
        augment = [{"name": name, "height": 32, "width": 32}]
        dataset = CanvasDataset(crops, tmp_path, CANVAS, TrainingTransform(64, 80, augment), seed=1)
        keys = [SampleKey(epoch, place) for epoch in range(60) for place in range(len(dataset))]
        pixels = [dataset[key].image.permute(1, 2, 0).numpy() for key in keys]
        return np.mean([(one == FILL).all(axis=2).mean() for one in pixels])

    assert uncovered("AtLeastOneBBoxRandomCrop") < 1.25 * uncovered("RandomCrop")
