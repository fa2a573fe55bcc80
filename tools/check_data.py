"""Check COCO data before training: every defect at once, and what the data is like."""

import argparse
import sys
from functools import partial
from pathlib import Path

from detkit.arguments import names, refuse, script_parser
from detkit.builders import build_anchors, build_evaluation_transform, build_training_transform, split_paths
from detkit.config import Config, load_config
from detkit.console import run_tool
from detkit.data.coco import CocoAnnotations
from detkit.data.inspection import inspect_file
from detkit.data.statistics import AnchorStatistics, anchor_statistics
from detkit.files import write_json

EXAMPLES = """examples:
  One file and its images, and a repaired copy:
    python tools/check_data.py train.json --images photos --fix train_fixed.json
  Every split of an experiment, and how its anchors meet the boxes:
    python tools/check_data.py configs/dice.yaml --data-root data
Exit status 1 says that something is left that would make training or evaluation wrong.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("source", type=Path, help="COCO annotations (.json) or an experiment (.yaml)")
    add("--images", type=Path, metavar="DIR", help="the folder that the file names start from")
    add("--no-images", action="store_true", help="do not open the images")
    add("--classes", type=names, metavar="A,B", help="count these alone")
    add("--config", type=Path, metavar="YAML", help="match its anchors with a .json source")
    add("--data-root", metavar="DIR", help="the folder that the splits of a .yaml start from")
    add("--fix", type=Path, metavar="OUT.json", help="write a repaired copy of a .json source")
    add("--json", type=Path, metavar="REPORT.json", help="write all that was found")
    arguments = parser.parse_args()
    of_config = arguments.source.suffix in (".yaml", ".yml")
    of_file = arguments.fix or arguments.images or arguments.config
    refuse(parser, {
        "--fix, --images and --config go with one COCO file (.json), not with an experiment": of_config and of_file,
        f"--fix {arguments.fix}: is the source itself; give the repaired copy another path":
            arguments.fix and arguments.fix.resolve() == arguments.source.resolve(),
        "name the folder of the images (--images DIR), or leave them closed (--no-images)":
            not (of_config or arguments.images or arguments.no_images),
    })  # fmt: skip
    arguments.config = arguments.source if of_config else arguments.config
    return arguments


def main() -> int:
    arguments = parse_arguments()
    config = arguments.config and load_config(arguments.config, data_root=arguments.data_root)
    files = [(arguments.source, arguments.images)]
    if config and arguments.source == arguments.config:
        build_training_transform(config)  # tells what is wrong in data.augment
        splits = (config.data.train, config.data.val, config.data.test)
        files = [split_paths(config, split) for split in splits if split]
    classes = arguments.classes or (config and config.data.classes)
    match = config and partial(_match, config)
    reports = []
    for annotations, images in files:
        folder = None if arguments.no_images else images
        report = inspect_file(annotations, folder, classes=classes, match=match, repaired=arguments.fix)
        report.show()
        reports.append(report)
    if arguments.json:
        write_json(arguments.json, [report.as_json() for report in reports])
    return 1 if any(report.errors_left for report in reports) else 0


def _match(config: Config, annotations: CocoAnnotations) -> AnchorStatistics:
    anchors, resized = build_anchors(config), build_evaluation_transform(config).size_for
    return anchor_statistics(annotations, anchors.anchors_for, resized, **config.matcher.model_dump())


if __name__ == "__main__":
    sys.exit(run_tool(main))
