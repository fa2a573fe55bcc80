"""Resizing and augmentation: the rule of sizes, boxes that stay on their pixels, and repeatability."""

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detkit.data.transforms import EvaluationTransform, TrainingTransform, resize, resized_size
from detkit.errors import ConfigError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
FLIP = {"name": "HorizontalFlip", "p": 0.5}


def painted(height: int, width: int, boxes) -> np.ndarray:
    """A black image with box i filled in colour i."""
    image = np.zeros((height, width, 3), np.uint8)
    for (x1, y1, x2, y2), colour in zip(np.asarray(boxes, int), COLOURS, strict=False):
        image[y1:y2, x1:x2] = colour
    return image


def bounds(image: np.ndarray, colour, threshold: int = 127) -> np.ndarray | None:
    """Bounding box of the pixels of one colour, found by looking."""
    rows, columns = np.nonzero(image[..., int(np.argmax(colour))] > threshold)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def identity(augment=(), size: int = 96, **keywords) -> TrainingTransform:
    """Augmentation alone: images of this shorter side are not resized."""
    return TrainingTransform(size, 10_000, augment, **keywords)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    shorter=st.integers(4, 90),
    extra=st.integers(0, 90),
)
def test_resized_size_is_torchvisions(height, width, shorter, extra):
    longest = shorter + extra
    found = resized_size((height, width), shorter, longest)
    assert max(found) <= longest
    assert min(found) <= shorter
    assume(min(height, width) * longest >= 2 * max(height, width))  # torchvision fails on empty images
    oracle = GeneralizedRCNNTransform(shorter, longest, [0.0] * 3, [1.0] * 3).eval()
    expected, _ = oracle.resize(torch.zeros(3, height, width), None)
    assert found == tuple(expected.shape[-2:])


def test_no_side_falls_below_a_pixel():
    assert resized_size((1, 1000), 64, 100) == (1, 100)


@pytest.mark.parametrize("size", [(48, 64), (150, 201), (96, 40), (144, 64)])
def test_resize_keeps_boxes_on_their_pixels(size):
    boxes = np.array([[10, 20, 50, 60], [60, 70, 100, 90]], np.float32)
    image, moved = resize(painted(96, 128, boxes), boxes, size)
    assert image.shape == (*size, 3)
    assert moved.dtype == np.float32
    for box, colour in zip(moved, COLOURS, strict=False):
        np.testing.assert_allclose(box, bounds(image, colour), atol=1.0)


def test_shrinking_averages():
    """Every second column white: sampling would give stripes or nothing, averaging gives an even grey."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, ::2] = 255
    shrunk, _ = resize(image, np.zeros((0, 4), np.float32), (32, 48))
    assert shrunk.min() >= 127
    assert shrunk.max() <= 128


def test_evaluation_takes_the_last_size_and_clips():
    boxes = np.array([[-10, 0, 50, 60], [200, 10, 220, 30], [60, 70, 100, 90]], np.float32)
    image, moved, rows, _ = EvaluationTransform([24, 48], 1000)(np.zeros((96, 128, 3), np.uint8), boxes)
    assert image.shape == (48, 64, 3)
    assert rows.tolist() == [0, 2]
    assert moved.tolist() == [[0, 0, 25, 30], [30, 35, 50, 45]]


def test_training_draws_every_size():
    transform = TrainingTransform([24, 48, 96], 1000)
    image, boxes = np.zeros((96, 128, 3), np.uint8), np.array([[0, 0, 64, 96]], np.float32)
    heights = []
    for seed in range(60):
        resized, moved, *_ = transform(image, boxes, seed)
        heights.append(resized.shape[0])
        np.testing.assert_allclose(moved[0], [0, 0, resized.shape[1] / 2, resized.shape[0]], rtol=1e-6)
    assert {heights.count(size) > 8 for size in (24, 48, 96)} == {True}
    assert len(heights) == 60
    assert set(heights) == {24, 48, 96}


GEOMETRY = [
    {"name": "HorizontalFlip"},
    {"name": "VerticalFlip"},
    {"name": "Transpose"},
    {"name": "D4"},
    {"name": "RandomRotate90"},
    {"name": "Rotate", "limit": 40},
    {"name": "SafeRotate", "limit": 40},
    {
        "name": "Affine",
        "scale": [0.7, 1.3],
        "rotate": [-30, 30],
        "shear": [-10, 10],
        "translate_percent": 0.1,
    },
    {"name": "Perspective", "keep_size": False},
    {"name": "RandomCrop", "height": 60, "width": 70},
    {"name": "RandomCrop", "height": 200, "width": 110, "pad_if_needed": True},
    {"name": "RandomSizedBBoxSafeCrop", "height": 80, "width": 64},
    {"name": "RandomResizedCrop", "size": [80, 120], "scale": [0.4, 1.0]},
    {"name": "RandomScale", "scale_limit": 0.4},
    {"name": "PadIfNeeded", "min_height": 150, "min_width": 140},
    {"name": "OneOf", "transforms": [{"name": "HorizontalFlip"}, {"name": "Transpose"}]},
    {"name": "SomeOf", "n": 2, "transforms": [{"name": "VerticalFlip"}, FLIP, {"name": "RandomRotate90"}]},
]


@pytest.mark.parametrize("spec", GEOMETRY, ids=lambda spec: spec["name"])
def test_boxes_stay_on_their_pixels(spec):
    boxes = np.array([[8, 10, 40, 50], [50, 20, 90, 44], [70, 60, 120, 90]], np.float32)
    original = painted(96, 128, boxes)
    transform = identity([{**spec, "p": 1.0}], min_visible=0.0)
    seen = moved = 0
    for seed in range(12):
        image, after, rows, _ = transform(original, boxes, seed)
        assert after.shape == (len(rows), 4)
        moved += image.shape != original.shape or not np.array_equal(image, original)
        for row, colour in enumerate(COLOURS):
            expected = bounds(image, colour, threshold=40)
            if row not in rows:
                assert expected is None
            elif expected is not None:  # else only a sliver is left
                (box,) = after[rows == row]
                assert (box[:2] - 1.5 <= expected[:2]).all()
                assert (box[2:] + 1.5 >= expected[2:]).all()
                whole = box.min() > 0 and (box[2:] < image.shape[1::-1]).all()
                if whole or "Crop" in spec["name"]:  # a box both turned and cut may be larger than it must
                    np.testing.assert_allclose(box, expected, atol=1.5)
                seen += 1
    assert seen >= 12
    assert moved


def test_emptied_boxes_go_and_rows_say_which_stay():
    boxes = np.array(
        [[100, 0, 128, 20], [0, 0, 20, 20], [50, 50, 50, 70], [30, 0, 50, 30], [39.995, 0, 60, 20]],
        np.float32,
    )
    crop = {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 40, "y_max": 40, "p": 1.0}
    _, after, rows, _ = identity([crop], min_visible=0.0)(painted(96, 128, boxes), boxes, 0)
    assert rows.tolist() == [1, 3]
    np.testing.assert_allclose(after, [[0, 0, 20, 20], [30, 0, 40, 30]], atol=1e-4)


@pytest.mark.parametrize(("min_visible", "expected"), [(0.0, [0, 1, 2]), (0.3, [0, 1]), (0.6, [0])])
def test_min_visible(min_visible, expected):
    boxes = np.array([[0, 0, 20, 20], [30, 0, 50, 30], [38, 0, 58, 20]], np.float32)  # 1, .5 and .1 remain
    crop = {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 40, "y_max": 40, "p": 1.0}
    _, _, rows, _ = identity([crop], min_visible=min_visible)(painted(96, 128, []), boxes, 0)
    assert rows.tolist() == expected


@pytest.mark.parametrize("boxes_first", [True, False])
def test_crowds_stay_however_little_is_visible(boxes_first):
    """A crowd over the whole image, of which a crop leaves a ninth; an object of the same size goes."""
    crop = {"name": "RandomCrop", "height": 64, "width": 64, "p": 1.0}
    transform = pickle.loads(pickle.dumps(identity([crop], size=192, min_visible=0.3)))
    boxes = np.array([[0, 0, 192, 192]] * 2, np.float32)
    crowd = np.array([not boxes_first, boxes_first])
    for seed in range(5):
        _, after, rows, _ = transform(painted(192, 192, []), boxes, seed, crowd)
        assert rows.tolist() == np.flatnonzero(crowd).tolist()
        np.testing.assert_allclose(after, [[0, 0, 64, 64]], atol=1e-4)
        assert len(transform(painted(192, 192, []), boxes, seed)[2]) == 0


def test_crowds_out_of_sight_go_and_rows_ascend():
    boxes = np.array([[60, 60, 80, 80], [39, 0, 139, 40], [0, 0, 20, 20], [0, 0, 128, 96]], np.float32)
    crop = {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 40, "y_max": 40, "p": 1.0}
    crowd = np.array([True, True, False, True])
    _, after, rows, _ = identity([crop], min_visible=0.9)(painted(96, 128, []), boxes, 0, crowd)
    assert rows.tolist() == [1, 2, 3]
    np.testing.assert_allclose(after, [[39, 0, 40, 40], [0, 0, 20, 20], [0, 0, 40, 40]], atol=1e-4)


def test_the_size_of_evaluation():
    transform = EvaluationTransform([24, 48], 60)
    assert transform.size_for((96, 128)) == (45, 60)
    assert transform.size_for((96, 100)) == (48, 50)
    assert transform(np.zeros((96, 128, 3), np.uint8), np.zeros((0, 4), np.float32))[0].shape == (45, 60, 3)


def test_boxes_reaching_out_are_clipped_and_those_outside_dropped():
    boxes = np.array([[-10, -10, 20, 20], [130, 10, 150, 30], [100, 80, 140, 110], [-5, 0, 0, 9]], np.float32)
    image, after, rows, _ = identity()(np.zeros((96, 128, 3), np.uint8), boxes, 0)
    assert image.shape == (96, 128, 3)
    assert rows.tolist() == [0, 2]
    np.testing.assert_allclose(after, [[0, 0, 20, 20], [100, 80, 128, 96]], atol=1e-4)


@pytest.mark.parametrize("augment", [[], [FLIP], [{"name": "ToGray", "p": 1.0}]])
def test_images_without_boxes(augment):
    image, boxes, rows, _ = identity(augment)(
        np.zeros((96, 128, 3), np.uint8), np.zeros((0, 4), np.float32), 3
    )
    assert image.shape == (96, 128, 3)
    assert (boxes.shape, boxes.dtype) == ((0, 4), np.float32)
    assert (rows.shape, rows.dtype) == ((0,), np.int64)


def test_all_boxes_lost():
    crop = {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 40, "y_max": 40, "p": 1.0}
    boxes = np.array([[60, 60, 80, 80]], np.float32)
    _, after, rows, _ = identity([crop])(np.zeros((96, 128, 3), np.uint8), boxes, 0)
    assert (after.shape, rows.shape) == ((0, 4), (0,))


def test_thousands_of_rows():
    corners = np.random.default_rng(0).uniform(0, 80, (3000, 2))
    boxes = np.concatenate([corners, corners + 10], axis=1).astype(np.float32)
    _, after, rows, _ = identity([{"name": "HorizontalFlip", "p": 1.0}])(
        np.zeros((96, 128, 3), np.uint8), boxes, 0
    )
    assert rows.tolist() == list(range(3000))
    np.testing.assert_allclose(after[:, 0], 128 - boxes[:, 2], atol=1e-4)
    np.testing.assert_allclose(after[:, 1:4:2], boxes[:, 1:4:2], atol=1e-4)


def test_transforms_are_drawn_independently():
    """Two flips at one half each: all four outcomes, about equally often."""
    transform = identity([FLIP, {"name": "VerticalFlip", "p": 0.5}])
    image = np.zeros((96, 128, 3), np.uint8)
    box = np.array([[0, 0, 10, 10]], np.float32)
    outcomes = [tuple(transform(image, box, seed)[1][0, :2] > 20) for seed in range(200)]
    counts = [outcomes.count(key) for key in [(a, b) for a in (False, True) for b in (False, True)]]
    assert sum(counts) == 200
    assert min(counts) > 25


COLOUR_CHANGES = [
    {"name": "GaussNoise", "p": 0.7},
    {"name": "AdditiveNoise", "p": 0.7},
    {"name": "ISONoise", "p": 0.7},
    {"name": "ShotNoise", "p": 0.7},
    {"name": "SaltAndPepper", "p": 0.7},
    {"name": "RandomBrightnessContrast", "p": 0.7},
    {"name": "ColorJitter", "p": 0.7},
    {"name": "CLAHE", "p": 0.7},
    {"name": "MotionBlur", "p": 0.7},
    {"name": "Downscale", "p": 0.7},
    {"name": "ImageCompression", "p": 0.7},
    {"name": "CoarseDropout", "p": 0.7},
    {"name": "PixelDropout", "p": 0.7},
    {"name": "ElasticTransform", "p": 0.7},
    {"name": "RandomShadow", "p": 0.7},
    {"name": "Spatter", "p": 0.7},
    {"name": "FancyPCA", "p": 0.7},
]


@pytest.mark.parametrize("spec", [*COLOUR_CHANGES, *GEOMETRY], ids=lambda spec: spec["name"])
def test_the_seed_alone_decides(spec):
    """Whatever was transformed before, in whatever object, with whatever state of the global generators."""
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    boxes = np.array([[8, 10, 40, 50], [50, 20, 90, 44]], np.float32)
    transform = identity([spec])
    first = [transform(images[0].copy(), boxes, seed) for seed in range(4)]
    transform(images[1].copy(), boxes[:1], 77)
    random.seed(5)
    np.random.seed(5)
    copied = pickle.loads(pickle.dumps(transform))
    for other in (transform, copied, identity([spec])):
        for seed in reversed(range(4)):
            for one, two in zip(first[seed], other(images[0].copy(), boxes, seed), strict=True):
                np.testing.assert_array_equal(one, two)


def test_seeds_differ_and_global_generators_are_left_alone():
    transform = identity([{"name": "RandomCrop", "height": 40, "width": 40, "p": 1.0}, *COLOUR_CHANGES[:4]])
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
    results = {transform(image, np.zeros((0, 4), np.float32), seed)[0].tobytes() for seed in range(10)}
    assert len(results) == 10
    assert before == (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ([FLIP, {"name": "HorizontalFlop"}], ["data.augment[1]", "'HorizontalFlop'", "HorizontalFlip"]),
        ([{"name": "zzzz"}], ["data.augment[0]", "'zzzz'", "albumentations"]),
        ([{"name": "DualTransform"}], ["data.augment[0]", "no transform 'DualTransform'"]),
        ([{"p": 0.5}], ["data.augment[0]", "{'p': 0.5}", "name: HorizontalFlip"]),
        (["HorizontalFlip"], ["data.augment[0]", "'HorizontalFlip'", "name: HorizontalFlip"]),
        ([{"name": "HorizontalFlip", "prob": 1}], ["data.augment[0]", "HorizontalFlip", "'prob'", "takes p"]),
        ([{"name": "HorizontalFlip", "p": 1.5}], ["data.augment[0]", "HorizontalFlip", "p:", "found 1.5"]),
        ([{"name": "RandomCrop", "height": 5}], ["data.augment[0]", "RandomCrop", "width", "required"]),
        ([{"name": "CropAndPad"}], ["data.augment[0]", "CropAndPad", "px and percent"]),
        ([{"name": "Normalize"}], ["data.augment[0]", "model normalises", "remove Normalize"]),
        ([{"name": "MaskDropout"}], ["data.augment[0]", "MaskDropout", "remove it"]),
        ([{"name": "CropNonEmptyMaskIfExists"}], ["data.augment[0]", "remove it"]),
        ([{"name": "OneOf", "p": 0.5}], ["data.augment[0]", "OneOf", "'transforms'"]),
        (
            [{"name": "OneOf", "transforms": [FLIP, {"name": "Blurr"}]}],
            ["data.augment[0].transforms[1]", "'Blurr'", "Blur"],
        ),
        (
            [{"name": "OneOf", "transforms": [{"name": "Blur", "p": 0.0}]}],
            ["data.augment[0]", "OneOf"],
        ),
        ([{"name": "SomeOf", "n": 3, "transforms": [FLIP]}], ["data.augment[0]", "SomeOf", "greater"]),
    ],
    ids=lambda value: "-".join(map(str, value))[:40],
)
def test_mistakes_are_explained(augment, words):
    with pytest.raises(ConfigError) as caught:
        TrainingTransform(64, 128, augment)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_all_mistakes_are_told_at_once():
    nested = {"name": "OneOf", "transforms": [FLIP, {"name": "Blurr"}, {"name": "HorizontalFlip", "p": 7}]}
    with pytest.raises(ConfigError) as caught:
        TrainingTransform(64, 128, [{"name": "Flipp"}, FLIP, nested, {"p": 0.5}])
    places = [line.split(": ")[0] for line in str(caught.value).splitlines()]
    inner = "data.augment[2].transforms"
    assert places == ["data.augment[0]", f"{inner}[1]", f"{inner}[2]", "data.augment[3]"]


def test_a_crop_larger_than_the_image_is_explained():
    crop = {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 400, "y_max": 400, "p": 1.0}
    with pytest.raises(
        ConfigError, match=r"data\.augment: failed on an image resized to 128 x 96 pixels: .*400"
    ):
        identity([crop])(np.zeros((96, 128, 3), np.uint8), np.zeros((0, 4), np.float32), 0)


def test_a_pipeline_that_leaves_no_rgb_image_is_explained():
    grey = {"name": "ToGray", "num_output_channels": 1, "p": 1.0}
    with pytest.raises(
        ConfigError, match=r"data\.augment: the transforms left .*96, 128.* instead of an image"
    ):
        identity([grey])(np.zeros((96, 128, 3), np.uint8), np.zeros((0, 4), np.float32), 0)


@pytest.mark.parametrize(
    "augment",
    [
        [],
        [{"name": "HorizontalFlip", "p": 1.0}, {"name": "RandomCrop", "height": 40, "width": 50, "p": 1.0}],
        [{"name": "RandomRotate90", "p": 1.0}, {"name": "VerticalFlip", "p": 1.0}],
        [
            {
                "name": "CoarseDropout",
                "hole_height_range": [0.4, 0.5],
                "hole_width_range": [0.4, 0.5],
                "p": 1.0,
            }
        ],
    ],
)
def test_the_affine_map_takes_boxes_where_they_went(augment):
    box = np.array([[40, 30, 60, 50]], dtype=np.float32)
    transform = TrainingTransform(64, 1000, augment, min_visible=0.0)
    for seed in range(8):
        _, after, rows, affine = transform(np.zeros((96, 128, 3), np.uint8), box, seed)
        corners = np.array([[40, 30, 1], [60, 50, 1]]) @ affine.T
        expected = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        inside = len(rows) and (expected >= 0).all() and np.allclose(after[0, 2:], expected[2:], atol=0.01)
        if inside:  # not clipped
            np.testing.assert_allclose(after[0], expected, atol=0.01)
    assert affine.shape == (2, 3)


def test_evaluation_tells_its_scale():
    *_, affine = EvaluationTransform(48, 1000)(np.zeros((96, 120, 3), np.uint8), np.zeros((0, 4), np.float32))
    np.testing.assert_allclose(affine, [[0.5, 0, 0], [0, 0.5, 0]], atol=1e-9)


def test_no_affine_map_where_the_image_is_bent():
    bend = {"name": "Perspective", "scale": [0.2, 0.2], "p": 1.0}
    transform = TrainingTransform(64, 1000, [bend])
    assert transform(np.zeros((96, 128, 3), np.uint8), np.zeros((0, 4), np.float32), 3).affine is None
