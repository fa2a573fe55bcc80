"""Mine hard negatives: pictures of background that a detector takes for objects, to train against."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from detkit.builders import build_evaluation_transform, held_out_images, load_detector, mining_source
from detkit.console import print_table, run_tool, say, warn
from detkit.errors import ConfigError
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks, read_review_marks
from detkit.mining.held_out import refuse_held_out
from detkit.mining.manifest import summary_tables
from detkit.mining.pool import Pool, coco_pool, image_files
from detkit.mining.round import MinedRound, MiningRound, begin, mine, negatives_before
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
then what scores --quarantine-score goes to DIR/quarantine.json for a person to look at, and is never a negative.

DIR/negatives.json (COCO, images without boxes) and its pictures in DIR/crops add to any detector's training data.
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
    parser = argparse.ArgumentParser(
        usage=USAGE,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    add("--capacity", type=_count, metavar="N", help="crops of all rounds: the easiest make room (no end)")
    for name, text in SETTINGS.items():
        value = getattr(usual, name)
        kind = _threshold if name == "threshold" else type(value)
        add(f"--{name.replace('_', '-')}", type=kind, default=value, metavar="X", help=f"{text} ({value})")
    add("--marks", type=Path, metavar="MARKS.json", help="what a person said of places (tools/diagnose.py): "
        "rejected is never a negative, accepted is one however high it scores")  # fmt: skip
    add("--held-out", nargs="*", metavar="PATH", help="images never to mine: folders, or COCO files as "
        "GT.json=DIR (those of the checkpoint's val and test); no PATH checks nothing")  # fmt: skip
    add("--classes", metavar="A,B", help="with --detections: look for these classes of GT.json alone")
    add("--resize", nargs=2, type=_count, metavar=("S", "L"), help="with --detections: limits of the shorter "
        "and the longer side, as the detector had them, before crops are cut")  # fmt: skip
    add("--data-root", metavar="DIR", help="folder that the checkpoint's data paths start from")
    add("--device", choices=("auto", "cpu", "cuda"), help="as in training")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted round")
    again.add_argument("--overwrite", action="store_true", help="do the round anew")
    return parser


def parse_arguments() -> argparse.Namespace:
    parser = make_parser()
    told = parser.parse_args()
    told.state = told.state or ("annotated" if told.annotations else None)
    wrong = [*mistakes_of_source(told), *mistakes_of_output(told)]
    if wrong:
        parser.error(wrong[0])
    return told


def mistakes_of_source(told: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the arguments that say what is mined."""
    if (told.checkpoint is None) == (told.detections is None):
        yield "give a checkpoint, or --detections"
    if told.detections and not told.annotations:
        yield "--detections needs --annotations: they say which image has which id"
    if not told.annotations and told.state in (None, "annotated"):
        yield "a folder without --annotations needs --state verified-empty or unverified"
    if not told.annotations and isinstance(told.threshold, str):
        yield f"--threshold {told.threshold}: needs --annotations: it is a percentile of what finds their objects"
    for given, flags in (("checkpoint", ("classes", "resize")), ("detections", ("data_root", "device"))):
        for flag in flags:
            if getattr(told, given) and getattr(told, flag):
                yield f"--{flag.replace('_', '-')}: does not go with {given}; leave it out"
    if told.resize and told.resize[0] > told.resize[1]:
        yield f"--resize {told.resize[0]} {told.resize[1]}: the limit of the shorter side comes first"


def mistakes_of_output(told: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the folder of the negatives."""
    if told.output.exists() and not told.output.is_dir():
        yield f"--output {told.output}: is a file; name a folder"
    if not told.annotations and told.output.resolve().is_relative_to(told.images.resolve()):
        yield f"--output {told.output}: lies in the folder that is mined, so that crops would be; name another"
    later = told.output / f"round_{told.round + 1:03}"
    if (told.resume or told.overwrite) and later.exists():
        yield f"{later}: builds on round {told.round}; move it away before you do that round again"


def source(arguments: argparse.Namespace) -> tuple[MiningSource, list[str] | None, int]:
    """What is mined, the images that must not be (None: not known), and the longest side of a crop."""
    named = arguments.held_out and [_image_files(name, arguments.images) for name in arguments.held_out]
    held_out = [file for files in named for file in files] if named else arguments.held_out
    if arguments.detections:
        classes = arguments.classes and [name.strip() for name in arguments.classes.split(",")]
        pool = coco_pool(arguments.annotations, arguments.images, state=arguments.state, classes=classes)
        return results_source(arguments.detections, pool, resize=arguments.resize), held_out, 512
    detector = load_detector(arguments.checkpoint, device=arguments.device, data_root=arguments.data_root)
    least, told = detector.config.postprocess.score_threshold, arguments.threshold
    if not isinstance(told, str) and told < least:
        warn(
            f"--threshold {told:g}: the checkpoint gives no scores under {least:g} (postprocess.score_threshold)"
        )
    name = named_file(arguments.checkpoint)
    found = mining_source(detector, arguments.images, arguments.annotations, state=arguments.state, name=name)
    if held_out is None:
        try:
            held_out = held_out_images(detector.config)
        except ConfigError as error:
            remedy = "the images of validation and test must not be mined: name them with --held-out or --data-root"
            raise ConfigError(f"{error}; {remedy}") from None
    return found, held_out, build_evaluation_transform(detector.config).shorter


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
        file_format="jpg",
        marks=marks_of(arguments.marks, mined.pool),
    )
    # Refuses a round that was begun before the pool is looked through; removes nothing yet.
    begin(told, resume=arguments.resume or arguments.overwrite, overwrite=False)
    if held_out is None:
        warn("no image was compared with those of validation and test; name them with --held-out")
    else:
        files = mined.pool.files[list(told.images)].tolist()
        refuse_held_out(files, held_out, near_duplicates=mined.pool.state != "annotated")
    begin(told, resume=arguments.resume, overwrite=arguments.overwrite)
    try:
        report(mine(told), told)
    except KeyboardInterrupt:
        warn(f"{told.folder}: is not complete; go on with the same arguments and --resume")
        raise


def marks_of(path: Path | None, pool: Pool) -> ReviewMarks:
    if path is None:
        return NO_MARKS
    told = read_review_marks(path)
    marks = told.of_images(pool.folder, pool.names.tolist())
    others = told.without(marks)
    if others:
        warn(
            f"--marks {path}: {len(others)} marks are of images that are not mined here, as {others[0].file_name!r}; "
            "names start from --images, or are as in --annotations"
        )
    return marks


def report(result: MinedRound, told: MiningRound) -> None:
    """Say what became of the false positives, and where the negatives are."""
    summary = result.summary
    for table in summary_tables(summary):
        print_table(*table)
    if told.source.pool.state == "unverified" and summary["decisions"].get("quarantined"):
        say(f"{summary['decisions']['quarantined']} for a person to look at: {told.quarantine}")
    if not summary["candidates"]:
        least = f"{summary['threshold']:.3g} or more in {summary['images']} images"
        warn(f"no new crop: nothing on background scores {least}; lower --threshold, or mine other images")
    elif not summary["kept"]:
        why = max(summary["decisions"], key=summary["decisions"].get)
        warn(
            f"no new crop: the false positives are, most of them: {why} (each in {told.folder}/manifest.jsonl)"
        )
    say(f"{len(result.negatives.crops)} negatives: {told.coco}")


def _image_files(name: str, images: Path) -> list[str]:
    path, _, folder = name.partition("=")
    return image_files(name) if Path(name).is_dir() else image_files(path, folder or images)


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text}: write 2/4 for the second of four parts")
    return int(index) - 1, int(count)


def _threshold(text: str) -> float | str:
    try:
        return text if text.startswith("p") else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text}: write a score such as 0.1, or a percentile such as p50"
        ) from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: write a whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_tool(main))
