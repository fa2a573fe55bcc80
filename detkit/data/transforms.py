"""Resizing and augmentation: what happens to an image and its boxes on their way to the model.

Both transforms here are called as ``transform(image, boxes, seed, crowd)`` and return a ``Transformed``. Boxes come
back clipped to their image, and those of which nothing is left are dropped. The result depends on the arguments alone:
the same seed gives the same pixels in any process, whatever was transformed before.
"""

import difflib
import functools
import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from pydantic import ValidationError

from detkit.errors import ConfigError

# albumentations asks a server for its newest version as it is imported, unless this is set before.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations
from albumentations.core.bbox_utils import BboxProcessor, filter_bboxes

AUGMENT_KEY = "data.augment"
"""How error messages name the list of augmentations."""

_NESTED = frozenset({"OneOf", "RandomOrder", "Sequential", "SomeOf"})
_CHANGE_TYPE = frozenset({"FromFloat", "Normalize", "ToFloat", "ToTensor3D", "ToTensorV2"})
_NEED_MORE = frozenset({"CropNonEmptyMaskIfExists", "Lambda"})
_GIVEN = frozenset({"image", "bboxes"})
_STRAIGHT = 1.0
_NARROWEST = 0.01
"""Pixels; what is left of a box below this is rounding, and could lose its width in float32."""


class Transformed(NamedTuple):
    """An image and its boxes after a transform, and where they went."""

    image: np.ndarray
    """RGB, uint8 [H, W, 3]."""
    boxes: np.ndarray
    """Those that remain, xyxy in its pixels, float32 [R, 4]."""
    rows: np.ndarray
    """Which of the boxes given they are, ascending, int64 [R]."""
    affine: np.ndarray | None
    """Takes pixels (x, y, 1) of the image given to those of this one, float64 [2, 3]; None where no affine map does."""


class Transform(Protocol):
    """What a dataset does to an image; see ``TrainingTransform`` for the arguments."""

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, seed: int, crowd: np.ndarray | None = None
    ) -> Transformed: ...


def resized_size(size: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """Size of an image whose shorter side is brought to ``shorter`` unless the longer would pass ``longest``.

    The rule and the rounding (down) are those of torchvision's detection models, but no side falls below one
    pixel.

    Args:
        size: (height, width) in pixels.
        shorter: the wanted length of the shorter side.
        longest: the limit of the longer side.

    Returns:
        (height, width) in pixels.
    """
    height, width = size
    scale = min(shorter / min(size), longest / max(size))
    return max(1, int(height * scale)), max(1, int(width * scale))


def resize(image: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image [H, W, 3] and its boxes (xyxy, float32 [G, 4]) to ``size`` (height, width).

    Shrinking averages over each pixel's area, so that small objects do not fall between samples; growing
    interpolates bilinearly.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image, boxes
    shrinks = size[0] <= height and size[1] <= width
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scale = np.array([size[1] / width, size[0] / height] * 2, dtype=np.float32)
    return image, boxes * scale


class EvaluationTransform:
    """Resize alone; of several shorter sides the last one counts.

    Args:
        shorter: wanted length of the shorter side in pixels, or several of them.
        longest: limit of the longer side in pixels.
    """

    def __init__(self, shorter: int | Sequence[int], longest: int) -> None:
        self.shorter = shorter if isinstance(shorter, int) else shorter[-1]
        self.longest = longest

    def size_for(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of ``size`` (height, width) is resized to."""
        return resized_size(size, self.shorter, self.longest)

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, seed: int = 0, crowd: np.ndarray | None = None
    ) -> Transformed:
        """Resize an image (uint8 [H, W, 3]) and its boxes (xyxy, float32 [G, 4]); the rest is not used."""
        given = image.shape[:2]
        size = self.size_for(given)
        image, boxes = resize(image, boxes, size)
        boxes = boxes.clip(0, np.array([size[1], size[0]] * 2, dtype=np.float32))
        rows = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= _NARROWEST).all(axis=1))
        return Transformed(image, boxes[rows], rows, _fit_affine(_landmarks(given), _landmarks(size)))


class TrainingTransform:
    """Resize, then augment with albumentations.

    Args:
        shorter: wanted length of the shorter side in pixels; of several, each image draws one.
        longest: limit of the longer side in pixels.
        augment: transforms of albumentations by name, e.g. ``{"name": "HorizontalFlip", "p": 0.5}``. OneOf,
            RandomOrder, Sequential and SomeOf hold others in a list under ``transforms``.
        min_visible: an object of which one transform leaves less than this share (0 to 1) is dropped.

    Raises:
        ConfigError: a name or an argument that albumentations does not know, or a transform that cannot serve
            detection; the message has a line for each, with its position in the list.
    """

    def __init__(
        self,
        shorter: int | Sequence[int],
        longest: int,
        augment: Sequence[Mapping[str, Any]] = (),
        *,
        min_visible: float = 0.1,
    ) -> None:
        self.shorter = (shorter,) if isinstance(shorter, int) else tuple(shorter)
        self.longest = longest
        self._pipeline = _build_pipeline(augment, min_visible)

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, seed: int, crowd: np.ndarray | None = None
    ) -> Transformed:
        """Transform an image and its boxes.

        Args:
            image: RGB, uint8 [H, W, 3].
            boxes: xyxy in pixels, float32 [G, 4].
            seed: decides every random choice.
            crowd: bool [G], boxes that stay however little of them is visible; None for none. A crowd that
                went would leave its objects behind as background.

        Raises:
            ConfigError: a transform failed on this image, or left something that is not an 8-bit RGB image.
        """
        generator = np.random.default_rng(seed)
        shorter = self.shorter[generator.integers(len(self.shorter))]
        given = image.shape[:2]
        image, boxes = resize(image, boxes, resized_size(image.shape[:2], shorter, self.longest))
        # One generator for all: set_random_seed would start every transform from the same number, and a
        # horizontal flip with p 0.5 would always come together with the vertical one.
        self._pipeline.set_random_state(generator, random.Random(seed))
        # Each box takes its row and its kind along as columns; label fields would pass through float32.
        crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
        table = np.column_stack([boxes, np.arange(len(boxes)), crowd]).astype(np.float64)
        result = self._augment(image, table)
        affine = _affine_to(result["keypoints"], given)
        table = result["bboxes"]
        if not len(table):  # albumentations leaves our columns out of an empty table
            return Transformed(result["image"], np.zeros((0, 4), np.float32), np.zeros(0, np.int64), affine)
        table = table[np.argsort(table[:, 4])]
        return Transformed(
            result["image"], table[:, :4].astype(np.float32), table[:, 4].astype(np.int64), affine
        )

    def _augment(self, image: np.ndarray, table: np.ndarray) -> dict[str, Any]:
        """What the pipeline gives: image, bboxes, and the landmarks, which tell where the image lies afterwards."""
        try:
            result = self._pipeline(image=image, bboxes=table, keypoints=_as_keypoints(image.shape[:2]))
        except Exception as error:
            raise ConfigError(
                f"{AUGMENT_KEY}: failed on an image resized to {image.shape[1]} x {image.shape[0]} pixels: "
                f"{_reason(error)}"
            ) from error
        _check_image(result["image"])
        return result


class _BoxFilter(BboxProcessor):
    """albumentations' choice of the boxes that stay, with no least visible share for crowds."""

    def filter(self, data: np.ndarray, shape: Any) -> np.ndarray:
        """Boxes [G, 4 + columns], the last of which marks crowds; or [0, 4]."""
        crowd = data[:, -1] > 0
        limits = {"min_width": self.params.min_width, "min_height": self.params.min_height}
        parts = [super().filter(data[~crowd], shape), filter_bboxes(data[crowd], shape, **limits)]
        return np.concatenate([part for part in parts if len(part)] or parts)


def _landmarks(size: tuple[int, int]) -> np.ndarray:
    """The corners of an image of ``size`` (height, width) and its middle, xy, float64 [5, 2]."""
    height, width = size
    return np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]]) * (width, height)


def _as_keypoints(size: tuple[int, int]) -> np.ndarray:
    """Landmarks as albumentations has them, which counts from the middle of a pixel, and their number; [5, 3]."""
    return np.column_stack([_landmarks(size) - 0.5, np.arange(5)])


def _affine_to(keypoints: np.ndarray, given: tuple[int, int]) -> np.ndarray | None:
    """The map from an image of size ``given`` to where its landmarks are now."""
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if len(keypoints) < 5:
        return None
    order = np.argsort(keypoints[:, 2])
    return _fit_affine(_landmarks(given), keypoints[order, :2] + 0.5)


def _fit_affine(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """The affine map, float64 [2, 3], between points [5, 2]; None where the best is off by ``_STRAIGHT`` pixels."""
    homogeneous = np.column_stack([before, np.ones(len(before))])
    solution = np.linalg.lstsq(homogeneous, after, rcond=None)[0]
    off = np.abs(homogeneous @ solution - after).max()
    return solution.T if off < _STRAIGHT else None


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
        found = f"{image.dtype} {tuple(image.shape)}" if hasattr(image, "dtype") else type(image).__name__
        raise ConfigError(
            f"{AUGMENT_KEY}: the transforms left {found} instead of an image uint8 [height, width, 3]; "
            "remove the one that changes type or channels"
        )


def _build_pipeline(augment: Sequence[Mapping[str, Any]], min_visible: float) -> albumentations.Compose:
    transforms = _build_all(augment, AUGMENT_KEY)
    boxes = albumentations.BboxParams(
        format="pascal_voc",
        clip=True,
        filter_invalid_bboxes=True,
        min_visibility=min_visible,
        min_width=_NARROWEST,
        min_height=_NARROWEST,
    )
    points = albumentations.KeypointParams(format="xy", remove_invisible=False)
    with warnings.catch_warnings():
        # A pipeline of colour changes has no transform that moves boxes, and that is no reason to warn.
        warnings.filterwarnings("ignore", message="Got processor for")
        pipeline = albumentations.Compose(transforms, bbox_params=boxes, keypoint_params=points)
    # Compose takes no processor of ours, and this one is known to all its transforms already.
    pipeline.processors["bboxes"].__class__ = _BoxFilter
    return pipeline


def _build_all(specs: Sequence[Any], where: str) -> list[Any]:
    """The transforms of a list; all mistakes are told at once."""
    transforms, mistakes = [], []
    for index, spec in enumerate(specs):
        try:
            transforms.append(_build(spec, f"{where}[{index}]"))
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return transforms


def _build(spec: Any, where: str) -> Any:
    """One transform of albumentations from ``{name: ..., its arguments}``."""
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(f"{where}: found {spec!r}; write a transform as {{name: HorizontalFlip, p: 0.5}}")
    name = spec["name"]
    kind = _find(name, where)
    arguments = {str(key): value for key, value in spec.items() if key != "name"}
    _check_names(kind, arguments, where)
    if name in _NESTED:
        inner = arguments.get("transforms")
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            raise ConfigError(f"{where}: {name} needs a list of transforms under the key 'transforms'")
        arguments["transforms"] = _build_all(inner, f"{where}.transforms")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            transform = kind(**arguments)
        except Exception as error:
            raise ConfigError(f"{where}: {name}: {_reason(error)}") from None
    missing = set(getattr(transform, "targets_as_params", ())) - _GIVEN
    if missing:
        raise _needs_more(name, where)
    return transform


def _find(name: str, where: str) -> type:
    known = _known_transforms()
    if name in known:
        return known[name]
    if name in _CHANGE_TYPE:
        raise ConfigError(f"{where}: images stay 8-bit RGB, and the model normalises them; remove {name}")
    if name in _NEED_MORE:
        raise _needs_more(name, where)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(close)}?" if close else "see albumentations' list of transforms"
    raise ConfigError(f"{where}: there is no transform {name!r}; {remedy}")


def _needs_more(name: str, where: str) -> ConfigError:
    return ConfigError(f"{where}: {name} needs more than an image and its boxes; remove it")


@functools.cache
def _known_transforms() -> dict[str, type]:
    """The transforms of albumentations that an experiment can name."""
    bases = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    return {
        name: kind
        for name, kind in vars(albumentations).items()
        if inspect.isclass(kind)
        and (name in _NESTED or (issubclass(kind, bases) and kind not in bases))
        and not issubclass(kind, albumentations.Transform3D)
        and name not in _CHANGE_TYPE | _NEED_MORE
    }


def _check_names(kind: type, arguments: Mapping[str, Any], where: str) -> None:
    """albumentations warns of an argument it does not know and goes on without it; that is an error here."""
    known = inspect.signature(kind).parameters
    for name in arguments:
        if name not in known:
            raise ConfigError(
                f"{where}: {kind.__name__} has no argument {name!r}; it takes {', '.join(sorted(known))}"
            )


def _reason(error: BaseException) -> str:
    """The gist of an error of albumentations on one line."""
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        items = cause.errors(include_url=False, include_context=False)
        return "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg'].removeprefix('Value error, ')}"
            + (f", found {item['input']!r}" if item["loc"] and item["type"] != "missing" else "")
            for item in items
        )
    return " ".join(str(error).split()) or type(error).__name__
