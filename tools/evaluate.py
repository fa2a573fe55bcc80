"""Measure a detector, or any program's detections, against COCO annotations."""

import argparse
import sys
from pathlib import Path

from detkit.builders import detect_coco, load_detector, split_paths
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
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", nargs="?", type=Path, help="best.pt or last.pt of a run")
    add("--split", choices=("train", "val", "test"), help="of the checkpoint's data (val)")
    add("--data-root", metavar="DIR", help="folder that the checkpoint's data paths start from")
    add("--device", choices=("auto", "cpu", "cuda"), help="as in training")
    add("--precision", choices=("auto", "fp32", "bf16"), help="as in training")
    add("--annotations", type=Path, metavar="GT.json", help="COCO annotations, in place of a split")
    add("--images", type=Path, metavar="DIR", help="the images of GT.json, for a checkpoint")
    add("--detections", type=Path, metavar="DT.json", help="COCO results of boxes")
    add("--classes", type=_names, metavar="A,B", help="measure these classes of GT.json alone (every class)")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for metrics.json")
    add("--backend", choices=("pycocotools", "fast"), help="fast: the extra fast-eval (pycocotools)")
    add("--score", type=float, help="least score for precision, recall and F1 (0.5)")
    add("--gate", type=Path, metavar="GATE.yaml", help="end with status 1 unless all it asks for holds")
    arguments = parser.parse_args()
    if arguments.checkpoint:
        if arguments.detections or arguments.classes:
            parser.error("--detections and --classes go without a checkpoint, which has both")
        if (arguments.annotations is None) != (arguments.images is None):
            parser.error("a checkpoint needs both --annotations and --images, or neither")
    elif not (arguments.annotations and arguments.detections):
        parser.error("give a checkpoint, or both --annotations and --detections")
    return arguments


def detect(arguments: argparse.Namespace) -> tuple[GroundTruth, DetectionTable, Evaluation]:
    """Run the checkpoint's model, and keep what it finds."""
    detector = load_detector(
        arguments.checkpoint,
        device=arguments.device,
        precision=arguments.precision,
        data_root=arguments.data_root,
    )
    paths = arguments.annotations, arguments.images
    if arguments.annotations is None:
        paths = split_paths(detector.config, getattr(detector.config.data, arguments.split or "val"))
    ground_truth, table = detect_coco(detector, *paths)
    write_results(arguments.output / "detections.json", table)
    return ground_truth, table, detector.config.evaluation


def main() -> int:
    arguments = parse_arguments()
    if arguments.checkpoint:
        ground_truth, table, defaults = detect(arguments)
    else:
        ground_truth, defaults = read_ground_truth(arguments.annotations, arguments.classes), Evaluation()
        table = read_results(arguments.detections, ground_truth)
    score = defaults.score if arguments.score is None else arguments.score
    metrics = measure(ground_truth, table, backend=arguments.backend or defaults.backend, score=score)
    for title, columns, rows in metrics_tables(metrics):
        print_table(title, columns, rows)
    write_json(arguments.output / "metrics.json", metrics)
    say(f"metrics: {arguments.output / 'metrics.json'}")
    if arguments.gate and not passes_gate(arguments.gate, ground_truth, table, arguments.output):
        return 1
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(run_tool(main))
