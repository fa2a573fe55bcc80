"""Mine hard negatives: pictures of background that a detector takes for objects, to train against.

Longer than the other scripts, for it has what there is to choose of a round, and takes any program's detections too.
"""

import argparse
import sys
from pathlib import Path

from detkit.arguments import (
    add_detector,
    detector_of,
    names,
    part,
    refuse,
    score_or_percentile,
    script_parser,
    whole_number,
)
from detkit.builders import build_evaluation_transform, load_detector, mining_source
from detkit.builders.mining import images_not_to_mine, marks_in_pool, named_images
from detkit.console import run_tool, warn
from detkit.mining.held_out import refuse_held_out
from detkit.mining.pool import coco_pool
from detkit.mining.round import MiningRound, mine, negatives_before, refuse_begun, remove_round
from detkit.mining.round_shown import show_round
from detkit.mining.settings import MiningSettings
from detkit.mining.source import MiningSource, named_file, results_source

USAGE = "%(prog)s (CHECKPOINT | --detections DT.json) --images DIR --output DIR [option ...]"
EXAMPLES = """examples:
  python tools/mine.py runs/demo/best.pt --images photos --state verified-empty --output negatives
  python tools/mine.py runs/demo/best.pt --annotations train.json --images images/train --output negatives
  python tools/mine.py --detections results.json --annotations train.json --images images --output negatives \\
      --threshold p50 --held-out val.json=images
  python tools/mine.py runs/demo/best.pt --images web --state unverified --part 2/4 --round 2 --output negatives

The third needs no model: it takes any program's COCO results on the images of train.json, from the median score of the
detections that find an object (p50) on. --state says what is known of the images: annotated, every object has a
box (the default with --annotations); verified-empty, somebody looked and there is none; unverified, nobody looked:
then what scores --quarantine-score goes to DIR/quarantine.json for a person to look at, and is no negative until
--marks accepts it.

DIR/negatives.json (COCO, images without boxes) and its pictures in DIR/crops (JPEG, quality 97) add to any detector's
training data.
DIR/round_001 says what became of every false positive, and holds the set for detkit. Train against the negatives,
then mine with --round 2 and the new checkpoint: what is known is not taken twice. A run that was interrupted goes on
with --resume and the same arguments, and ends as if it had not been.
"""
SETTINGS = {
    "threshold": "least score, or a percentile of the true positives' scores",
    "per_image": "crops of an image, the hardest",
    "per_round": "crops of the round, the hardest",
    "context": "sides of a crop, in those of the false positive",
    "least_side": "pixels; smaller crops are dropped",
    "overlap_iou": "of false positives that overlap more, the hardest stays",
    "alike_bits": "of those that look alike (differ in so few of 64 bits), the hardest stays",
    "quarantine_score": "with --state unverified: from here on for a person to look at",
}


def make_parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__.partition("\n")[0], EXAMPLES, usage=USAGE)
    add, usual, count = parser.add_argument, MiningSettings(), whole_number(1)
    add("checkpoint", nargs="?", type=Path, help="best.pt or last.pt of a run")
    add("--detections", type=Path, metavar="DT.json", help="COCO results of boxes, in place of a checkpoint")
    add("--annotations", type=Path, metavar="GT.json", help="COCO file of the images to mine")
    add("--images", required=True, type=Path, metavar="DIR", help="the images to mine, or those of GT.json")
    add("--state", choices=("annotated", "verified-empty", "unverified"), help="what is known of the images")
    add("--output", required=True, type=Path, metavar="DIR", help="folder of the negatives, of all rounds")
    add("--round", type=int, default=1, metavar="N", help="adds to the negatives of round N - 1 (1)")
    add("--part", type=part, default=(0, 1), metavar="I/N", help="go over the I-th of N parts of the images")
    add("--capacity", type=count, metavar="N", help="crops of all rounds: the easiest make room (no end)")
    for name, text in SETTINGS.items():
        value = getattr(usual, name)
        kind = score_or_percentile if name == "threshold" else type(value)
        add(f"--{name.replace('_', '-')}", type=kind, default=value, metavar="X", help=f"{text} ({value})")
    add("--marks", type=Path, metavar="MARKS.json", help="what a person said of places (tools/diagnose.py): "
        "what is an object to them is never a negative, their background is one however high it scores")  # fmt: skip
    add("--held-out", nargs="*", metavar="PATH", help="images never to mine: folders, or COCO files as "
        "GT.json=DIR (those of the checkpoint's val and test); no PATH checks nothing")  # fmt: skip
    add("--classes", type=names, metavar="A,B", help="with --detections: these classes of GT.json alone")
    add("--resize", nargs=2, type=count, metavar=("S", "L"), help="with --detections: limits of the "
        "shorter and the longer side, as the detector had them, before crops are cut")  # fmt: skip
    add_detector(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted round")
    again.add_argument("--overwrite", action="store_true", help="do the round anew")
    return parser


def parse_arguments() -> argparse.Namespace:
    parser = make_parser()
    told = parser.parse_args()
    told.state = told.state or ("annotated" if told.annotations else None)
    images, output, known = told.images.resolve(), told.output.resolve(), bool(told.annotations)
    of_detector = any(detector_of(told).values())
    refuse(parser, {
        "give a checkpoint, or --detections": (told.checkpoint is None) == (told.detections is None),
        "--detections needs --annotations: they say which image has which id": told.detections and not known,
        "a folder without --annotations needs --state verified-empty or unverified":
            not known and told.state in (None, "annotated"),
        f"--threshold {told.threshold}: needs --annotations: it is a percentile of what finds their objects":
            not known and isinstance(told.threshold, str),
        "--classes and --resize go with --detections": told.checkpoint and (told.classes or told.resize),
        "--data-root, --device and --precision go with a checkpoint": told.detections and of_detector,
        f"--resize {told.resize}: the limit of the shorter side comes first":
            told.resize and told.resize[0] > told.resize[1],
        f"--output {told.output}: is a file; name a folder": told.output.exists() and not told.output.is_dir(),
        f"--output {told.output}: lies in the folder that is mined, so that crops would be; name another":
            not known and output.is_relative_to(images),
    })  # fmt: skip
    return told


def source(told: argparse.Namespace) -> tuple[MiningSource, list[str] | None, int]:
    """What is mined, the images that must not be (None: not known), and the longest side of a crop."""
    held_out = told.held_out and named_images(told.held_out, told.images)
    if told.detections:
        pool = coco_pool(told.annotations, told.images, state=told.state, classes=told.classes)
        return results_source(told.detections, pool, resize=told.resize), held_out, 512
    detector = load_detector(told.checkpoint, **detector_of(told))
    least = detector.config.postprocess.score_threshold
    if not isinstance(told.threshold, str) and told.threshold < least:
        warn(
            f"--threshold {told.threshold:g}: the checkpoint gives no scores under {least:g} "
            "(postprocess.score_threshold)"
        )
    name = named_file(told.checkpoint)
    mined = mining_source(detector, told.images, told.annotations, state=told.state, name=name)
    if told.held_out is None:
        held_out = images_not_to_mine(detector)
    return mined, held_out, build_evaluation_transform(detector.config).shorter


def main() -> None:
    arguments = parse_arguments()
    mined, held_out, side = source(arguments)
    given = {name: getattr(arguments, name) for name in SETTINGS}
    told = MiningRound(
        number=arguments.round,
        root=arguments.output,
        source=mined,
        settings=MiningSettings(**given, largest=(side, side)),
        negatives=negatives_before(arguments.output, arguments.round, capacity=arguments.capacity),
        part=arguments.part,
        file_format="jpg",  # as the images of most data sets are, which its traces are not to tell them from
        marks=marks_in_pool(arguments.marks, mined.pool),
    )
    refuse_begun(told, resume=arguments.resume, overwrite=arguments.overwrite)
    if held_out is None:
        warn("no image was compared with those of validation and test; name them with --held-out")
    else:
        files = mined.pool.files[list(told.images)].tolist()
        refuse_held_out(files, held_out, near_duplicates=mined.pool.state != "annotated")
    if arguments.overwrite:
        remove_round(told)
    try:
        show_round(told, mine(told))
    except KeyboardInterrupt:
        warn(f"{told.folder}: is not complete; go on with the same arguments and --resume")
        raise


if __name__ == "__main__":
    sys.exit(run_tool(main))
