"""Find what is wrong with a detector: a page with the cost of every kind of error, and the worst of each to look at."""

import argparse
import sys
from pathlib import Path

from detkit.arguments import add_measured, refuse, refuse_measured, script_parser, share, whole_number
from detkit.builders.diagnosis import RunToDiagnose, Shown, diagnose_results, diagnose_run
from detkit.console import run_tool, say
from detkit.report.diagnosis import write_folder
from detkit.report.diagnosis_gallery import OF_EACH_KIND
from detkit.report.diagnosis_text import findings

EXAMPLES = """examples:
  python tools/diagnose.py runs/demo
  python tools/diagnose.py runs/drone --split train
  python tools/diagnose.py runs/drone/best.pt --split test --data-root ~/data --output runs/drone/test-diagnosis
  python tools/diagnose.py --annotations val.json --detections detections.json --images photos --output diagnosis
  python tools/diagnose.py --annotations val.json --detections best.json epoch9.json epoch8.json --output diagnosis

Suspected missing labels can be marked on the page, and the marks saved. For training, mark the training images, as in
the second, and name the file in the key data.marks; tools/mine.py --marks takes marks of the images that it mines.
The fourth needs no model and takes any program's COCO results; without --images the patches are left out. Of several
files of detections the first is diagnosed, and the others, of other checkpoints, tell which suspects persist; of a
run's folder last.pt and the rounds of mining do. GROUPS.yaml has lines such as "vehicle: [car, bus]".

DIR/diagnosis.html is one file that needs nothing else; DIR/diagnosis.json holds its numbers, and DIR/errors.csv the
kind of every single detection and of every missed object.
"""


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="a run's folder, or a checkpoint")
    add_measured(parser)
    add("--detections", type=Path, nargs="+", metavar="DT.json", help="COCO results of boxes")
    groups = "file that puts classes into groups (default: the supercategories that the annotations name)"
    add("--groups", type=Path, metavar="GROUPS.yaml", help=groups)
    add("--marks", type=Path, metavar="FILE", help="marks made before, to go on with")
    suspect = "least score of a suspected missing label (default: what nine in ten correct detections reach)"
    add("--suspect-score", type=share, metavar="X", help=suspect)
    patches = "errors of each kind that are shown, beside a few of each class (default: %(default)s)"
    add("--patches", type=whole_number(1), default=OF_EACH_KIND, metavar="N", help=patches)
    add("--output", type=Path, metavar="DIR", help="where to write (default: diagnosis in the run's folder)")
    told = parser.parse_args()
    refuse_measured(parser, told, told.run)
    refuse(parser, {"--detections: say where to write, with --output": told.detections and not told.output})
    return told


def main() -> None:
    told = parse_arguments()
    split, output, files = told.split or "val", told.output, (told.annotations, told.images)
    shown = Shown(told.groups, told.marks, told.suspect_score)
    if told.run:
        run = RunToDiagnose(told.run, split, *files, told.device, told.precision, told.data_root)
        output = output or run.checkpoint.parent / "diagnosis"
        diagnosed = diagnose_run(run, output, shown)
    else:
        diagnosed = diagnose_results(
            told.annotations, told.detections, told.images, shown, classes=told.classes
        )
    write_folder(diagnosed, output, of_each_kind=told.patches)
    for sentence in findings(diagnosed):
        say(sentence)
    say(f"diagnosis: {output / 'diagnosis.html'}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
