"""Compare ways to train at equal compute: arms by seeds, and one report with the verdict."""

import argparse
import sys
from pathlib import Path

import torch

from detkit.arguments import script_parser, whole_numbers
from detkit.builders.compared_results import write_results
from detkit.builders.comparison import ComparedArms
from detkit.comparison.running import arm_slug, make_runs, missing_runs
from detkit.config import load_comparison
from detkit.console import run_tool, say
from detkit.errors import ConfigError
from detkit.report.comparison import write_report

EXAMPLES = """examples:
  python tools/compare.py configs/compare/demo.yaml
  python tools/compare.py configs/compare/demo.yaml --seeds 0 output=runs/try 'splits=[val]'    # a first look
  python tools/compare.py configs/compare/bloodcells-sparse.yaml --data-root ~/data
  python tools/compare.py configs/compare/demo.yaml --report                            # of what is finished

Every arm may spend what the shared experiment costs; what scans for negatives cost is paid with training steps. Runs
that are finished are kept in the output folder as small files, so stop it when you like, and begin it again: runs go on
where they were. Begin it in several terminals, or on machines that share the folders, and each run is made once.
The output folder receives report.html (look at it), results.json, table.md and the configuration.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("config", type=Path, help="YAML file, see configs/compare/")
    add("overrides", nargs="*", metavar="key=value", help="any key of the comparison, e.g. seeds=[0,1]")
    add("--data-root", metavar="DIR", help="folder that the experiment's data paths start from")
    add("--work", type=Path, metavar="DIR", help="where runs are made; below runs/compare where not given")
    add("--seeds", type=whole_numbers, metavar="N,N", help="only runs of these seeds of the configuration")
    add("--report", action="store_true", help="make no run, only the report of what is finished")
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()
    comparison = load_comparison(arguments.config, arguments.overrides)
    torch.set_num_threads(comparison.threads)
    folder = Path(comparison.output)
    work = arguments.work or Path("runs", "compare", arm_slug(comparison.output))
    arms = ComparedArms(comparison, arguments.config, work, arguments.data_root)
    planned = arms.plan()
    wanted = [one for one in planned if arguments.seeds is None or one.seed in arguments.seeds]
    if not wanted:
        raise ConfigError(f"--seeds: no arm has these; there are {sorted({one.seed for one in planned})}")
    if not arguments.report and not make_runs(folder, work, wanted, arms.make):
        say("stopped and saved; the same command goes on")
        return 130
    missing = missing_runs(folder, wanted)
    if missing and not arguments.report:
        say(
            f"{len(missing)} runs failed, or are being made by other processes, of which the one that ends last writes "
            "the report; --report makes it of what is there"
        )
        return 1
    for line in write_results(arms, planned).verdict:
        say(line)
    write_report(folder)
    finished = len(planned) - len(missing_runs(folder, planned))
    say(f"the report of {finished} of {len(planned)} runs: {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
