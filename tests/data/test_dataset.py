"""Samples: what belongs to an image arrives with it, and depends on seed, epoch and place alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detkit.data.coco import CocoAnnotations
from detkit.data.dataset import DetectionDataset, ImageFolderDataset, SampleKey
from detkit.data.transforms import EvaluationTransform, TrainingTransform
from detkit.errors import ConfigError, DataError

EVALUATION = EvaluationTransform(64, 1000)
FLIPPED = TrainingTransform(64, 1000, [{"name": "HorizontalFlip", "p": 1.0}])
RANDOM = TrainingTransform(64, 1000, [{"name": "RandomCrop", "height": 40, "width": 48, "p": 1.0}])


@pytest.fixture
def annotations(tmp_path) -> CocoAnnotations:
    """Three images: two objects and a crowd between them; none; one object that the crops may lose."""
    generator = np.random.default_rng(0)
    sizes = [(64, 96), (80, 64), (128, 128)]
    for index, size in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"{index}.png"), generator.integers(0, 256, (*size, 3), dtype=np.uint8))
    return CocoAnnotations(
        image_ids=np.array([7, 3, 2**40]),
        sizes=np.array(sizes, np.int32),
        file_names=np.array(["0.png", "1.png", "2.png"]),
        offsets=np.array([0, 3, 3, 4]),
        boxes=np.array([[4, 8, 20, 30], [0, 0, 90, 60], [50, 20, 90, 60], [8, 8, 40, 40]], np.float32),
        labels=np.array([2, 0, 1, 1], np.int32),
        crowd=np.array([False, True, False, False]),
        annotation_ids=np.arange(1, 5),
        class_names=("a", "b", "c"),
        category_ids=(1, 2, 5),
    )


def test_a_sample_holds_what_belongs_to_its_image(annotations, tmp_path):
    dataset = DetectionDataset(annotations, tmp_path, EVALUATION)
    assert len(dataset) == 3
    sample = dataset[SampleKey(0, 0)]
    expected = cv2.imread(str(tmp_path / "0.png"))[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(sample.image.numpy(), expected)
    assert sample.image.dtype == torch.uint8
    assert (sample.image_id, sample.file_name, sample.original_size) == (7, "0.png", (64, 96))
    assert sample.target["boxes"].tolist() == [[4, 8, 20, 30], [50, 20, 90, 60]]
    assert sample.target["labels"].tolist() == [2, 1]
    assert sample.target["labels"].dtype == torch.int64
    assert sample.target["ignore_regions"].tolist() == [[0, 0, 90, 60]]


def test_an_image_without_boxes(annotations, tmp_path):
    target = DetectionDataset(annotations, tmp_path, FLIPPED)[SampleKey(0, 1)].target
    assert (target["boxes"].shape, target["boxes"].dtype) == ((0, 4), torch.float32)
    assert (target["labels"].shape, target["labels"].dtype) == ((0,), torch.int64)
    assert target["ignore_regions"].shape == (0, 4)


def test_crowds_move_with_the_image(annotations, tmp_path):
    target = DetectionDataset(annotations, tmp_path, FLIPPED)[SampleKey(0, 0)].target
    np.testing.assert_allclose(target["ignore_regions"], [[6, 0, 96, 60]], atol=1e-4)
    np.testing.assert_allclose(target["boxes"], [[76, 8, 92, 30], [6, 20, 46, 60]], atol=1e-4)


def test_a_resized_image_keeps_its_original_size(annotations, tmp_path):
    sample = DetectionDataset(annotations, tmp_path, EVALUATION)[SampleKey(0, 2)]
    assert tuple(sample.image.shape) == (3, 64, 64)
    assert sample.original_size == (128, 128)
    assert sample.image_id == 2**40
    assert sample.target["boxes"].tolist() == [[4, 4, 20, 20]]


def test_a_tracked_target_knows_its_image_and_its_sizes_by_height_and_width(annotations, tmp_path):
    wide, shrunk = (
        DetectionDataset(annotations, tmp_path, EVALUATION, tracked=True)[SampleKey(0, index)].target
        for index in (0, 2)
    )
    assert (int(wide["image_id"]), int(shrunk["image_id"])) == (7, 2**40)
    assert (wide["size"].tolist(), wide["original_size"].tolist()) == ([64, 96], [64, 96])
    assert (shrunk["size"].tolist(), shrunk["original_size"].tolist()) == ([64, 64], [128, 128])


def test_labels_stay_with_their_boxes_when_others_are_lost(annotations, tmp_path):
    crop = {"name": "Crop", "x_min": 40, "y_min": 0, "x_max": 96, "y_max": 64, "p": 1.0}
    dataset = DetectionDataset(annotations, tmp_path, TrainingTransform(64, 1000, [crop]))
    target = dataset[SampleKey(0, 0)].target
    np.testing.assert_allclose(target["boxes"], [[10, 20, 50, 60]], atol=1e-4)
    assert target["labels"].tolist() == [1]
    np.testing.assert_allclose(target["ignore_regions"], [[0, 0, 50, 60]], atol=1e-4)


def test_crowds_stay_where_objects_are_too_little_visible(annotations, tmp_path):
    crop = {"name": "Crop", "x_min": 80, "y_min": 0, "x_max": 96, "y_max": 64, "p": 1.0}
    transform = TrainingTransform(64, 1000, [crop], min_visible=0.3)
    target = DetectionDataset(annotations, tmp_path, transform)[SampleKey(0, 0)].target
    assert target["boxes"].shape == (0, 4)  # a quarter of one object is in the crop, and a ninth of the crowd
    np.testing.assert_allclose(target["ignore_regions"], [[0, 0, 10, 60]], atol=1e-4)


def test_seed_epoch_and_image_decide(annotations, tmp_path):
    def pixels(seed: int, epoch: int) -> bytes:
        return (
            DetectionDataset(annotations, tmp_path, RANDOM, seed=seed)[SampleKey(epoch, 0)]
            .image.numpy()
            .tobytes()
        )

    assert pixels(0, 0) == pixels(0, 0)
    assert len({pixels(seed, epoch) for seed in range(3) for epoch in range(4)}) >= 10


def test_missing_file(annotations, tmp_path):
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png"):
        DetectionDataset(annotations, tmp_path, EVALUATION)[SampleKey(0, 1)]


def test_a_failing_augmentation_names_the_image(annotations, tmp_path):
    crop = {"name": "Crop", "x_max": 90, "y_max": 64, "p": 1.0}
    dataset = DetectionDataset(annotations, tmp_path, TrainingTransform(64, 1000, [crop]))
    dataset[SampleKey(0, 0)]
    with pytest.raises(ConfigError, match=r"data\.augment.*1\.png"):
        dataset[SampleKey(0, 1)]


def test_plain_image_files(annotations, tmp_path):
    paths: list[Path] = [tmp_path / "2.png", tmp_path / "0.png"]
    dataset = ImageFolderDataset(paths, EVALUATION)
    samples = [dataset[SampleKey(0, index)] for index in range(len(dataset))]
    assert [sample.image_id for sample in samples] == [0, 1]
    assert [sample.file_name for sample in samples] == [str(path) for path in paths]
    assert [sample.original_size for sample in samples] == [(128, 128), (64, 96)]
    assert [tuple(sample.image.shape) for sample in samples] == [(3, 64, 64), (3, 64, 96)]
    assert all(sample.target["boxes"].shape == (0, 4) for sample in samples)
    assert all(sample.target["labels"].dtype == torch.int64 for sample in samples)
