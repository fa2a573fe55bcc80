"""Measure both gradients of a 3x3 convolution, where only some cells of the output have one, by turns in one run.

``torch`` is torch's own, ``winograd`` and ``sparse`` are those of detkit.models. A training step takes what their
conditions name (cells_with_gradient of sparse_gradients.py, is_faster of winograd.py); here all are shown.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from ops import machine
from step import DTYPES
from timing import Call, time_by_turns
from torch import Tensor

from detkit.console import run_tool, say
from detkit.files import write_json
from detkit.models import sparse_gradients, winograd

CPU = torch.device("cpu")
SQUARE = 4
"""The side of the squares of cells that have a gradient, as around an object."""
EXAMPLES = """examples:
  python benchmarks/convolution.py
  python benchmarks/convolution.py --size 20 --channels 128 --precision bf16
  ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/convolution.py   (as without AVX-512)
"""

Record = dict[str, Any]


def inputs(channels: int, size: int, batch: int, share: float, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Images, a weight, and a gradient in squares that cover this share of the cells, in channels_last memory."""
    torch.manual_seed(0)
    cells = torch.zeros(batch, 1, size, size)
    while cells.mean() < share:
        image, row, column = (int(torch.randint(end, ())) for end in (batch, size, size))
        cells[image, :, row : row + SQUARE, column : column + SQUARE] = 1
    values = (
        torch.randn(batch, channels, size, size),
        torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5,
        torch.randn(batch, channels, size, size) * cells,
    )
    images, weight, gradient = (each.to(dtype, memory_format=torch.channels_last) for each in values)
    return images, weight, gradient


def calls(images: Tensor, weight: Tensor, gradient: Tensor) -> dict[str, Call]:
    """Both gradients as each implementation computes them; finding the cells is part of it."""
    ones = [1, 1]

    def of_torch() -> Any:
        return torch.ops.aten.convolution_backward(
            gradient, images, weight, None, ones, ones, ones, False, [0, 0], 1, [True, True, False]
        )[:2]

    def of_winograd() -> Any:
        return winograd.image_gradient(weight, gradient), winograd.weight_gradient(images, gradient)

    def of_sparse() -> Any:
        cells = gradient.permute(0, 2, 3, 1).any(-1)
        return (
            sparse_gradients.image_gradient(weight, gradient, cells),
            sparse_gradients.weight_gradient(images, gradient, cells),
        )

    made = {"torch": Call(of_torch), "sparse": Call(of_sparse)}
    return made | ({"winograd": Call(of_winograd)} if images.dtype == torch.float32 else {})


def measure(arguments: argparse.Namespace, share: float) -> list[Record]:
    dtype = DTYPES[arguments.precision]
    values = inputs(arguments.channels, arguments.size, arguments.batch, share, dtype)
    times = time_by_turns(calls(*values), CPU, seconds=arguments.seconds)
    return [
        {
            "implementation": name,
            "dtype": arguments.precision,
            "case": f"{arguments.channels}x{arguments.size}x{arguments.size} N={arguments.batch}",
            "share": (values[2] != 0).any(1).float().mean().item(),
            "median_ms": statistics.median(taken),
            "rounds": len(taken),
        }
        for name, taken in times.items()
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--channels", type=int, default=256, help="of images and outputs (default: %(default)s)")
    add("--size", type=int, default=40, help="height and width in cells (default: %(default)s)")
    add("--batch", type=int, default=8, help="images (default: %(default)s)")
    add("--precision", choices=DTYPES, default="fp32", help="default: %(default)s")
    add(
        "--shares",
        type=float,
        nargs="+",
        default=[0.01, 0.05, 0.1, 0.2, 0.3, 0.5],
        help="of cells with a gradient, from 0 to 1 (default: .01 to .5)",
    )
    add("--seconds", type=float, default=2.0, help="for each share (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the records, a list, to FILE")
    arguments = parser.parse_args()
    if not all(0 < share < 1 for share in arguments.shares):
        parser.error("argument --shares: all must be above 0 and below 1")
    if min(arguments.channels, arguments.size, arguments.batch) < 1:
        parser.error("--channels, --size and --batch must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    say(machine(CPU))
    records: list[Record] = []
    for share in arguments.shares:
        measured = measure(arguments, share)
        times = ", ".join(f"{one['implementation']} {one['median_ms']:.1f} ms" for one in measured)
        say(f"{measured[0]['case']}, {arguments.precision}, {measured[0]['share']:.1%} of the cells: {times}")
        records += measured
    if arguments.json:
        write_json(arguments.json, records)


if __name__ == "__main__":
    sys.exit(run_tool(main))
