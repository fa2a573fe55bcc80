"""Measure detkit's ops beside torchvision, torch.compile and a plain copy, by turns in one run.

The focal loss (forward, backward, and both) on the logits of 76,725, 163,206 and 201,600 anchors, and matching on
the anchors of the same images. All read the same values, which are pushed out of the caches before each call.
torchvision and torch.compile get the levels in one tensor, ready made. The copy goes into memory that is already
there: it reads the logits once and writes them once (for matching, the anchors).
"""

import argparse
import importlib.util
import itertools
import os
import platform
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

import torch
from op_cases import DTYPES, IMAGE_SIZES, LossCase, MatchingCase, Size
from op_measurement import Job, Record, measure
from op_peers import BACKWARD, BOTH, COPY, DETKIT, FORWARD, LOSSES, MATCHINGS, TORCHVISION
from op_report import draw, goals, table

from detkit.files import write_json
from detkit.ops import _library

PASSES = (FORWARD, BACKWARD, BOTH)
CASE_OPTIONS = ("op", "passes", "dtypes", "sizes", "images", "classes", "boxes")
BUSY = 0.5
"""Programs that want a processor, on average over the last minute, from which on a warning is given."""
SECONDS = 2.0
QUICK_SECONDS = 6.0
EXAMPLES = """examples:
  python benchmarks/ops.py --quick
  python benchmarks/ops.py --json ops.json --picture ops.png
  python benchmarks/ops.py --device cuda --json ops-cuda.json
  python benchmarks/ops.py --op loss --sizes 512x512 --images 4 --classes 20 --dtypes bf16

Without --quick there are 117 cases, which take hours on 2 cores; FILE is written anew after each of them. Cases that
do not fit into memory are listed as skipped. The table's columns "/ detkit" and "/ copy" are times over theirs, and
"bytes / least" is what the ops move over the least that any could. A record of FILE has the keys:

  op              sigmoid_focal_loss or match_anchors
  implementation  detkit, torchvision, torch.compile or copy
  device, dtype   cpu or cuda; fp32 or bf16
  case            N images, A anchors on each, K classes or G boxes on each; unsure: many logits of background are
                  high, as in few detectors, and the short formulas for easy background help ours less
  pass            forward, backward or forward+backward
  median_ms       median time of a call, null where it was skipped. On a GPU the device's own time, in
                  which the host counts only where an implementation waits for it
  quartiles_ms    a quarter of the calls took less than the first, and a quarter more than the second
  rounds          how many calls were timed
  extra_bytes     memory at the peak of a call beyond what was held before and what it returns. On a CPU it is the
                  growth of the process, whoever took it; null where the system does not say
  bytes_moved     what its ops read and write, each tensor of an op once; null where they cannot be watched
  least_bytes     what any implementation moves: each input read once and each output written once
  skipped         why it was skipped; no such key otherwise
"""


def goal_cases(device: torch.device) -> list[list[LossCase | MatchingCase]]:
    """The cases that the project's goals speak of; those of one list are compared with each other."""
    if device.type == "cuda":
        return [[LossCase(8, (800, 1088), 80, "bf16")], [MatchingCase(8, (800, 1088), 100)]]
    return [
        [
            *(LossCase(1, (640, 640), 80, dtype) for dtype in DTYPES),
            LossCase(1, (640, 640), 80, "fp32", "unsure"),
        ],
        [MatchingCase(1, (800, 1088), boxes) for boxes in (100, 2000)],
    ]


def quick_groups(device: torch.device) -> list[list[Job]]:
    """The goals' cases; on a CPU both passes of the loss in one, and torchvision not with 2,000 boxes."""
    groups = []
    for cases in goal_cases(device):
        jobs = []
        for case in cases:
            whole = PASSES if device.type == "cuda" else (BOTH,)
            passes = whole if isinstance(case, LossCase) else (FORWARD,)
            crowded = isinstance(case, MatchingCase) and case.boxes > 100
            jobs.append(Job(case, passes, (DETKIT, COPY) if crowded else (DETKIT, TORCHVISION, COPY)))
        groups.append(jobs)
    return groups


def all_groups(arguments: argparse.Namespace) -> list[list[Job]]:
    """Every combination of what was asked for, one by one but for the goals' cases."""
    jobs = []
    if arguments.op != "matching":
        axes = arguments.dtypes, arguments.sizes, arguments.classes, arguments.images
        for dtype, size, classes, images in itertools.product(*axes):
            jobs.append(Job(LossCase(images, size, classes, dtype), tuple(arguments.passes), tuple(LOSSES)))
    if arguments.op != "loss":
        for size, boxes, images in itertools.product(arguments.sizes, arguments.boxes, arguments.images):
            jobs.append(Job(MatchingCase(images, size, boxes), (FORWARD,), tuple(MATCHINGS)))
    goal_of = {
        case: index
        for index, cases in enumerate(goal_cases(torch.device(arguments.device)))
        for case in cases
    }
    groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        groups.setdefault(goal_of.get(job.case, job.case), []).append(job)
    return list(groups.values())


def _size(text: str) -> Size:
    height, width = map(int, text.lower().split("x"))
    if min(height, width) < 1:
        raise ValueError
    return height, width


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError
    return value


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="the goals' cases alone, without torch.compile (under a minute)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="(cpu)")
    add("--threads", type=_positive, metavar="T", help="processor threads that PyTorch uses (its own choice)")
    add("--json", type=Path, metavar="FILE", help="write the records, a list, to FILE")
    add("--picture", type=Path, metavar="FILE", help="draw the times into FILE, a PNG (needs matplotlib)")
    add("--seconds", type=float, metavar="S", help="time to spend on each pass of each case (2; quick: 6)")
    only = parser.add_argument_group("cases, in place of all (any values may be given; not with --quick)")
    only.add_argument("--op", choices=("loss", "matching"), help="this op alone")
    for name, kind, default, meaning in (
        ("--passes", str, PASSES, "passes of the loss (all three; the last alone takes half as long)"),
        ("--dtypes", str, list(DTYPES), "types of the logits (fp32 bf16)"),
        ("--sizes", _size, list(IMAGE_SIZES), "heights and widths of images (640x640 800x1088 800x1344)"),
        ("--images", _positive, [1, 8, 16], "images in a batch (1 8 16)"),
        ("--classes", _positive, [1, 80, 91, 365], "classes, for the loss (1 80 91 365)"),
        ("--boxes", _count, [0, 7, 100, 500, 2000], "boxes on each image, for matching (0 7 100 500 2000)"),
    ):
        choices = default if kind is str else None
        metavar = None if choices else "HxW" if name == "--sizes" else name[2].upper()
        only.add_argument(
            name, type=kind, default=default, nargs="+", choices=choices, metavar=metavar, help=meaning
        )
    arguments = parser.parse_args(words)
    chosen = [name for name in CASE_OPTIONS if getattr(arguments, name) != parser.get_default(name)]
    if arguments.quick and chosen:
        parser.error(f"--quick has its own cases: leave out --{chosen[0]}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this torch finds no GPU; python -m detkit.doctor says more")
    if arguments.picture and importlib.util.find_spec("matplotlib") is None:
        parser.error("--picture needs matplotlib: pip install matplotlib")
    return arguments


def machine(device: torch.device) -> str:
    """The line that a figure needs beside it."""
    libraries = {"cpu": _library.CPU, "cuda": _library.CUDA}
    status = libraries[device.type]
    library = "compiled" if status.loaded else f"in plain PyTorch, because {status.reason}"
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors before"
    where = f"{torch.get_num_threads()} threads, {platform.machine()}, {load}"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return f"detkit's ops {library}; torch {torch.__version__}; {where}; {time.strftime('%Y-%m-%d')}"


def save(records: list[Record], arguments: argparse.Namespace) -> None:
    if arguments.json:
        write_json(arguments.json, records)


def main() -> None:
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    on_gpu = arguments.device == "cuda"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    seconds = arguments.seconds
    if seconds is None:
        seconds = QUICK_SECONDS if arguments.quick else SECONDS
    groups = quick_groups(device) if arguments.quick else all_groups(arguments)
    records: list[Record] = []
    save(records, arguments)
    print(machine(device))
    if os.getloadavg()[0] > BUSY:
        print(
            "warning: other programs are or were just running; times may be theirs as well", file=sys.stderr
        )
    started = time.monotonic()
    for number, group in enumerate(groups, start=1):
        names = " and ".join(f"{job.case} {job.case.dtype}" for job in group)
        after = f"{number} of {len(groups)}, after {(time.monotonic() - started) / 60:.1f} min"
        print(f"{after}: {group[0].op} {names}", file=sys.stderr, flush=True)
        for of_job in measure(group, device, seconds):
            records += of_job
            print(f"\n{table(of_job)}", flush=True)
        save(records, arguments)
    reached = goals(records, device.type)
    if any(goal.found is not None for goal in reached):
        print("\nGoals:", *reached, sep="\n  ")
    if arguments.picture:
        draw(records, arguments.picture)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}")
