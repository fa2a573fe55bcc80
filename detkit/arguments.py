"""What the command lines of the scripts in tools share."""

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def script_parser(
    description: str | None, examples: str, usage: str | None = None
) -> argparse.ArgumentParser:
    """A parser whose ``--help`` ends with examples, as they are written."""
    return argparse.ArgumentParser(
        usage=usage,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Where and how exactly a trained detector computes."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="(as in training)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="(as in training)")


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Where a trained detector finds its data, and how it computes."""
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder that the checkpoint's data paths start from"
    )
    add_placement(parser)


def detector_of(told: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``add_detector``, by the names that ``builders.load_detector`` has for them."""
    return {"data_root": told.data_root, "device": told.device, "precision": told.precision}


def add_measured(parser: argparse.ArgumentParser) -> None:
    """What is measured: a checkpoint on a split of its data or on a COCO file, or any program's detections."""
    add = parser.add_argument
    add("--split", choices=("train", "val", "test"), help="of the checkpoint's data (val)")
    add_detector(parser)
    add("--annotations", type=Path, metavar="GT.json", help="COCO annotations, in place of a split")
    add("--images", type=Path, metavar="DIR", help="the images of GT.json")
    add(
        "--classes", type=names, metavar="A,B", help="with --detections: these classes of GT.json alone (all)"
    )


def refuse_measured(parser: argparse.ArgumentParser, told: argparse.Namespace, checkpoint: object) -> None:
    """End with what is wrong with the arguments of ``add_measured``, ``detections`` and the checkpoint."""
    half = bool(told.annotations) != bool(told.images)
    of_checkpoint = told.split or any(detector_of(told).values())
    refuse(parser, {
        "--detections and --classes go without a trained detector, which has both":
            checkpoint and (told.detections or told.classes),
        "a trained detector needs both --annotations and --images, or neither": checkpoint and half,
        "give a trained detector, or both --annotations and --detections":
            not checkpoint and not (told.annotations and told.detections),
        "--split, --data-root, --device and --precision go with a trained detector": not checkpoint and of_checkpoint,
    })  # fmt: skip


def names(text: str) -> list[str]:
    """An argument such as ``cat,dog``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(text: str) -> list[int]:
    """An argument such as ``0,1,2``."""
    return [whole_number(0)(one) for one in text.split(",")]


def whole_number(least: int) -> Callable[[str], int]:
    """An argument that is a whole number from ``least`` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: write a whole number from {least} on")
        return int(text)

    return parse


def numbers(least: float) -> Callable[[str], list[float]]:
    """An argument such as ``0,0.5,2``, of finite numbers from ``least`` on."""

    def parse(text: str) -> list[float]:
        try:
            values = [float(one) for one in text.split(",")]
        except ValueError:
            values = []
        if not values or not all(least <= value < math.inf for value in values):
            raise argparse.ArgumentTypeError(f"{text}: write numbers from {least:g} on, such as 0.5,1,2")
        return values

    return parse


def share(text: str) -> float:
    """An argument between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: write a number between 0 and 1")
    return value


def score_or_percentile(text: str) -> float | str:
    """An argument such as ``0.1``, or ``p50`` for a percentile."""
    try:
        return text if text.startswith("p") else float(text)
    except ValueError:
        message = f"{text}: write a score such as 0.1, or a percentile such as p50"
        raise argparse.ArgumentTypeError(message) from None


def part(text: str) -> tuple[int, int]:
    """An argument such as ``2/4``, the second of four parts: its place, counted from 0, and how many there are."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text}: write 2/4 for the second of four parts")
    return int(index) - 1, int(count)


def refuse(parser: argparse.ArgumentParser, mistakes: Mapping[str, object]) -> None:
    """End with the first message whose mistake was made."""
    for message, made in mistakes.items():
        if made:
            parser.error(message)
