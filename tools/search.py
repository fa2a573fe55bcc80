"""Search for the configuration that is best on validation, with optuna; its winner is scored once on test."""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from detkit.arguments import script_parser
from detkit.builders.search import SearchedExperiment
from detkit.builders.search_results import score_winner, standing, write_found
from detkit.builders.searched_trial import run_trial
from detkit.config import load_search
from detkit.console import run_tool, say
from detkit.evaluation.search_results import Search
from detkit.report.search import write_search_report
from detkit.search.running import run_trials

EXAMPLES = """examples:
  python tools/search.py configs/search/demo.yaml
  python tools/search.py configs/search/demo.yaml --trials 6 --output runs/search/try   # a first look, scored on test
  python tools/search.py configs/search/demo.yaml --report                                # of the trials that are there

It needs optuna: pip install 'detkit[search]'. Begin the same command in several terminals of one machine, and they
share the trials. Stop it when you like, and begin it again: a trial that was stopped or killed goes on from its
checkpoint. When all trials have ended, the winner on validation is scored on test. Nothing shows a test score before,
and no trial can be added after. The output folder receives report.html (look at it, also on the way), best.yaml (the
winner, to train it again), search.json and test.json; the winner's checkpoint is best.pt in its folder in trials.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    parser.add_argument("config", type=Path, help="YAML file, see configs/search/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="any key of the search, e.g. seed=1"
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="of the whole search, in place of the file's; then it is over"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder that the experiment's data paths start from"
    )
    parser.add_argument("--output", metavar="DIR", help="the search's folder; the same as output=DIR")
    parser.add_argument("--report", action="store_true", help="run no trial, only write the report again")
    return parser.parse_intermixed_args()


def main() -> int:
    arguments = parse_arguments()
    given = {"trials": arguments.trials, "output": arguments.output}
    extra = [f"{key}={value}" for key, value in given.items() if value is not None]
    told = load_search(arguments.config, [*arguments.overrides, *extra])
    torch.set_num_threads(told.threads)
    experiment = SearchedExperiment(told, arguments.config, arguments.data_root)
    study = experiment.open_study(begin=not arguments.report)

    def publish() -> Search:
        found = write_found(experiment, study, told.trials)
        write_search_report(experiment.folder)
        return found

    if not arguments.report:
        if not run_trials(study, told.trials, partial(run_trial, experiment), publish):
            say("stopped and saved; the same command goes on")
            return 130
        score_winner(experiment, study, told.trials)
    for line in standing(experiment, publish()):
        say(line)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
