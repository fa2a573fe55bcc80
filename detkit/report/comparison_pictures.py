"""Pictures inside the page: files as data URIs, and boxes drawn over them as SVG.

A picture is embedded once and shown under every arm, so that six arms cost no more than one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from detkit.errors import DataError
from detkit.evaluation.comparison_results import Box, DrawnDetection, Object, Panel, Picture
from detkit.report.data_uris import data_uri, jpeg_uri

_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_TEXT_SHARE = 26
"""A label's height is the picture's longer side divided by this."""
ENLARGED = 1.9
"""On a telephone labels are larger by this factor, and only those are shown that have room."""
_LABEL_WIDTH = 2.6
"""Of a score with two decimals, in heights of the label."""
MOST_FALSE = 60
"""False detections drawn in a panel, the surest; a detector that fires everywhere must not make a page of 10 MB."""
_CROP_BYTES, _CROP_SIDE, _CROP_QUALITY = 8_000, 176, 82
"""A crop whose file is larger is shown smaller: pixels of its longer side; JPEG's quality."""


def picture_uri(folder: str | PathLike, picture: str) -> str:
    """A JPEG or PNG below the results' folder, for the ``src`` of an image.

    Raises:
        DataError: the path leads out of the folder, or to no readable JPEG or PNG.
    """
    return data_uri(*_read(folder, picture))


def crop_uri(folder: str | PathLike, picture: str) -> str:
    """``picture_uri`` of a crop for the gallery: a large one is made as small as it is shown.

    Raises:
        DataError: see ``picture_uri``.
    """
    kind, content = _read(folder, picture)
    if len(content) > _CROP_BYTES:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise DataError(f"{folder}: picture {picture!r}: is damaged; make the pictures again")
        return jpeg_uri(pixels[..., ::-1], _CROP_SIDE, _CROP_QUALITY)
    return data_uri(kind, content)


def _read(folder: str | PathLike, picture: str) -> tuple[str, bytes]:
    """A picture's media type and the file's content."""
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
            return kind, content
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
    label_x: float = 0
    label_y: float = 0
    enlarged: bool = False
    """The label has room when it is ENLARGED."""


@dataclass(frozen=True)
class DrawnPanel:
    """What one arm sees."""

    arm: str
    marks: tuple[Mark, ...]
    correct: int
    false: int
    missed: int
    undrawn: int
    """False detections that are counted and not drawn."""
    threshold: float
    at_most: float | None
    """The arm's highest recall, where it does not reach that of the others."""
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


def drawn_picture(
    folder: str | PathLike, picture: Picture, number: int, at_most: Mapping[str, float]
) -> DrawnPicture:
    """Everything the page needs of a picture.

    Args:
        number: of the picture in the page, counted from 1.
        at_most: the highest recall of those arms that do not reach that of the others.

    Raises:
        DataError: see ``picture_uri``.
    """
    text = max(picture.width, picture.height) / _TEXT_SHARE
    return DrawnPicture(
        key=f"picture-{number}",
        uri=picture_uri(folder, picture.picture),
        name=picture.name,
        reason=picture.reason,
        width=picture.width,
        height=picture.height,
        text=text,
        panels=tuple(_panel(picture, panel, text, at_most.get(panel.arm)) for panel in picture.panels),
    )


def _panel(picture: Picture, panel: Panel, text: float, at_most: float | None) -> DrawnPanel:
    counts = {
        outcome: sum(detection.outcome == outcome for detection in panel.detections)
        for outcome in ("correct", "false")
    }
    surest_first = sorted(panel.detections, key=lambda detection: -detection.score)
    false = [detection for detection in surest_first if detection.outcome == "false"]
    others = [detection for detection in surest_first if detection.outcome != "false"]
    drawn = sorted([*others, *false[:MOST_FALSE]], key=lambda detection: -detection.score)
    marks = _with_room([_mark(one, picture, text) for one in drawn], text)
    missed = [_missed(picture.objects[index]) for index in panel.missed]
    return DrawnPanel(
        arm=panel.arm,
        marks=(*missed, *marks[::-1]),  # the surest on top
        missed=len(panel.missed),
        undrawn=len(false[MOST_FALSE:]),
        threshold=panel.threshold,
        at_most=at_most,
        alternative=(
            f"{picture.name} under {panel.arm}: {counts['correct']} objects found, {len(panel.missed)} missed, "
            f"{counts['false']} false detections"
        ),
        **counts,
    )


def _missed(one: Object) -> Mark:
    return Mark(*_corner_and_size(one.box), "missed", f"missed: {one.class_name}", "")


def _mark(detection: DrawnDetection, picture: Picture, text: float) -> Mark:
    x, y, width, height = _corner_and_size(detection.box)
    title = f"{detection.outcome}: {detection.class_name} {detection.score:.2f}"
    label = f"{detection.score:.2f}" if detection.outcome == "false" else ""
    # Above the box, and inside it where the picture ends.
    label_x = max(0.0, min(x, picture.width - ENLARGED * _LABEL_WIDTH * text))
    label_y = max(y - 0.25 * text, 0.8 * ENLARGED * text)
    return Mark(
        x, y, width, height, detection.outcome, title, label, round(label_x, 1), round(label_y, 1)
    )  # fmt: skip


def _corner_and_size(box: Box) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return round(x0, 1), round(y0, 1), round(x1 - x0, 1), round(y1 - y0, 1)


def _with_room(marks: Sequence[Mark], text: float) -> list[Mark]:
    """The marks, in order, without the labels that would cover one before them."""
    placed: dict[float, list[Mark]] = {1.0: [], ENLARGED: []}

    def fits(mark: Mark, scale: float) -> bool:
        free = all(
            abs(mark.label_x - other.label_x) > _LABEL_WIDTH * scale * text
            or abs(mark.label_y - other.label_y) > scale * text
            for other in placed[scale]
        )
        if free:
            placed[scale].append(mark)
        return free

    kept = []
    for mark in marks:
        has_room = bool(mark.label) and fits(mark, 1.0)
        enlarged = has_room and fits(mark, ENLARGED)
        kept.append(replace(mark, label=mark.label if has_room else "", enlarged=enlarged))
    return kept
