"""A quality gate: what the configuration asks for, measured and judged."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detkit.comparison.draws import draw
from detkit.comparison.intervals import interval
from detkit.config import Gate, load_gate
from detkit.config.gate import Baseline, Least
from detkit.console import say, warn
from detkit.errors import ConfigError
from detkit.evaluation import DetectionTable, GroundTruth, measure, read_results, restrict
from detkit.evaluation.alarms import alarms
from detkit.evaluation.detection_curve import detection_curve
from detkit.evaluation.resampling import match_once
from detkit.files import write_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class GateCheck:
    """One thing that was asked for."""

    what: str
    found: float | None
    """None where there is nothing to measure, which does not pass."""
    limit: float
    least: bool
    """The limit is the least that passes; else the most."""

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        if self.found is None:
            return False
        return self.found >= self.limit if self.least else self.found <= self.limit

    @property
    def sentence(self) -> str:
        """What was found, and what was asked for."""
        found = "cannot be measured" if self.found is None else f"is {self.found:.4f}"
        return f"{self.what} {found}; {'at least' if self.least else 'at most'} {self.limit:g} is asked for"


def passes_gate(path: Path, ground_truth: GroundTruth, table: DetectionTable, output: Path) -> bool:
    """Check what a gate's file asks for, say what does not hold, and write gate.json to a folder.

    The file, format version 1, holds ``format_version``, ``passed``, and ``checks``, a list of ``what``, ``found``
    (null where there is nothing to measure), ``limit``, ``least`` (the limit is the least that passes, else the most)
    and ``passed``.

    Raises:
        ConfigError, DataError: as of ``check_gate``; the file cannot be read, or asks for what there is not.
    """
    checks = check_gate(load_gate(path), ground_truth, table, path.parent)
    failed = [check for check in checks if not check.passed]
    rows = [{**asdict(check), "passed": check.passed} for check in checks]
    record = {"format_version": FORMAT_VERSION, "passed": not failed, "checks": rows}
    write_json(output / "gate.json", record)
    for check in failed:
        warn(f"{path}: {check.sentence}")
    say(f"{path}: {len(checks) - len(failed)} of {len(checks)} checks passed")
    return not failed


def check_gate(gate: Gate, ground_truth: GroundTruth, table: DetectionTable, folder: Path) -> list[GateCheck]:
    """Measure everything that a gate asks for.

    Args:
        gate: what is asked for.
        ground_truth: the objects.
        table: the detections.
        folder: of the gate's file, which the path of its baseline starts from.

    Raises:
        ConfigError: the gate names a class that is not there.
        DataError: the detections, or those of the baseline, are of other images.
    """
    table = restrict(table, ground_truth)
    unknown = [name for name in gate.classes if name not in ground_truth.class_names]
    if unknown:
        known = ", ".join(ground_truth.class_names)
        raise ConfigError(f"classes.{unknown[0]}: there is no such class; the classes are {known}")
    metrics = measure(ground_truth, table, score=gate.score)
    checks: list[GateCheck] = []
    if gate.overall is not None:
        values = {**metrics, **metrics["operating_point"]}
        checks += _least(gate.overall, "all classes", values, ground_truth, table)
    for row in metrics["per_class"]:
        if row["name"] in gate.classes:
            truth = ground_truth.of_classes([row["category_id"]])
            mine = table.select(table.category_ids == row["category_id"])
            checks += _least(gate.classes[row["name"]], row["name"], row, truth, mine)
    if gate.alarms is not None:
        rate = alarms(ground_truth, table).rate(gate.alarms.score)
        what = f"share of images without objects with a detection of score {gate.alarms.score:g} or more"
        checks.append(GateCheck(what, rate, gate.alarms.rate, least=False))
    if gate.baseline is not None:
        checks.append(_not_worse(gate.baseline, ground_truth, table, folder))
    return checks


def _least(
    least: Least, name: str, values: dict[str, Any], ground_truth: GroundTruth, table: DetectionTable
) -> Iterator[GateCheck]:
    for metric, limit in least.metrics.items():
        if metric not in values:
            raise ConfigError(f"classes.{name}.metrics.{metric}: is measured over all classes alone")
        yield GateCheck(f"{metric} of {name}", values[metric], limit, least=True)
    curve = detection_curve(ground_truth, table) if least.recall_at else None
    for point in least.recall_at:
        what = f"recall of {name} at {point.false_positives:g} false positives per image"
        found = curve.recall_at(point.false_positives) if curve else None
        yield GateCheck(what, found, point.recall, least=True)


def _not_worse(
    baseline: Baseline, ground_truth: GroundTruth, table: DetectionTable, folder: Path
) -> GateCheck:
    """The upper end of the difference's interval must not lie below 0."""
    path = folder / baseline.detections
    other = restrict(read_results(path, ground_truth), ground_truth)
    images = draw(len(ground_truth.image_ids), resamples=baseline.resamples, seed=0).images
    ours, theirs = (
        match_once(ground_truth, one).precision_and_recall(images)[baseline.metric] for one in (table, other)
    )
    difference = (ours - theirs)[1:]
    most = interval(difference[np.isfinite(difference)])[1] if np.isfinite(difference).any() else None
    what = f"{baseline.metric} less that of {baseline.detections}, the upper end of its 95 % interval,"
    return GateCheck(what, most, 0.0, least=True)
