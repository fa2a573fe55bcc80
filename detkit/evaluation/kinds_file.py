"""The kind of every detection and of every missed object, as a table for spreadsheets: errors.csv.

Columns: ``image_id``; ``category``, what the detector says, or what was missed; ``score``, empty for a missed object;
``x1``, ``y1``, ``x2``, ``y2`` in pixels; ``kind`` (see ``detection_errors``, and "missed"); ``nearest_category`` and
``nearest_iou``: the object, of any class, with the greatest overlap, empty and 0 where there is none. A missed object
has the overlap of the detection, of any class, that comes nearest to it.
"""

import csv
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from detkit.evaluation.detection_errors import ClassifiedDetections, DetectionKind
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.results import DetectionTable
from detkit.files import written_whole

COLUMNS = ["image_id", "category", "score", "x1", "y1", "x2", "y2", "kind", "nearest_category", "nearest_iou"]


def write_kinds(
    path: str | os.PathLike,
    ground_truth: GroundTruth,
    table: DetectionTable,
    classified: ClassifiedDetections,
) -> None:
    """Write the table, detections first, in their order; whole or not at all."""
    # A name may hold half a surrogate pair, which JSON can say and UTF-8 cannot.
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="replace", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(_detections(ground_truth, table, classified))
        writer.writerows(_missed(ground_truth, classified))


def _detections(
    ground_truth: GroundTruth, table: DetectionTable, classified: ClassifiedDetections
) -> Iterator[list[Any]]:
    names = ground_truth.names
    words = [kind.words for kind in DetectionKind]
    objects = [names[id_] for id_ in ground_truth.object_category_ids.tolist()]
    columns = (
        table.image_ids.tolist(),
        table.category_ids.tolist(),
        table.scores.tolist(),
        np.round(table.boxes.astype(np.float64), 2).tolist(),
        classified.kinds.tolist(),
        classified.nearest_objects.tolist(),
        classified.nearest_ious.tolist(),
    )
    for image, category, score, box, kind, nearest, iou in zip(*columns, strict=True):
        near = objects[nearest] if nearest >= 0 else ""
        yield [image, names[category], f"{score:.4f}", *box, words[kind], near, f"{iou:.3f}"]


def _missed(ground_truth: GroundTruth, classified: ClassifiedDetections) -> Iterator[list[Any]]:
    overlaps = np.zeros(len(ground_truth))
    seen = classified.nearest_objects >= 0
    np.maximum.at(overlaps, classified.nearest_objects[seen], classified.nearest_ious[seen])
    for row in np.flatnonzero(classified.missed).tolist():
        name = ground_truth.names[int(ground_truth.object_category_ids[row])]
        box = np.round(ground_truth.boxes[row], 2).tolist()
        yield [
            int(ground_truth.object_image_ids[row]),
            name,
            "",
            *box,
            "missed",
            name,
            f"{overlaps[row]:.3f}",
        ]
