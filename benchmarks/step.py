"""Measure training steps and detection of detkit beside torchvision's RetinaNet, by turns in one run.

Both detectors have the same architecture (a backbone, its pyramid P3 to P7, heads of four convolutions, nine anchors a
cell), the same random weights, images, boxes and kind of optimiser (SGD with momentum). Images lie ready on the device
in their final size; normalising them is counted, and resizing is not done. detkit runs as tools/train.py runs it, and
torchvision as its reference training loop does, once as it comes and once in channels_last memory.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from op_report import Goal
from ops import BUSY, machine
from step_cases import (
    CHANNELS_LAST,
    DETECTION,
    DETKIT,
    FORWARD,
    LOSSES,
    MATCHING,
    STEP,
    TORCHVISION,
    Case,
    Inputs,
)
from timing import time_by_turns

from detkit.console import run_tool, say, warn
from detkit.devices import choose_device, choose_precision
from detkit.files import write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GROUPS = ((STEP,), (LOSSES, MATCHING), (DETECTION, FORWARD))
"""What is timed by turns."""
ROUNDS, QUICK_ROUNDS = 7, 3
CPU_GOAL_CASE = Case()
CUDA_GOAL_CASE = Case("resnet50", size=800, batch=16)
EXAMPLES = """examples:
  python benchmarks/step.py --quick
  python benchmarks/step.py --json step.json
  python benchmarks/step.py --device cuda --precision bf16 --json step-cuda.json
  python benchmarks/step.py --arch shufflenet_v2_x1_0 --size 256 --batch 4 --classes 3 --steps 20

What is timed: a training step (forward, losses, backward, optimiser); of it the losses with matching, forward and
backward, on outputs that are there, and the matching alone; detection (forward pass and post-processing at a score
threshold of 0.05, with about 1,000 scores an image above it) and its forward pass alone. A record of FILE has the keys:

  measure         one of these
  implementation  detkit; torchvision; torchvision, channels_last
  device, dtype   cpu or cuda; fp32 or bf16 (autocast)
  case            the backbone, height and width, N images, K classes, G boxes on each image
  median_ms       median time, null where it was skipped
  quartiles_ms    a quarter of the calls took less than the first, and a quarter more than the second
  rounds          how many calls were timed
  images_per_second
  skipped         why it was skipped; no such key otherwise
"""

Record = dict[str, Any]


def measure(inputs: Inputs, precision: str, rounds: int, *, quick: bool) -> list[Record]:
    """Time everything in one precision; ``quick`` leaves out detection and torchvision in channels_last memory."""
    names = (DETKIT, TORCHVISION) if quick else (DETKIT, TORCHVISION, CHANNELS_LAST)
    calls = {name: inputs.calls(name, DTYPES[precision]) for name in names}
    records: list[Record] = []
    for group in GROUPS[:2] if quick else GROUPS:
        by_turns = {(what, name): calls[name][what] for what in group for name in names}
        times = time_by_turns(by_turns, inputs.device, rounds=(rounds, rounds), cold=False)
        records += [record(inputs, precision, name, what, taken) for (what, name), taken in times.items()]
    return records


def record(inputs: Inputs, precision: str, implementation: str, what: str, times: Sequence[float]) -> Record:
    median = statistics.median(times)
    first, _, third = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [median] * 3
    return {
        "measure": what,
        "implementation": implementation,
        "device": inputs.device.type,
        "dtype": precision,
        "case": str(inputs.case),
        "median_ms": median,
        "quartiles_ms": [first, third],
        "rounds": len(times),
        "images_per_second": 1000 * inputs.case.batch / median,
    }


def skipped(case: Case, device: torch.device, precision: str, reason: str) -> Record:
    """The record of a training step that cannot be measured here."""
    return {
        "measure": STEP,
        "implementation": DETKIT,
        "device": device.type,
        "dtype": precision,
        "case": str(case),
        "median_ms": None,
        "quartiles_ms": None,
        "rounds": None,
        "images_per_second": None,
        "skipped": reason,
    }


def why_not(precision: str, device: torch.device) -> str | None:
    """Why a precision is not worth timing on a device; None where it is."""
    if precision == "fp32" or choose_precision("auto", device) == torch.bfloat16:
        return None
    found = (
        torch.backends.cpu.get_cpu_capability()
        if device.type == "cpu"
        else torch.cuda.get_device_name(device)
    )
    return (
        f"bf16 is emulated here (found {found}); it needs avx512_bf16, amx_bf16 or a GPU that computes in it"
    )


def median(records: Sequence[Record], **wanted: Any) -> float | None:
    """The median time of the record with these values; None where there is none."""
    for one in records:
        if all(one[key] == value for key, value in wanted.items()):
            return one["median_ms"]
    return None


def ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def table(records: Sequence[Record]) -> str:
    """An aligned table: times, times over detkit's of the same measure, images per second, share of the step."""
    lines = [("measure", "implementation", "ms", "quartiles", "/ detkit", "images/s", "of the step")]
    for one in records:
        same = {"dtype": one["dtype"], "implementation": one["implementation"]}
        ours = median(records, measure=one["measure"], dtype=one["dtype"], implementation=DETKIT)
        step = median(records, measure=STEP, **same)
        share = ratio(one["median_ms"], step) if one["measure"] in (LOSSES, MATCHING) else None
        lines.append(
            (
                one["measure"],
                one["implementation"],
                f"{one['median_ms']:,.1f}",
                " to ".join(f"{value:,.1f}" for value in one["quartiles_ms"]),
                f"{ratio(one['median_ms'], ours):.2f}",
                f"{one['images_per_second']:,.2f}",
                "" if share is None else f"{share:.2%}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            word.ljust(width) if i < 2 else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def goals(records: Sequence[Record], case: Case, device: torch.device) -> list[Goal]:
    """The goals for this kind of device; not measured where the case is another."""
    on_gpu = device.type == "cuda"
    if case != (CUDA_GOAL_CASE if on_gpu else CPU_GOAL_CASE):
        records = []

    def faster(ours: str, theirs: str) -> float | None:
        mine = median(records, measure=STEP, implementation=DETKIT, dtype=ours)
        return ratio(median(records, measure=STEP, implementation=TORCHVISION, dtype=theirs), mine)

    unit = "times faster than torchvision's"
    if on_gpu:
        subject = f"training step {CUDA_GOAL_CASE}, both in bf16"
        return [Goal(subject, faster("bf16", "bf16"), 1.7, unit, at_least=True)]
    subject = f"training step {CPU_GOAL_CASE}"
    return [
        Goal(f"{subject}, both in fp32", faster("fp32", "fp32"), 1.25, unit, at_least=True),
        Goal(
            f"{subject}, ours in bf16, torchvision's in fp32",
            faster("bf16", "fp32"),
            2.3,
            unit,
            at_least=True,
        ),
    ]


def report(records: Sequence[Record]) -> None:
    say(f"\n{records[0]['case']}, {records[0]['dtype']}\n{table(records)}")
    detection, forward = (
        median(records, measure=what, implementation=DETKIT) for what in (DETECTION, FORWARD)
    )
    if detection and forward:
        say(f"detection takes {detection / forward:.3f} times its forward pass")


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    for name, kind, metavar, meaning in (
        ("arch", str, "NAME", "torchvision backbone"),
        ("size", _positive, "PIXELS", "side of the images"),
        ("batch", _positive, "N", "images in a step"),
        ("classes", _positive, "K", "classes"),
        ("boxes", _positive, "G", "objects on each image"),
    ):
        on_cpu, on_gpu = (getattr(case, name) for case in (CPU_GOAL_CASE, CUDA_GOAL_CASE))
        default = f"{on_cpu}" if on_cpu == on_gpu else f"{on_cpu}; on a GPU {on_gpu}"
        add(f"--{name}", type=kind, metavar=metavar, help=f"{meaning} ({default})")
    add(
        "--frozen-batch-norm",
        action="store_true",
        help="freeze the backbones' batch norm, as for trained ones",
    )
    add("--precision", choices=("fp32", "bf16", "both"), default="both", help="(both)")
    add("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="(cpu)")
    add("--threads", type=_positive, metavar="T", help="processor threads that PyTorch uses (its own choice)")
    add("--steps", type=_positive, metavar="N", help=f"timed rounds ({ROUNDS}; quick: {QUICK_ROUNDS})")
    add(
        "--quick",
        action="store_true",
        help="training alone, detkit and torchvision as it comes (about a minute)",
    )
    add("--json", type=Path, metavar="FILE", help="write the records, a list, to FILE")
    return _checked(parser, parser.parse_args(words))


def _checked(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.Namespace:
    if arguments.size is not None and arguments.size % 32:
        parser.error(
            f"argument --size: {arguments.size} does not divide by 32, so that the two would pad differently"
        )
    return arguments


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def chosen_case(arguments: argparse.Namespace, device: torch.device) -> Case:
    """The goal's case for this kind of device, but for what was asked for."""
    case = CUDA_GOAL_CASE if device.type == "cuda" else CPU_GOAL_CASE
    asked = {field.name: getattr(arguments, field.name, None) for field in fields(Case)}
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(case, **given, frozen=arguments.frozen_batch_norm)


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    say(machine(device))
    if os.getloadavg()[0] > BUSY:
        warn("other programs are or were just running; times may be theirs as well")
    case = chosen_case(arguments, device)
    inputs = Inputs(case, device)
    rounds = arguments.steps or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    records: list[Record] = []
    for precision in DTYPES if arguments.precision == "both" else (arguments.precision,):
        if (reason := why_not(precision, device)) is not None:
            say(f"{precision}: not measurable: {reason}")
            records.append(skipped(case, device, precision, reason))
            continue
        measured = measure(inputs, precision, rounds, quick=arguments.quick)
        report(measured)
        records += measured
        if arguments.json:
            write_json(arguments.json, records)
    if arguments.json:
        write_json(arguments.json, records)
    say("\nGoals:")
    for goal in goals(records, case, device):
        say(f"  {goal}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
