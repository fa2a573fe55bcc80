"""Make the demo data: faces among face-like clutter in real photographs, as a COCO data set."""

import sys
from pathlib import Path

from detkit.arguments import script_parser
from detkit.console import run_tool, say
from detkit.data.demo import DemoSpec, write_demo

EXAMPLES = """\
example:
  python tools/make_demo_data.py data/demo
  python tools/train.py configs/demo.yaml

The pictures are made from images that scikit-image installs (pip install scikit-image); nothing is
downloaded. No face and no photograph is in two splits. The same arguments give the same files, and where they
are already there nothing is done.
"""


def main() -> None:
    """Write the demo data, or say that it is there."""
    defaults = DemoSpec()
    parser = script_parser(__doc__, EXAMPLES)
    parser.add_argument("folder", type=Path, help="where to write; made if it is not there")
    for split in ("train", "val", "test"):
        default = getattr(defaults, split)
        parser.add_argument(
            f"--{split}", type=int, default=default, metavar="N", help=f"scenes (default {default})"
        )
    parser.add_argument(
        "--size", type=int, default=defaults.size, metavar="PIXELS",
        help=f"width and height of a scene (default {defaults.size})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default 0")
    given = parser.parse_args()
    spec = DemoSpec(train=given.train, val=given.val, test=given.test, size=given.size, seed=given.seed)
    if write_demo(given.folder, spec):
        say(f"{given.folder}: wrote {spec.train} + {spec.val} + {spec.test} scenes (train, val, test)")
    else:
        say(f"{given.folder}: the demo data is already there")


if __name__ == "__main__":
    sys.exit(run_tool(main))
