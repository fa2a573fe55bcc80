"""Pictures inside the page: files as data URIs, and boxes drawn over them as SVG.

A picture is embedded once and shown under every arm, so that six arms cost no more than one.
"""

import base64
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from detkit.errors import DataError
from detkit.evaluation.comparison_results import DrawnDetection, Object, Panel, Picture

_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_TEXT_SHARE = 26
"""A label's height is the picture's longer side divided by this."""


def data_uri(folder: str | PathLike, picture: str) -> str:
    """A JPEG or PNG below the results' folder, for the ``src`` of an image.

    Raises:
        DataError: the path leads out of the folder, or to no readable JPEG or PNG.
    """
    root = Path(folder).resolve()
    path = (root / picture).resolve()
    if not path.is_relative_to(root):
        raise DataError(
            f"{folder}: picture {picture!r}: lies outside the folder; results.json must not name it"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; keep the pictures beside results.json"
        ) from None
    for magic, kind in _KINDS.items():
        if content.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(content).decode()}"
    raise DataError(f"{path}: is no JPEG or PNG; make the pictures again with tools/compare.py")


@dataclass(frozen=True)
class Mark:
    """A box to draw, in pixels of the original image."""

    x: float
    y: float
    width: float
    height: float
    outcome: str
    """ "correct", "false", "ignored" or "missed": the CSS class."""
    title: str
    """What a pointer over it shows."""
    label: str
    """Drawn beside it; may be empty."""
    label_y: float


@dataclass(frozen=True)
class DrawnPanel:
    """What one arm sees."""

    arm: str
    marks: tuple[Mark, ...]
    correct: int
    false: int
    missed: int
    threshold: float
    alternative: str
    """In place of the picture, for those who do not see it."""


@dataclass(frozen=True)
class DrawnPicture:
    """A picture and its panels."""

    key: str
    uri: str
    name: str
    reason: str
    width: int
    height: int
    text: float
    """Height of a label, in pixels of the original image."""
    panels: tuple[DrawnPanel, ...]


def drawn_picture(folder: str | PathLike, picture: Picture, number: int) -> DrawnPicture:
    """Everything the page needs of a picture.

    Raises:
        DataError: see ``data_uri``.
    """
    text = max(picture.width, picture.height) / _TEXT_SHARE
    return DrawnPicture(
        key=f"picture-{number}",
        uri=data_uri(folder, picture.picture),
        name=picture.name,
        reason=picture.reason,
        width=picture.width,
        height=picture.height,
        text=text,
        panels=tuple(_panel(picture, panel, text) for panel in picture.panels),
    )


def _panel(picture: Picture, panel: Panel, text: float) -> DrawnPanel:
    counts = {
        outcome: sum(detection.outcome == outcome for detection in panel.detections)
        for outcome in ("correct", "false")
    }
    # The surest on top, as in the other pictures.
    detections = sorted(panel.detections, key=lambda detection: detection.score)
    missed = [_missed(picture.objects[index]) for index in panel.missed]
    return DrawnPanel(
        arm=panel.arm,
        marks=(*missed, *(_mark(detection, text) for detection in detections)),
        missed=len(panel.missed),
        threshold=panel.threshold,
        alternative=(
            f"{picture.name} under {panel.arm}: {counts['correct']} objects found, {len(panel.missed)} missed, "
            f"{counts['false']} false detections"
        ),
        **counts,
    )


def _missed(one: Object) -> Mark:
    x0, y0, x1, y1 = one.box
    return Mark(x0, y0, x1 - x0, y1 - y0, "missed", f"missed: {one.class_name}", "", 0)


def _mark(detection: DrawnDetection, text: float) -> Mark:
    x0, y0, x1, y1 = detection.box
    title = f"{detection.outcome}: {detection.class_name} {detection.score:.2f}"
    # Above the box, or inside it where the picture ends.
    label_y = y0 - 0.25 * text if y0 > 1.2 * text else y0 + text
    label = f"{detection.score:.2f}" if detection.outcome == "false" else ""
    return Mark(x0, y0, x1 - x0, y1 - y0, detection.outcome, title, label, label_y)
