"""Detections drawn into images, and many images on one sheet."""

import colorsys
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from detkit.evaluation import DetectionTable
from detkit.report.data_uris import shrunk

SHEET_IMAGES = 24
"""Images on a contact sheet."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_PALETTE = (
    (0, 158, 255),
    (255, 127, 14),
    (44, 190, 80),
    (230, 60, 60),
    (170, 110, 230),
    (240, 200, 30),
    (240, 110, 190),
    (0, 190, 190),
    (150, 200, 40),
    (180, 130, 90),
)


def class_colour(label: int) -> tuple[int, int, int]:
    """RGB of a class index; the first ten are chosen by hand, the others walk around the hues."""
    if label < len(_PALETTE):
        return _PALETTE[label]
    hue = label * 0.618034 % 1  # steps of the golden ratio stay apart, however many there are
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    scores: np.ndarray,
    *,
    class_names: Sequence[str],
    truth: np.ndarray | None = None,
    least_side: int = 480,
) -> np.ndarray:
    """Draw boxes with class name and score; returns a new image, RGB uint8 [H', W', 3].

    An image whose longer side is below ``least_side`` pixels is enlarged by a whole number first, so that the
    text can be read. Detections are solid in their class's colour, the best score on top; true boxes are dashed
    in white.

    Args:
        image: RGB uint8 [H, W, 3].
        boxes: xyxy in pixels of ``image``, [D, 4].
        labels: class index, [D].
        scores: from 0 to 1, [D].
        class_names: of every class index.
        truth: xyxy, [G, 4].
        least_side: pixels.
    """
    scale = max(1, math.ceil(least_side / max(image.shape[:2])))
    height, width = image.shape[0] * scale, image.shape[1] * scale
    canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) if scale > 1 else image.copy()
    thickness = max(2, round(max(height, width) / 400))
    if truth is not None:
        for corners in _corners(truth, scale, canvas):
            _dashed(canvas, corners, thickness)
    order = np.argsort(scores, kind="stable")
    placed = _corners(np.asarray(boxes)[order], scale, canvas)
    for (x0, y0, x1, y1), index in zip(placed, order, strict=True):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), class_colour(int(labels[index])), thickness)
    for corners, index in zip(placed, order, strict=True):
        label = int(labels[index])
        _tag(canvas, corners, f"{class_names[label]} {scores[index]:.2f}", class_colour(label), thickness)
    return canvas


def contact_sheet(images: Sequence[np.ndarray], columns: int, *, cell: int = 480, gap: int = 8) -> np.ndarray:
    """Lay images out on a white sheet, row by row; RGB uint8 [H, W, 3].

    Images larger than ``cell`` pixels on their longer side are shrunk to it; each row and column is as large
    as its largest image, and smaller ones are centred. No images give a blank sheet.
    """
    cells = [shrunk(image, cell) for image in images]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    filled = min(columns, len(cells))
    widths = [max(image.shape[1] for image in cells[column::columns]) for column in range(filled)]
    shape = (sum(heights) + gap * (len(heights) + 1), sum(widths) + gap * (len(widths) + 1), 3)
    sheet = np.full(shape, 255, np.uint8)
    y = gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for image, width in zip(row, widths, strict=False):
            top, left = y + (height - image.shape[0]) // 2, x + (width - image.shape[1]) // 2
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
            x += width + gap
        y += height + gap
    return sheet


def write_drawn(
    folder: Path,
    names: Sequence[str],
    images: Iterable[np.ndarray],
    table: DetectionTable,
    *,
    categories: Mapping[int, str],
) -> None:
    """Write a picture of each image with its detections, and contact_sheet.png with the first of them.

    Args:
        folder: receives the pictures, by place and name.
        names: of the images.
        images: RGB uint8 [H, W, 3], whose ids are their places.
        table: what is drawn.
        categories: names of the classes by category id; their order gives the colours.

    Raises:
        OSError: a picture cannot be written.
    """
    label_of = {category_id: label for label, category_id in enumerate(categories)}
    sheet = []
    for image_id, (name, image) in enumerate(zip(names, images, strict=True)):
        mine = table.select(table.image_ids == image_id)
        labels = [label_of[category_id] for category_id in mine.category_ids.tolist()]
        picture = draw_detections(
            image, mine.boxes, labels, mine.scores, class_names=list(categories.values())
        )
        _write_png(folder / f"{image_id:05}_{name}.png", picture)
        sheet += [picture] if image_id < SHEET_IMAGES else []
    _write_png(folder / "contact_sheet.png", contact_sheet(sheet, columns=4))


def _write_png(path: Path, picture: np.ndarray) -> None:
    path.write_bytes(
        cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    )  # imwrite would not say what went wrong


def _corners(boxes: np.ndarray, scale: int, canvas: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Whole pixels of the canvas that the boxes' edges fall on; what lies outside is drawn on the border."""
    height, width = canvas.shape[:2]
    pixels = np.rint(np.asarray(boxes, np.float64).reshape(-1, 4) * scale)
    limits = [width - 1, height - 1, width - 1, height - 1]
    return [(int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in np.clip(pixels, 0, limits)]


def _dashed(canvas: np.ndarray, corners: tuple[int, int, int, int], thickness: int) -> None:
    """A dashed rectangle in white over black, so that it shows on any ground."""
    x0, y0, x1, y1 = corners
    dash = 4 * thickness
    edges = (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0)))
    for start, end in edges:
        cv2.line(canvas, start, end, _BLACK, thickness)
        count = max(1, round(math.dist(start, end) / dash))
        points = np.linspace(start, end, count + 1).round().astype(int)
        for here, there in zip(points[:-1:2], points[1::2], strict=False):
            cv2.line(canvas, here.tolist(), there.tolist(), _WHITE, max(1, thickness - 1))


def _tag(
    canvas: np.ndarray,
    corners: tuple[int, int, int, int],
    text: str,
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    """Text on its class's colour, on top of the box, or below it where the picture ends."""
    size = 0.28 * thickness
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, size, 1)
    width, height = text_width + 6, text_height + baseline + 4
    x0, y0, _, y1 = corners
    left = max(0, min(x0 - thickness // 2, canvas.shape[1] - width))
    top = y0 - height if y0 >= height else min(y1, canvas.shape[0] - height)
    cv2.rectangle(canvas, (left, top), (left + width, top + height), colour, cv2.FILLED)
    luminance = np.dot(colour, (0.299, 0.587, 0.114))
    ink = _BLACK if luminance > 120 else _WHITE
    cv2.putText(canvas, text, (left + 3, top + text_height + 3), _FONT, size, ink, 1, cv2.LINE_AA)
