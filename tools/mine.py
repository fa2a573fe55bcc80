"""Mine hard negatives: pictures of background that a detector takes for objects, to train against."""

import argparse
import sys
from pathlib import Path

from detkit.build import build_evaluation_transform, held_out_images, load_detector, mining_source
from detkit.console import print_table, run_tool, say, warn
from detkit.mining.export import write_coco_negatives
from detkit.mining.held_out import refuse_held_out
from detkit.mining.manifest import summary_tables
from detkit.mining.pool import coco_pool, image_files
from detkit.mining.round import begin, mine, open_round
from detkit.mining.settings import MiningSettings
from detkit.mining.source import MiningSource, named_file, results_source

EXAMPLES = """examples:
  python tools/mine.py runs/demo/best.pt --images photos --state verified-empty --output negatives
  python tools/mine.py runs/demo/best.pt --annotations train.json --images images/train --output negatives
  python tools/mine.py --detections results.json --annotations train.json --images images --output negatives \\
      --score p50 --held-out val.json=images
  python tools/mine.py runs/demo/best.pt --images web --state unverified --part 2/4 --round 2 --output negatives

The third needs no model: it takes any program's COCO results on the images of train.json, from the median score of the
detections that find an object (p50) on. --state says what is known of the images: annotated, every object has a
box (the default with --annotations); verified-empty, somebody looked and there is none; unverified, nobody looked:
then what scores --quarantine or more goes to DIR/quarantine.json for a person to look at, and is never a negative.

DIR/negatives.json (COCO, images without boxes) and its pictures in DIR/crops add to any detector's training data.
DIR/round_001 says what became of every false positive, and holds the set for detkit. Train against the negatives,
then mine with --round 2 and the new checkpoint: what is known is not taken twice.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, usual = parser.add_argument, MiningSettings()
    add("checkpoint", nargs="?", type=Path, help="best.pt or last.pt of a run")
    add("--detections", type=Path, metavar="DT.json", help="COCO results of boxes, in place of a checkpoint")
    add("--annotations", type=Path, metavar="GT.json", help="COCO file of the images to mine")
    add("--images", required=True, type=Path, metavar="DIR", help="the images to mine, or those of GT.json")
    add("--state", choices=("annotated", "verified-empty", "unverified"), help="what is known of the images")
    add("--output", required=True, type=Path, metavar="DIR", help="folder of the negatives, of all rounds")
    add("--round", type=int, default=1, metavar="N", help="adds to the negatives of round N - 1 (1)")
    add("--part", type=_part, default=(0, 1), metavar="I/N", help="go over the I-th of N parts of the images")
    add("--score", default=usual.threshold, type=_threshold, help=f"least score, or pN ({usual.threshold})")
    add("--per-image", type=int, default=usual.per_image, help=f"crops of an image ({usual.per_image})")
    add("--limit", type=int, default=usual.per_round, help=f"crops of the round ({usual.per_round})")
    add("--capacity", type=int, metavar="N", help="crops of all rounds: the easiest make room (no end)")
    add("--context", type=float, default=usual.context, help=f"crop, in sides of the box ({usual.context})")
    add("--largest", type=int, metavar="PX", help="longest side of a crop (the detector's image, or 512)")
    add("--quarantine", type=float, default=usual.quarantine_score, help=f"score ({usual.quarantine_score})")
    add("--held-out", nargs="*", metavar="PATH", help="images never to mine: folders, or COCO files as "
        "GT.json=DIR (those of the checkpoint's val and test); no PATH checks nothing")  # fmt: skip
    add("--classes", type=_names, metavar="A,B", help="with --detections: these classes of GT.json alone")
    add(
        "--resize",
        nargs=2,
        type=int,
        metavar=("SHORTER", "LONGEST"),
        help="with --detections: before cutting",
    )
    add("--data-root", metavar="DIR", help="folder that the checkpoint's data paths start from")
    add("--device", choices=("auto", "cpu", "cuda"), help="as in training")
    add("--workers", type=int, help="processes that read images (as in training)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted round")
    again.add_argument("--overwrite", action="store_true", help="do the round anew")
    arguments = parser.parse_args()
    if (arguments.checkpoint is None) == (arguments.detections is None):
        parser.error("give a checkpoint, or --detections")
    if arguments.detections and not arguments.annotations:
        parser.error("--detections needs --annotations: they say which image has which id")
    if not (arguments.state or arguments.annotations):
        parser.error("say what is known of the images: --state verified-empty or unverified")
    return arguments


def source(arguments: argparse.Namespace) -> tuple[MiningSource, list[str] | None, int]:
    """What is mined, the images that must not be, and the longest side of a crop."""
    state = arguments.state or "annotated"
    held_out = arguments.held_out
    if held_out:
        held_out = [file for name in held_out for file in _images_of(name, arguments.images)]
    if arguments.detections:
        pool = coco_pool(arguments.annotations, arguments.images, state=state, classes=arguments.classes)
        return results_source(arguments.detections, pool, resize=arguments.resize), held_out, 512
    detector = load_detector(arguments.checkpoint, device=arguments.device, data_root=arguments.data_root)
    if arguments.held_out is None:
        held_out = held_out_images(detector.config)
    found = mining_source(
        detector,
        arguments.images,
        arguments.annotations,
        state=state,
        name=named_file(arguments.checkpoint),
        workers=arguments.workers,
    )
    return found, held_out, build_evaluation_transform(detector.config).shorter


def main() -> None:
    arguments = parse_arguments()
    mined, held_out, side = source(arguments)
    side = arguments.largest or side
    settings = MiningSettings(
        threshold=arguments.score,
        per_image=arguments.per_image,
        per_round=arguments.limit,
        context=arguments.context,
        largest=(side, side),
        quarantine_score=arguments.quarantine,
    )
    told = open_round(
        arguments.output,
        arguments.round,
        mined,
        settings,
        capacity=arguments.capacity,
        part=arguments.part,
        file_format="jpg",
    )
    begin(told, resume=arguments.resume, overwrite=arguments.overwrite)
    if held_out is None:
        warn("no image was compared with those of validation and test; name them with --held-out")
    else:
        files = [str(mined.pool.files[image]) for image in mined.pool.part(*told.part)]
        refuse_held_out(files, held_out, near_duplicates=mined.pool.state != "annotated")
    result = mine(told)
    truth = mined.pool.ground_truth
    path = arguments.output / "negatives.json"
    write_coco_negatives(path, result.negatives.crops, truth.class_names, truth.category_ids)
    for table in summary_tables(result.summary):
        print_table(*table)
    say(f"{len(result.negatives.crops)} negatives: {path}")


def _images_of(text: str, folder: Path) -> list[str]:
    path, _, own = text.partition("=")
    return image_files(path, own or folder)


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text}: write 2/4 for the second of four parts")
    return int(index) - 1, int(count)


def _threshold(text: str) -> float | str:
    return text if text.startswith("p") else float(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(run_tool(main))
