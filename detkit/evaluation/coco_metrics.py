"""COCO's twelve numbers and those of each class, by pycocotools or a faster library that agrees with it."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from detkit.errors import DetkitError
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.json_rows import to_coco_boxes
from detkit.evaluation.results import DetectionTable

Backend = Literal["pycocotools", "fast"]

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""In pycocotools' order."""


@dataclass(frozen=True)
class ClassMetrics:
    """One class; a metric is a fraction from 0 to 1, and None where the class has no object."""

    name: str
    category_id: int
    objects: int
    """Crowds left out."""
    AP: float | None
    AP50: float | None
    AP75: float | None
    AR100: float | None


@dataclass(frozen=True)
class CocoMetrics:
    """The metrics of a set of images; fractions from 0 to 1, None where there is nothing to measure."""

    overall: dict[str, float | None]
    """By the names of METRIC_NAMES."""
    per_class: tuple[ClassMetrics, ...]
    """In the order of the ground truth's classes."""


def evaluate_boxes(
    ground_truth: GroundTruth, table: DetectionTable, *, backend: Backend = "pycocotools"
) -> CocoMetrics:
    """Measure boxes as COCO does: IoU .5 to .95, at most 1, 10 and 100 detections an image and class.

    Args:
        ground_truth: the objects.
        table: detections of images and classes that the ground truth knows (see ``results.restrict``).
        backend: ``pycocotools`` is the reference; ``fast`` is faster-coco-eval, with identical numbers.

    Raises:
        DetkitError: the backend is not installed.
    """
    coco, evaluator_class = _libraries(backend)
    # These libraries speak on standard output, which is the caller's.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = evaluator_class(
            _indexed(coco, ground_truth, _objects(ground_truth)),
            _indexed(coco, ground_truth, _detections(table)),
            iouType="bbox",
        )
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    numbers = [_or_none(value) for value in evaluator.stats]
    return CocoMetrics(
        overall=dict(zip(METRIC_NAMES, numbers, strict=True)),
        per_class=_per_class(ground_truth, evaluator.eval["precision"], evaluator.eval["recall"]),
    )


def _libraries(backend: str) -> tuple[Any, Any]:
    """The classes COCO and COCOeval of a backend."""
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    if backend != "fast":
        raise DetkitError(f"evaluation backend {backend!r}: there is pycocotools and fast")
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise DetkitError(
            "evaluation backend fast: faster-coco-eval is not installed; pip install detkit[fast-eval], "
            "or use the backend pycocotools"
        ) from None
    return COCO, COCOeval_faster


def _indexed(coco: Any, ground_truth: GroundTruth, annotations: list[dict[str, Any]]) -> Any:
    """A COCO object of these annotations; built directly, for loadRes fails on an empty list."""
    indexed = coco()
    indexed.dataset = {
        "images": [{"id": id_} for id_ in ground_truth.image_ids.tolist()],
        "categories": [{"id": id_} for id_ in ground_truth.category_ids],
        "annotations": annotations,
    }
    indexed.createIndex()
    return indexed


def _objects(ground_truth: GroundTruth) -> list[dict[str, Any]]:
    columns = (
        ground_truth.object_image_ids,
        ground_truth.object_category_ids,
        to_coco_boxes(ground_truth.boxes),
        ground_truth.areas,
        ground_truth.crowd.astype(np.int64),
    )
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    return _dicts(keys, columns)


def _detections(table: DetectionTable) -> list[dict[str, Any]]:
    boxes = to_coco_boxes(table.boxes)
    columns = (table.image_ids, table.category_ids, boxes, boxes[:, 2] * boxes[:, 3], table.scores)
    keys = ("id", "image_id", "category_id", "bbox", "area", "score")
    return [row | {"iscrowd": 0} for row in _dicts(keys, columns)]


def _dicts(keys: tuple[str, ...], columns: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:
    """One dict a row; ids count from 1, for both libraries read id 0 as "unmatched"."""
    lists = [column.tolist() for column in columns]
    return [
        dict(zip(keys, row, strict=True)) for row in zip(range(1, len(lists[0]) + 1), *lists, strict=True)
    ]


def _per_class(
    ground_truth: GroundTruth, precision: np.ndarray, recall: np.ndarray
) -> tuple[ClassMetrics, ...]:
    """From precision [IoU, recall, class, size, limit], recall [IoU, class, size, limit], classes by id."""
    column = {id_: index for index, id_ in enumerate(sorted(ground_truth.category_ids))}
    classes = zip(
        ground_truth.class_names, ground_truth.category_ids, ground_truth.objects_per_class(), strict=True
    )
    return tuple(
        ClassMetrics(
            name,
            category_id,
            objects,
            AP=_mean(precision[:, :, column[category_id], 0, -1]),
            AP50=_mean(precision[0, :, column[category_id], 0, -1]),
            AP75=_mean(precision[5, :, column[category_id], 0, -1]),
            AR100=_mean(recall[:, column[category_id], 0, -1]),
        )
        for name, category_id, objects in classes
    )


def _mean(values: np.ndarray) -> float | None:
    """The mean of what was measured; -1 marks what was not."""
    measured = values[values > -1]
    return float(np.mean(measured)) if measured.size else None


def _or_none(value: float) -> float | None:
    return float(value) if value > -1 else None
