"""The patches of a diagnosis and the images they are cut from, made small enough for a page that holds them all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from detkit.report.data_uris import jpeg_uri
from detkit.report.diagnosis_gallery import Box, Item

PICTURE_BYTES = 12_000_000
"""Of all pictures of a page, as it holds them."""
CONTEXT = 2.0
"""Sides of a patch, as a multiple of the longer side of its box."""
LEAST_PATCH = 48
"""Pixels of the image: a patch of something smaller shows more of what is around it."""
PATCH_SIDE, PATCH_QUALITY = 112, 78
"""Pixels of a patch's longer side, at most; JPEG's quality."""
IMAGE_QUALITY = 70
_IMAGE_SIDES = ((120, 640), (240, 512))
_SMALLEST = 400


@dataclass(frozen=True)
class Patch:
    """A piece of an image."""

    uri: str
    window: Box
    """What it shows: xyxy in pixels of the image."""


@dataclass(frozen=True)
class Pictures:
    """What was cut before the room was full."""

    images: dict[int, str]
    """Data URI of each image, smaller than its file, by id."""
    sizes: dict[int, tuple[int, int]]
    """(height, width) of the files."""
    patches: dict[Item, Patch]


def images_of(items: Sequence[Item]) -> list[int]:
    """The ids of the images, those of the worst items first."""
    return list(dict.fromkeys(item.image_id for item in items))


def cut_pictures(
    items: Sequence[Item], images: Iterable[np.ndarray], *, room: int = PICTURE_BYTES
) -> Pictures:
    """Cut a patch for each item, and keep its image, until the room is full: images of the worst items come first.

    Args:
        items: what is shown, the worst first.
        images: those of ``images_of(items)``, RGB uint8 [H, W, 3]; no more of them are asked for than have room.
        room: bytes.
    """
    order = images_of(items)
    of_image: dict[int, list[Item]] = {image_id: [] for image_id in order}
    for item in items:
        of_image[item.image_id].append(item)
    side = next((side for count, side in _IMAGE_SIDES if len(order) <= count), _SMALLEST)
    pictures = Pictures({}, {}, {})
    for image_id, pixels in zip(order, images, strict=True):
        uri = jpeg_uri(pixels, side, IMAGE_QUALITY)
        patches = {item: cut_patch(pixels, item.box) for item in of_image[image_id]}
        room -= len(uri) + sum(len(patch.uri) for patch in patches.values())
        if room < 0:
            break
        pictures.images[image_id] = uri
        pictures.sizes[image_id] = pixels.shape[0], pixels.shape[1]
        pictures.patches.update(patches)
    return pictures


def cut_patch(image: np.ndarray, box: Box) -> Patch:
    """The surroundings of a box: a square, moved into the image where it reaches out, and cut where it is larger."""
    height, width = image.shape[:2]
    side = max(LEAST_PATCH, CONTEXT * max(box[2] - box[0], box[3] - box[1]))
    x0, x1 = _span((box[0] + box[2]) / 2, side, width)
    y0, y1 = _span((box[1] + box[3]) / 2, side, height)
    return Patch(jpeg_uri(image[y0:y1, x0:x1], PATCH_SIDE, PATCH_QUALITY), (x0, y0, x1, y1))


def _span(centre: float, side: float, limit: int) -> tuple[int, int]:
    """Whole pixels of one axis, at least one."""
    length = min(limit, round(side))
    start = int(np.clip(round(centre - length / 2), 0, limit - length))
    return start, start + length
