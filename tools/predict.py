"""Detect objects in images with a trained detector, and draw what it finds."""

import argparse
import sys
from pathlib import Path

import cv2

from detkit.builders import Detector, detect_images, load_detector
from detkit.console import progress, run_tool, say
from detkit.data.images import find_images, read_image
from detkit.evaluation import DetectionTable, write_results
from detkit.files import write_json
from detkit.report.pictures import contact_sheet, draw_detections

SHEET_IMAGES = 24

EXAMPLES = """examples:
  python tools/predict.py runs/demo/best.pt photo.jpg --output predictions
  python tools/predict.py runs/demo/best.pt data/demo/images/val --output predictions --score 0.3 --limit 24

The output folder receives detections.json (COCO results), images.json (COCO images: which image_id is which file),
a picture per image with its boxes, and contact_sheet.png with the first of them.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="best.pt or last.pt of a run")
    parser.add_argument("images", nargs="+", type=Path, help="image files or folders")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--score", type=_share, default=0.5, help="draw detections from this score on (0.5)")
    parser.add_argument("--limit", type=_count, metavar="N", help="take the first N images alone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="as in training")
    parser.add_argument("--workers", type=_count, default=2, help="processes that read images (2)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    detector = load_detector(arguments.checkpoint, device=arguments.device)
    paths = find_images(arguments.images)[: arguments.limit]
    table = detect_images(detector, paths, workers=arguments.workers)
    write_results(arguments.output / "detections.json", table)
    write_json(arguments.output / "images.json", _coco_images(paths, detector))
    _draw(paths, table, detector, arguments)
    drawn = int((table.scores >= arguments.score).sum())
    say(
        f"{len(paths)} images, {drawn} detections with a score of {arguments.score:g} or more: {arguments.output}"
    )
    return 0


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _coco_images(paths: list[Path], detector: Detector) -> dict:
    names = zip(detector.category_ids, detector.model.class_names, strict=True)
    return {
        "images": [{"id": image_id, "file_name": str(path)} for image_id, path in enumerate(paths)],
        "annotations": [],
        "categories": [{"id": category_id, "name": name} for category_id, name in names],
    }


def _draw(
    paths: list[Path], table: DetectionTable, detector: Detector, arguments: argparse.Namespace
) -> None:
    """A picture per image, and one sheet of the first of them."""
    label_of = {category_id: label for label, category_id in enumerate(detector.category_ids)}
    sheet = []
    for image_id, path in enumerate(progress(paths, len(paths), "drawing")):
        mine = table.select((table.image_ids == image_id) & (table.scores >= arguments.score))
        labels = [label_of[category_id] for category_id in mine.category_ids.tolist()]
        picture = draw_detections(
            read_image(path), mine.boxes, labels, mine.scores, class_names=detector.model.class_names
        )
        cv2.imwrite(str(arguments.output / f"{image_id:05}_{path.stem}.png"), picture[..., ::-1])
        sheet += [picture] if image_id < SHEET_IMAGES else []
    cv2.imwrite(str(arguments.output / "contact_sheet.png"), contact_sheet(sheet, columns=4)[..., ::-1])


if __name__ == "__main__":
    sys.exit(run_tool(main))
