"""Measure a detector, or any program's detections, against COCO annotations."""

import argparse
import sys
from pathlib import Path

from detkit.arguments import add_measured, detector_of, refuse_measured, script_parser, share
from detkit.builders import detect_coco, files_of, load_detector
from detkit.builders.gate import passes_gate
from detkit.config import Evaluation
from detkit.console import print_table, run_tool, say
from detkit.evaluation import (
    DetectionTable,
    GroundTruth,
    measure,
    metrics_tables,
    read_ground_truth,
    read_results,
    write_results,
)
from detkit.files import write_json

EXAMPLES = """examples:
  python tools/evaluate.py runs/demo/best.pt --output runs/demo
  python tools/evaluate.py runs/drone/best.pt --split test --data-root ~/data --output runs/drone/test
  python tools/evaluate.py runs/drone/best.pt --annotations other.json --images photos --output runs/drone/other
  python tools/evaluate.py --annotations val.json --detections detections.json --output runs/eval \\
      --classes person,car --backend fast
  python tools/evaluate.py runs/demo/best.pt --output runs/demo --gate configs/gates/demo.yaml

The fourth needs no model and scores any program's COCO results; classes that are not named become background. The
last one is for before a detector goes out: it ends with status 1 where it is not good enough, and says why.
DIR/metrics.json holds COCO's twelve numbers, and per class AP, precision, recall and F1, as fractions; null means
that there is nothing to measure. A checkpoint's detections are written beside it as detections.json.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("checkpoint", nargs="?", type=Path, help="best.pt or last.pt of a run")
    add_measured(parser)
    add("--detections", type=Path, metavar="DT.json", help="COCO results of boxes")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for metrics.json")
    own = "default: the checkpoint's own, without a checkpoint"
    add("--backend", choices=("pycocotools", "fast"), help=f"fast is the extra fast-eval ({own} pycocotools)")
    add("--score", type=share, metavar="X", help=f"least score for precision, recall and F1 ({own} 0.5)")
    add("--gate", type=Path, metavar="GATE.yaml", help="end with status 1 unless all it asks for holds")
    told = parser.parse_args()
    refuse_measured(parser, told, told.checkpoint)
    return told


def detect(told: argparse.Namespace) -> tuple[GroundTruth, DetectionTable, Evaluation]:
    """Run the checkpoint's model, and keep what it finds."""
    detector = load_detector(told.checkpoint, **detector_of(told))
    found = detect_coco(detector, *files_of(detector, told.split or "val", told.annotations, told.images))
    write_results(told.output / "detections.json", found[1])
    return *found, detector.config.evaluation


def main() -> int:
    told = parse_arguments()
    if told.checkpoint:
        ground_truth, table, defaults = detect(told)
    else:
        ground_truth, defaults = read_ground_truth(told.annotations, told.classes), Evaluation()
        table = read_results(told.detections, ground_truth)
    score = defaults.score if told.score is None else told.score
    metrics = measure(ground_truth, table, backend=told.backend or defaults.backend, score=score)
    for title, columns, rows in metrics_tables(metrics):
        print_table(title, columns, rows)
    write_json(told.output / "metrics.json", metrics)
    say(f"metrics: {told.output / 'metrics.json'}")
    return 0 if told.gate is None or passes_gate(told.gate, ground_truth, table, told.output) else 1


if __name__ == "__main__":
    sys.exit(run_tool(main))
