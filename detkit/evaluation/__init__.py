"""Measuring detections against ground truth; knows no models, and scores any program's results file."""

from detkit.evaluation.coco_metrics import METRIC_NAMES, Backend, ClassMetrics, CocoMetrics, evaluate_boxes
from detkit.evaluation.ground_truth import GroundTruth, read_ground_truth
from detkit.evaluation.matching import Matches, match_detections
from detkit.evaluation.metrics import MetricsTable, measure, metrics_tables
from detkit.evaluation.operating_point import Counts, OperatingPoint, operating_point
from detkit.evaluation.results import DetectionTable, read_results, restrict, write_results

__all__ = [
    "METRIC_NAMES",
    "Backend",
    "ClassMetrics",
    "CocoMetrics",
    "Counts",
    "DetectionTable",
    "GroundTruth",
    "Matches",
    "MetricsTable",
    "OperatingPoint",
    "evaluate_boxes",
    "match_detections",
    "measure",
    "metrics_tables",
    "operating_point",
    "read_ground_truth",
    "read_results",
    "restrict",
    "write_results",
]
