"""Everything that is measured, as one dict: the content of metrics.json.

The file is strict JSON. A metric is a fraction from 0 to 1, and null where there is nothing to measure.

- ``format_version``: 1.
- ``backend``: what computed the average precisions.
- ``images``, ``objects``, ``detections``: counts; crowds are no objects, and detections of classes that are
  not measured are left out.
- ``AP`` ... ``ARl``: COCO's twelve numbers.
- ``operating_point``: ``score`` and ``iou``, the thresholds; ``precision``, ``recall``, ``F1`` and the counts
  ``TP``, ``FP``, ``FN`` over all classes together.
- ``per_class``: a list with ``name``, ``category_id``, ``objects``, ``AP``, ``AP50``, ``AP75``, ``AR100``,
  and the operating point's ``precision`` ... ``FN`` of the class.
"""

from dataclasses import asdict
from typing import Any, NamedTuple

from detkit.evaluation.coco_metrics import Backend, evaluate_boxes
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.operating_point import Counts, operating_point
from detkit.evaluation.results import DetectionTable, restrict

FORMAT_VERSION = 1

MEANINGS = {
    "AP": "IoU .50 to .95",
    "AP50": "IoU .50",
    "AP75": "IoU .75",
    "APs": "objects under 32 x 32 pixels",
    "APm": "objects from 32 x 32 to 96 x 96",
    "APl": "objects over 96 x 96",
    "AR1": "recall, one detection an image and class",
    "AR10": "recall, ten",
    "AR100": "recall, a hundred",
    "ARs": "recall, objects under 32 x 32 pixels",
    "ARm": "recall, objects from 32 x 32 to 96 x 96",
    "ARl": "recall, objects over 96 x 96",
}
"""A few words on each of COCO's numbers."""


def measure(
    ground_truth: GroundTruth,
    table: DetectionTable,
    *,
    backend: Backend = "pycocotools",
    score: float = 0.5,
) -> dict[str, Any]:
    """COCO's numbers, and precision, recall and F1 at a score: the dict that metrics.json holds.

    Args:
        ground_truth: the objects.
        table: the detections.
        backend: see ``coco_metrics.evaluate_boxes``.
        score: the least score of a detection that counts for precision, recall and F1; their IoU is .5.

    Raises:
        DataError: a detection is of an image or category that the ground truth does not know.
        DetkitError: the backend is not installed.
    """
    table = restrict(table, ground_truth)
    coco = evaluate_boxes(ground_truth, table, backend=backend)
    point = operating_point(ground_truth, table, score=score)
    classes = zip(coco.per_class, point.per_class, strict=True)
    return {
        "format_version": FORMAT_VERSION,
        "backend": backend,
        "images": len(ground_truth.image_ids),
        "objects": sum(ground_truth.objects_per_class()),
        "detections": len(table),
        **coco.overall,
        "operating_point": {"score": point.score, "iou": point.iou, **_at_point(point.overall)},
        "per_class": [asdict(metrics) | _at_point(counts) for metrics, counts in classes],
    }


def _at_point(counts: Counts) -> dict[str, float | int | None]:
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "F1": counts.f1,
        "TP": counts.true_positives,
        "FP": counts.false_positives,
        "FN": counts.false_negatives,
    }


class MetricsTable(NamedTuple):
    """A table to be shown, in the order of ``console.print_table``'s arguments."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def metrics_tables(metrics: dict[str, Any]) -> list[MetricsTable]:
    """What a person reads of ``measure``'s dict: the twelve numbers, and a row for each class and for all."""
    point = metrics["operating_point"]
    of_coco, of_point = ("AP", "AP50", "AR100"), ("precision", "recall", "F1")
    columns = ("objects", *of_coco, *of_point)
    overall = (
        "all",
        metrics["objects"],
        *(metrics[key] for key in of_coco),
        *(point[key] for key in of_point),
    )
    classes = [(row["name"], *(row[key] for key in columns)) for row in metrics["per_class"]]
    size = f"{metrics['images']} images, {metrics['objects']} objects, {metrics['detections']} detections"
    return [
        MetricsTable(
            size,
            ("metric", "value", "meaning"),
            [(name, metrics[name], text) for name, text in MEANINGS.items()],
        ),
        MetricsTable(
            f"By class; precision, recall and F1 at score {point['score']:g}, IoU {point['iou']:g}",
            ("class", *columns),
            [*classes, overall],
        ),
    ]
