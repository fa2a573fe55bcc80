"""Small and simulated diagnoses, and the files that a diagnosis is made from."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from simulated_runs import SIDE, Eye, simulated_detections, simulated_truth

from detkit.evaluation import DetectionTable, GroundTruth, write_results
from detkit.evaluation.diagnosed import Diagnosed
from detkit.evaluation.diagnosis import diagnose
from detkit.evaluation.ground_truth import coco_categories
from detkit.evaluation.missing_labels import suspected_missing_labels
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks


def diagnosed_from(
    objects: Sequence[tuple],
    detections: Sequence[tuple],
    *,
    images: int = 4,
    classes: tuple[str, ...] = ("cat", "dog"),
) -> Diagnosed:
    """``objects``: (image id, category id, xyxy box); ``detections`` have a score behind; ids count from 1."""
    boxes = np.array([row[2] for row in objects], dtype=np.float64).reshape(-1, 4)
    truth = GroundTruth(
        image_ids=np.arange(1, images + 1),
        category_ids=tuple(range(1, len(classes) + 1)),
        class_names=classes,
        object_image_ids=np.array([row[0] for row in objects], dtype=np.int64),
        object_category_ids=np.array([row[1] for row in objects], dtype=np.int64),
        boxes=boxes,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        crowd=np.zeros(len(boxes), dtype=bool),
    )
    table = DetectionTable(
        image_ids=np.array([row[0] for row in detections], dtype=np.int64),
        boxes=np.array([row[2] for row in detections], dtype=np.float64).reshape(-1, 4),
        scores=np.array([row[3] for row in detections], dtype=np.float64),
        category_ids=np.array([row[1] for row in detections], dtype=np.int64),
    )
    return diagnosed_of(truth, table)


def diagnosed_of(
    truth: GroundTruth,
    table: DetectionTable,
    *,
    others: Sequence[tuple[str, DetectionTable]] = (),
    names: str = "photo {}.jpg",
    title: str = "simulated",
    pictures: bool = False,
    marks: ReviewMarks = NO_MARKS,
) -> Diagnosed:
    """A diagnosis of these; the others are what other checkpoints take for objects."""
    diagnosis, classified = diagnose(truth, table)
    ids = truth.image_ids.tolist()
    return Diagnosed(
        title=title,
        diagnosis=diagnosis,
        ground_truth=truth,
        table=table,
        classified=classified,
        suspects=suspected_missing_labels(table, classified, others),
        image_names={id_: names.format(id_) for id_ in ids},
        image_sizes=dict.fromkeys(ids, (SIDE, SIDE)),
        read_images=_textures if pictures else None,
        marks=marks,
    )


def simulated_diagnosis(
    images: int = 30, classes: tuple[str, ...] = ("drone", "bird"), **options
) -> Diagnosed:
    """Many errors of all kinds, half of whose places another checkpoint fires at too; ``options`` as above."""
    truth = simulated_truth(images, classes=classes)
    table = simulated_detections(truth, Eye(separation=1.2, backgrounds=8, jitter=0.12), seed=1)
    other = table.select(np.arange(len(table)) % 2 == 0)
    return diagnosed_of(truth, table, others=[("last.pt", other)], **options)


def write_files(folder: Path, diagnosed: Diagnosed) -> tuple[Path, Path, Path]:
    """The annotations, the detections and the folder of images of a diagnosis, as COCO has them."""
    truth = diagnosed.ground_truth
    tree = {
        "images": [
            {"id": id_, "file_name": diagnosed.image_names[id_], "width": SIDE, "height": SIDE}
            for id_ in truth.image_ids.tolist()
        ],
        "annotations": [
            {"id": row, "image_id": image_id, "category_id": category_id, "iscrowd": 0,
             "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            for row, (image_id, category_id, (x0, y0, x1, y1)) in enumerate(
                zip(truth.object_image_ids.tolist(), truth.object_category_ids.tolist(), truth.boxes.tolist(),
                    strict=True), start=1)
        ],
        "categories": coco_categories(truth.names),
    }  # fmt: skip
    (folder / "gt.json").write_text(json.dumps(tree))
    write_results(folder / "dt.json", diagnosed.table)
    images = folder / "images"
    for id_, pixels in zip(truth.image_ids.tolist(), _textures(truth.image_ids.tolist()), strict=True):
        path = images / diagnosed.image_names[id_]
        path.parent.mkdir(parents=True, exist_ok=True)
        content = cv2.imencode(".jpg", pixels)[1]
        path.write_bytes(content.tobytes())
    return folder / "gt.json", folder / "dt.json", images


def _textures(image_ids: Sequence[int]) -> Iterator[np.ndarray]:
    for image_id in image_ids:
        coarse = np.random.default_rng(image_id).integers(60, 200, (8, 8, 3), dtype=np.uint8)
        yield cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
