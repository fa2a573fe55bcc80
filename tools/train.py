"""Train a detector from a configuration."""

import argparse
import sys
from pathlib import Path

from detkit.arguments import script_parser
from detkit.builders import begin_run
from detkit.config import load_config
from detkit.console import run_tool, say, warn
from detkit.report.curves import training_curves
from detkit.report.fitting import fitting
from detkit.training.loop import BEST
from detkit.training.run_log import read_log

EXAMPLES = """examples:
  python tools/train.py configs/demo.yaml
  python tools/train.py configs/drone-visible.yaml --data-root ~/data optimiser.learning_rate=0.005 training.epochs=40
  python tools/train.py configs/demo.yaml --resume      # go on where a stopped run was

The run's folder (the key `output`) receives config.yaml, metrics.jsonl, curves.png, last.pt (to resume from) and
best.pt (to evaluate and predict with). Ctrl-C saves and stops.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    parser.add_argument("config", type=Path, help="YAML file, see configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="any key of the config, e.g. seed=1"
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder that the config's data paths start from")
    parser.add_argument("--output", metavar="DIR", help="the run's folder; the same as output=DIR")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder, if there is one"
    )
    again.add_argument("--overwrite", action="store_true", help="throw away the run in the folder")
    # Overrides may come before, between and after the flags.
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()
    config = load_config(
        arguments.config, arguments.overrides, data_root=arguments.data_root, output=arguments.output
    )
    folder = Path(config.output)
    run, checkpoint = begin_run(config, resume=arguments.resume, overwrite=arguments.overwrite)
    if checkpoint:
        say(f"resuming {folder} at step {checkpoint['step']} of {run.plan.steps}")
    position = run.fit(checkpoint)
    rows = read_log(folder / "metrics.jsonl")
    training_curves(rows, folder / "curves.png", metric=config.training.metric)
    if not position.finished:
        say(f"stopped and saved at step {position.step}; the same command with --resume goes on")
        return 130
    fit = fitting(rows, metric=config.training.metric)
    if fit is not None and fit.verdict != "settled":
        warn(fit.sentence)
    best = "n/a" if position.best is None else f"{position.best:.4f}"
    say(f"best {config.training.metric} {best} at step {position.best_step}: {folder / BEST}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
