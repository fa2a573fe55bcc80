"""Detections as a table, and the COCO results JSON they are read from and written to."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detkit.errors import DataError
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.json_rows import JsonRows, some_of
from detkit.files import read_json, written_whole

REMEDY = 'a detection is {"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}'
ROWS_PER_WRITE = 10_000


@dataclass(frozen=True)
class DetectionTable:
    """Detections of any number of images, one row each, in any order."""

    image_ids: np.ndarray
    """int64 [D]."""
    boxes: np.ndarray
    """xyxy in pixels of the original image, float32 [D, 4]; float64 where a file gave more digits."""
    scores: np.ndarray
    """Higher is surer, float32 or float64 [D]."""
    category_ids: np.ndarray
    """COCO ids, not class indices: int64 [D]."""

    def __post_init__(self) -> None:
        rows = len(self.image_ids)
        shapes = (self.boxes.shape, self.scores.shape, self.category_ids.shape)
        if shapes != ((rows, 4), (rows,), (rows,)):
            raise ValueError(f"{rows} image ids, but boxes, scores and category ids of shapes {shapes}")

    def __len__(self) -> int:
        return len(self.image_ids)

    def select(self, rows: np.ndarray) -> "DetectionTable":
        """The table of these rows: bool [D], or indices."""
        return DetectionTable(
            self.image_ids[rows], self.boxes[rows], self.scores[rows], self.category_ids[rows]
        )


def read_results(path: str | os.PathLike, ground_truth: GroundTruth | None = None) -> DetectionTable:
    """Read a COCO results file; numbers keep all their digits (boxes and scores are float64).

    Args:
        path: a JSON list of detections with boxes; an empty list is none.
        ground_truth: if given, ids are checked against it, and classes it leaves out are left out here.

    Raises:
        DataError: the file is not such a list, a value in it is unusable, or an image or category is unknown.
    """
    detections = read_json(path)
    if not isinstance(detections, list):
        found = "COCO annotations" if isinstance(detections, dict) and "images" in detections else "no list"
        raise DataError(f"{path}: a list of detections was expected, found {found}; {REMEDY}")
    rows = JsonRows(str(path), "detection", detections, REMEDY)
    if detections and all("bbox" not in row and "segmentation" in row for row in detections):
        raise DataError(
            f"{path}: holds masks and no 'bbox'; boxes alone are measured here: write them as well"
        )
    table = DetectionTable(
        image_ids=rows.integers("image_id"),
        boxes=rows.boxes(),
        scores=rows.numbers("score"),
        category_ids=rows.integers("category_id"),
    )
    return table if ground_truth is None else restrict(table, ground_truth, str(path))


def restrict(table: DetectionTable, ground_truth: GroundTruth, source: str = "detections") -> DetectionTable:
    """The detections of the classes that are measured.

    Raises:
        DataError: an image or category is not in the annotations; ``source`` names the table in the message.
    """
    categories = np.array(ground_truth.category_ids + ground_truth.dropped_category_ids)
    checks = (
        ("image", table.image_ids, ground_truth.image_ids, "these detections were made on other images"),
        ("category", table.category_ids, categories, "these detections use other category ids"),
    )
    for noun, ids, known, guess in checks:
        unknown = np.setdiff1d(ids, known)
        if len(unknown):
            remedy = "give the annotations that belong to them"
            raise DataError(
                f"{source}: {noun} id {some_of(unknown)}: not in the annotations; {guess}? {remedy}"
            )
    kept = np.isin(table.category_ids, ground_truth.category_ids)
    return table if kept.all() else table.select(kept)


def surest(table: DetectionTable, per_image: int = 100) -> DetectionTable:
    """The detections of each image and class with the highest scores, of equal ones the first: what COCO looks at."""
    order = np.lexsort((-table.scores, table.category_ids, table.image_ids))
    images, categories = table.image_ids[order], table.category_ids[order]
    begins = np.append(True, (images[1:] != images[:-1]) | (categories[1:] != categories[:-1]))[: len(table)]
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(table)), 0))
    kept = order[np.arange(len(table)) - starts < per_image]
    return table if len(kept) == len(table) else table.select(np.sort(kept))


def write_results(path: str | os.PathLike, table: DetectionTable) -> None:
    """Write a COCO results file, whole or not at all, one detection a line.

    Nothing is rounded: float32 boxes and scores read back as the very same numbers, so that measuring the
    file and measuring the table give equal metrics.

    Raises:
        DataError: a box or score is not finite, which JSON cannot say.
    """
    finite = np.isfinite(table.boxes).all(axis=1) & np.isfinite(table.scores)
    if not finite.all():
        rows = some_of(np.flatnonzero(~finite))
        problem = "box or score is not finite; are the model's weights?"
        raise DataError(f"{path}: not written: detection {rows} (counted from 0): {problem}")
    # Differences of float32 numbers are exact in float64, so x + width is the other corner again.
    boxes = table.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    columns = (table.image_ids, table.category_ids, boxes, table.scores.astype(np.float64))
    with written_whole(path) as partial:
        _write_rows(partial, columns)


def _write_rows(path: Path, columns: tuple[np.ndarray, ...]) -> None:
    count = len(columns[0])
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for start in range(0, count, ROWS_PER_WRITE):
            chunk = zip(*(column[start : start + ROWS_PER_WRITE].tolist() for column in columns), strict=True)
            lines = (
                f'{{"image_id": {image}, "category_id": {category}, "bbox": {box}, "score": {score}}}'
                for image, category, box, score in chunk
            )
            stream.write(("," if start else "") + "\n" + ",\n".join(lines))
        stream.write("\n]\n" if count else "]\n")
