"""See which anchors the loss of a trained detector comes from, for several gammas (focal loss paper, Figure 4)."""

import argparse
import sys
from pathlib import Path

from detkit.arguments import add_detector, detector_of, numbers, script_parser
from detkit.builders import load_detector
from detkit.builders.loss_shares import count_logits
from detkit.console import print_table, run_tool, say
from detkit.files import write_text
from detkit.report.loss_pictures import shares_chart, shares_table
from detkit.report.svg import chart_style, standing_svg

EXAMPLES = """examples:
  python tools/loss_shares.py runs/demo/best.pt --output runs/demo/loss_shares
  python tools/loss_shares.py runs/drone/last.pt --split train --data-root ~/data --gammas 0,2 --output shares

The detector looks at all images of a split. Positives and negatives are sorted by their loss, each kind for itself, and
the loss is added up from the easiest on. The steeper a curve ends, the fewer hard ones the loss comes from: gamma does
that to the negatives, and hardly to the positives.

DIR/loss_shares.svg is the picture, DIR/loss_shares.json the counts that it is made of, for any gamma.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("checkpoint", type=Path, help="best.pt or last.pt of a run, trained as far as it goes")
    add("--split", choices=("train", "val", "test"), default="val", help="of the checkpoint's data (val)")
    add(
        "--gammas",
        type=numbers(0),
        default=[0.0, 0.5, 1.0, 2.0],
        metavar="A,B",
        help="draw a curve for each gamma (default: 0,0.5,1,2)",
    )
    add("--output", required=True, type=Path, metavar="DIR", help="where to write")
    add_detector(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    detector = load_detector(arguments.checkpoint, **detector_of(arguments))
    counts = count_logits(
        detector, getattr(detector.config.data, arguments.split), name=f"{arguments.split} images"
    )
    counts.save(arguments.output / "loss_shares.json")
    with chart_style():
        write_text(arguments.output / "loss_shares.svg", standing_svg(shares_chart(counts, arguments.gammas)))
    print_table(*shares_table(counts, arguments.gammas))
    say(f"picture: {arguments.output / 'loss_shares.svg'}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
