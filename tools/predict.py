"""Detect objects in images with a trained detector, and draw what it finds."""

import argparse
import sys
from pathlib import Path

from detkit.arguments import add_placement, script_parser, share, whole_number
from detkit.builders import Detector, detect_images, load_detector
from detkit.console import progress, run_tool, say
from detkit.data.images import find_images, read_image
from detkit.evaluation import write_results
from detkit.evaluation.ground_truth import coco_categories
from detkit.files import write_json
from detkit.report.pictures import write_drawn

EXAMPLES = """examples:
  python tools/predict.py runs/demo/best.pt photo.jpg --output predictions
  python tools/predict.py runs/demo/best.pt data/demo/images/val --output predictions --score 0.3 --limit 24

The output folder receives detections.json (COCO results), images.json (COCO images: which image_id is which file),
a picture per image with its boxes, and contact_sheet.png with the first of them.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    parser.add_argument("checkpoint", type=Path, help="best.pt or last.pt of a run")
    parser.add_argument("images", nargs="+", type=Path, help="image files or folders")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--score", type=share, default=0.5, help="draw detections from this score on (0.5)")
    parser.add_argument("--limit", type=whole_number(1), metavar="N", help="take the first N images alone")
    parser.add_argument("--workers", type=whole_number(0), default=2, help="processes that read images (2)")
    add_placement(parser)
    return parser.parse_args()


def main() -> None:
    told = parse_arguments()
    detector = load_detector(told.checkpoint, device=told.device, precision=told.precision)
    paths = find_images(told.images)[: told.limit]
    table = detect_images(detector, paths, workers=told.workers)
    write_results(told.output / "detections.json", table)
    write_json(told.output / "images.json", coco_images(paths, detector))
    drawn = table.select(table.scores >= told.score)
    images = (read_image(path) for path in progress(paths, len(paths), "drawing"))
    write_drawn(told.output, [path.stem for path in paths], images, drawn, categories=detector.names)
    say(f"{len(paths)} images, {len(drawn)} detections with a score of {told.score:g} or more: {told.output}")


def coco_images(paths: list[Path], detector: Detector) -> dict:
    """Which image_id of detections.json is which file."""
    return {
        "images": [{"id": image_id, "file_name": str(path)} for image_id, path in enumerate(paths)],
        "annotations": [],
        "categories": coco_categories(detector.names),
    }


if __name__ == "__main__":
    sys.exit(run_tool(main))
