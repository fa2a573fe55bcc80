"""What the script of a diagnosis's page works on: the gallery and its images, as one tree of JSON.

``classes``, ``kinds``, ``witnesses``: names, that the rest has places of. ``images``: name, digest (null where it is
not known), size, picture, objects and detections of each. ``items``: the errors. ``marks``: those made before, as their
file has them.
Boxes are xyxy in pixels of the file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from detkit.evaluation.detection_errors import DetectionKind
from detkit.evaluation.diagnosed import Diagnosed
from detkit.evaluation.error_costs import ERRORS
from detkit.evaluation.missing_labels import SAME_PLACE
from detkit.report.diagnosis_gallery import Item
from detkit.report.diagnosis_pictures import Pictures, images_of

MOST_DRAWN = 60
"""Detections drawn over an image, the surest; a detector that fires everywhere must not hide its image."""


def gallery_data(diagnosed: Diagnosed, items: Sequence[Item], pictures: Pictures | None) -> dict[str, Any]:
    """The tree.

    Args:
        diagnosed: what the page shows.
        items: the errors, the worst first.
        pictures: of the images and the errors' patches; None where there are none.
    """
    image_ids = images_of(items)
    images = {id_: place for place, id_ in enumerate(image_ids)}
    classes = {id_: place for place, id_ in enumerate(diagnosed.ground_truth.category_ids)}
    scenes = _Scenes(diagnosed, classes)
    tree = {
        "classes": list(diagnosed.ground_truth.class_names),
        "kinds": list(ERRORS),
        "witnesses": list(diagnosed.suspects.witnesses),
        "images": [scenes.image(image_id, pictures) for image_id in image_ids],
        "items": [
            {
                **_item(item, classes, diagnosed),
                "image": images[item.image_id],
                "patch": None if pictures is None else asdict(pictures.patches[item]),
            }
            for item in items
        ],
        "marks": diagnosed.marks.model_dump(),
        "same_place": SAME_PLACE,
    }
    # The browser keeps by this what was not saved yet, so it must differ from page to page.
    digest = hashlib.sha256(json.dumps(tree).encode()).hexdigest()[:20]
    return {**tree, "key": f"detkit-diagnosis-{digest}"}


def _item(item: Item, classes: Mapping[int, int], diagnosed: Diagnosed) -> dict[str, Any]:
    suspect, found = item.suspect, diagnosed.suspects
    other = None
    if item.other_box is not None and item.other_category_id is not None:
        other = {"class": classes[item.other_category_id], "box": _rounded(item.other_box)}
    return {
        "kind": ERRORS.index(item.kind),
        "class": classes[item.category_id],
        # A mark is about this very box and score; what is only looked at needs less.
        "box": _rounded(item.box) if suspect is None else list(item.box),
        "score": item.score if suspect is not None or item.score is None else round(item.score, 4),
        "iou": round(item.iou, 3),
        "other": other,
        "near": item.near,
        "suspect": suspect,
        "seen": [] if suspect is None else np.flatnonzero(found.seen[suspect]).tolist(),
    }


class _Scenes:
    """What lies in each image."""

    def __init__(self, diagnosed: Diagnosed, classes: Mapping[int, int]) -> None:
        self.diagnosed = diagnosed
        self.classes = classes
        table, truth = diagnosed.table, diagnosed.ground_truth
        # From the score of the confusion matrix on, for less sure ones say nothing of how the detector is used.
        sure = np.flatnonzero(table.scores >= diagnosed.diagnosis.score)
        self.detections = _by_image(table.image_ids, sure[np.argsort(-table.scores[sure], kind="stable")])
        self.objects = _by_image(truth.object_image_ids, np.arange(len(truth)))

    def image(self, image_id: int, pictures: Pictures | None) -> dict[str, Any]:
        """The name, digest, size (height, width), picture, objects and detections of an image."""
        size = self.diagnosed.image_sizes.get(image_id)
        if pictures is not None:
            size = pictures.sizes[image_id]
        detections = self.detections.get(image_id, np.zeros(0, np.int64))
        return {
            "name": self.diagnosed.image_names.get(image_id, str(image_id)),
            "sha256": self.diagnosed.image_digests.get(image_id),
            "size": size,
            "uri": None if pictures is None else pictures.images[image_id],
            "objects": [
                self._object(row) for row in self.objects.get(image_id, np.zeros(0, np.int64)).tolist()
            ],
            "detections": [self._detection(row) for row in detections[:MOST_DRAWN].tolist()],
            "undrawn": max(0, len(detections) - MOST_DRAWN),
        }

    def _object(self, row: int) -> list[Any]:
        """Class, state and box."""
        truth, classified = self.diagnosed.ground_truth, self.diagnosed.classified
        state = "ignored" if truth.crowd[row] else "found" if classified.found[row] else "missed"
        return [self.classes[int(truth.object_category_ids[row])], state, _rounded(truth.boxes[row].tolist())]

    def _detection(self, row: int) -> list[Any]:
        """Class, what it is, score and box."""
        table = self.diagnosed.table
        kind = DetectionKind(int(self.diagnosed.classified.kinds[row]))
        outcome = {DetectionKind.CORRECT: "correct", DetectionKind.IGNORED: "ignored"}.get(kind, "false")
        score, box = round(float(table.scores[row]), 3), _rounded(table.boxes[row].tolist())
        return [self.classes[int(table.category_ids[row])], outcome, score, box]


def _by_image(image_ids: np.ndarray, rows: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each image that has any, in their order."""
    ordered = rows[np.argsort(image_ids[rows], kind="stable")]
    ids, starts = np.unique(image_ids[ordered], return_index=True)
    return dict(zip(ids.tolist(), np.split(ordered, starts)[1:], strict=True))


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(value), 1) for value in box]
