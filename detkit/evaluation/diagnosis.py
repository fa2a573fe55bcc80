"""What is wrong with a detector, in numbers: diagnosis.json.

The dataclasses below are the format: an object of JSON for each, its keys the fields, a list for each tuple.
``format_version`` is 1. Metrics are fractions from 0 to 1, null where there is nothing to measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detkit.evaluation.alarms import alarms
from detkit.evaluation.calibration import calibration
from detkit.evaluation.confusion import confusion_matrix
from detkit.evaluation.detection_curve import DetectionCurve, detection_curve
from detkit.evaluation.detection_errors import ClassifiedDetections, classify_detections
from detkit.evaluation.error_costs import ERRORS, ErrorCosts, error_costs
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.results import DetectionTable

FORMAT_VERSION = 1
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
"""COCO's, square pixels from and to."""
CURVE_POINTS = 400
"""Of a curve, at most: spread evenly over its thresholds, the ends and the best kept."""


@dataclass(frozen=True)
class ErrorRow:
    """One kind of error."""

    name: str
    """See ``error_costs.ERRORS``."""
    count: int
    cost: float | None
    """How much average precision at IoU .5 the kind costs."""


@dataclass(frozen=True)
class PartRow:
    """The errors in a part of the data."""

    part: str
    """``all``, ``class``, ``group`` or ``size``."""
    name: str
    objects: int
    missed: int
    AP50: float | None
    errors: tuple[ErrorRow, ...]


@dataclass(frozen=True)
class CurveRows:
    """Points of a curve over the score, highest first."""

    scores: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    F1: tuple[float, ...]
    false_positives_per_image: tuple[float, ...]
    best: int | None
    """The point with the highest F1."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that is found."""

    images: int
    objects: int
    detections: int
    score: float
    """From which on detections count in the confusion matrix: that of the best F1."""
    parts: tuple[PartRow, ...]
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows are what is there, background last; columns what is said, missed last."""
    curve: CurveRows | None
    """None without objects."""
    calibration: dict[str, Any]
    """``edges``, ``counts``, ``scores`` and ``precisions`` of the bins, and the ``error``."""
    alarms: dict[str, Any]
    """``images`` without objects; by ``scores`` the ``rates`` of them with a detection that sure."""

    def record(self) -> dict[str, Any]:
        """What diagnosis.json holds."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def diagnose(
    ground_truth: GroundTruth,
    table: DetectionTable,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Diagnosis, ClassifiedDetections]:
    """Find what is wrong, and what each detection is.

    Args:
        ground_truth: the objects.
        table: no more than the 100 surest detections of each image and class (see ``results.surest``), so that average
            precisions are COCO's.
        groups: categories that are also counted together, by name.
    """
    classified = classify_detections(ground_truth, table)
    curve = detection_curve(ground_truth, table)
    score = float(curve.scores[curve.best]) if curve.best is not None else 0.5
    confusion = confusion_matrix(ground_truth, table, classified, score=score)
    diagnosis = Diagnosis(
        images=len(ground_truth.image_ids),
        objects=sum(ground_truth.objects_per_class()),
        detections=len(table),
        score=score,
        parts=tuple(_parts(ground_truth, table, classified, groups or {})),
        class_names=ground_truth.class_names,
        confusion=tuple(map(tuple, confusion.counts.tolist())),
        curve=_curve_rows(curve) if curve.objects else None,
        calibration=_calibration(table, classified),
        alarms=_alarms(ground_truth, table),
    )
    return diagnosis, classified


def _parts(
    ground_truth: GroundTruth,
    table: DetectionTable,
    classified: ClassifiedDetections,
    groups: Mapping[str, Sequence[int]],
) -> list[PartRow]:
    costs = error_costs(ground_truth, table, classified)
    objects = np.array(ground_truth.objects_per_class())
    rows = [_part("all", "all", costs, objects, ground_truth.category_ids)]
    for name, category_id in zip(ground_truth.class_names, ground_truth.category_ids, strict=True):
        rows.append(_part("class", name, costs, objects, [category_id]))
    for name, category_ids in groups.items():
        rows.append(_part("group", name, costs, objects, category_ids))
    for name, areas in SIZES.items():
        of_size = error_costs(ground_truth, table, classified, areas=areas)
        inside = (ground_truth.areas >= areas[0]) & (ground_truth.areas < areas[1]) & ~ground_truth.crowd
        counts = [
            int((ground_truth.object_category_ids[inside] == id_).sum()) for id_ in ground_truth.category_ids
        ]
        rows.append(_part("size", name, of_size, np.array(counts), ground_truth.category_ids))
    return rows


def _part(
    part: str, name: str, costs: ErrorCosts, objects: np.ndarray, category_ids: Sequence[int]
) -> PartRow:
    classes = np.isin(costs.category_ids, category_ids)
    counts = {error: int(costs.counts[error][classes].sum()) for error in ERRORS}
    return PartRow(
        part,
        name,
        objects=int(objects[classes].sum()),
        missed=counts["missed"],
        AP50=costs.mean(category_ids),
        errors=tuple(ErrorRow(error, counts[error], costs.cost(error, category_ids)) for error in ERRORS),
    )


def _curve_rows(curve: DetectionCurve) -> CurveRows:
    count, best = len(curve.scores), curve.best
    points = np.linspace(0, max(count - 1, 0), min(CURVE_POINTS, count)).round().astype(int)
    kept = sorted({*points.tolist(), *([] if best is None else [best])})

    def values(column: np.ndarray) -> tuple[float, ...]:
        return tuple(np.round(column[kept], 6).tolist())

    return CurveRows(
        scores=values(curve.scores),
        precision=values(curve.precision),
        recall=values(curve.recall),
        F1=values(curve.f1),
        false_positives_per_image=values(curve.false_positives_per_image),
        best=None if best is None else kept.index(best),
    )


def _calibration(table: DetectionTable, classified: ClassifiedDetections) -> dict[str, Any]:
    found = calibration(table, classified)

    def numbers(values: np.ndarray) -> list[float | None]:
        return [None if np.isnan(value) else round(float(value), 6) for value in values]

    return {
        "edges": found.edges.tolist(),
        "counts": found.counts.tolist(),
        "scores": numbers(found.scores),
        "precisions": numbers(found.precisions),
        "error": found.error,
    }


def _alarms(ground_truth: GroundTruth, table: DetectionTable) -> dict[str, Any]:
    found = alarms(ground_truth, table)
    levels = np.linspace(0, 1, 101)
    rates = [found.rate(level) for level in levels.tolist()]
    return {"images": found.images, "scores": levels.round(2).tolist(), "rates": rates}
