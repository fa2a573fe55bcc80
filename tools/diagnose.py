"""Find what is wrong with a detector: a page with the cost of every kind of error, and the worst of each to look at."""

import argparse
import sys
from pathlib import Path

from detkit.builders.diagnosis import RunToDiagnose, Shown, diagnose_results, diagnose_run
from detkit.console import run_tool, say
from detkit.evaluation.kinds_file import write_kinds
from detkit.files import write_json
from detkit.report.diagnosis import write_diagnosis
from detkit.report.diagnosis_gallery import OF_EACH_KIND
from detkit.report.diagnosis_text import findings

EXAMPLES = """examples:
  python tools/diagnose.py runs/demo
  python tools/diagnose.py runs/drone/best.pt --split test --data-root ~/data --output runs/drone/test-diagnosis
  python tools/diagnose.py runs/drone --split train --marks review_marks.json
  python tools/diagnose.py --annotations val.json --detections detections.json --images photos --output diagnosis
  python tools/diagnose.py --annotations val.json --detections best.json epoch9.json epoch8.json --output diagnosis

The fourth needs no model and takes any program's COCO results; without --images the patches are left out. Of several
files of detections the first is diagnosed, and the others, of other checkpoints, tell which suspected missing labels
persist; of a run's folder last.pt and the rounds of mining do. GROUPS.yaml has lines such as "vehicle: [car, bus]".

DIR/diagnosis.html is one file that needs nothing else; DIR/diagnosis.json holds its numbers, and DIR/errors.csv the
kind of every single detection and of every missed object. Suspected missing labels can be marked on the page, and the
marks saved: tools/mine.py --marks and the key data.marks take the file.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="a run's folder, or a checkpoint")
    add("--split", choices=("train", "val", "test"), help="of the run's data (val)")
    add("--data-root", metavar="DIR", help="folder that the run's data paths start from")
    add("--device", choices=("auto", "cpu", "cuda"), help="as in training")
    add("--precision", choices=("auto", "fp32", "bf16"), help="as in training")
    add("--annotations", type=Path, metavar="GT.json", help="COCO annotations, in place of a split")
    add("--detections", type=Path, nargs="+", metavar="DT.json", help="COCO results of boxes")
    add("--images", type=Path, metavar="DIR", help="the images of GT.json")
    add("--classes", type=_names, metavar="A,B", help="with --detections: look at these classes alone (all)")
    add("--groups", type=Path, metavar="GROUPS.yaml", help="classes by group (their supercategories)")
    add("--marks", type=Path, metavar="FILE", help="marks made before, to go on with")
    add("--suspect-score", type=float, metavar="X", help="least of a missing label (of 9 in 10 correct)")
    add("--patches", type=int, default=OF_EACH_KIND, metavar="N", help="of each kind of error (%(default)s)")
    add("--output", type=Path, metavar="DIR", help="where to write (the folder diagnosis of the run)")
    arguments = parser.parse_args()
    refuse_wrong_together(arguments, parser)
    return arguments


def refuse_wrong_together(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    if given.run:
        if given.detections or given.classes:
            parser.error("--detections and --classes go without a run, which has both")
        if (given.annotations is None) != (given.images is None):
            parser.error("a run needs both --annotations and --images, or neither")
    elif not (given.annotations and given.detections and given.output):
        parser.error("give a run, or --annotations, --detections and --output")
    elif given.split or given.data_root or given.device or given.precision:
        parser.error("--split, --data-root, --device and --precision go with a run")
    if given.patches < 1:
        parser.error("--patches: write a whole number from 1 on")


def main() -> None:
    arguments = parse_arguments()
    run, output = arguments.run, arguments.output
    shown = Shown(arguments.groups, arguments.marks, arguments.suspect_score)
    if run:
        output = output or (run if run.is_dir() else run.parent) / "diagnosis"
        given = ("annotations", "images", "device", "precision", "data_root")
        options = {name: getattr(arguments, name) for name in given}
        diagnosed = diagnose_run(RunToDiagnose(run, arguments.split or "val", **options), output, shown)
    else:
        paths = arguments.annotations, arguments.detections, arguments.images
        diagnosed = diagnose_results(*paths, shown, classes=arguments.classes)
    write_diagnosis(diagnosed, output / "diagnosis.html", of_each_kind=arguments.patches)
    write_json(output / "diagnosis.json", diagnosed.diagnosis.record())
    write_kinds(output / "errors.csv", diagnosed.ground_truth, diagnosed.table, diagnosed.classified)
    for sentence in findings(diagnosed):
        say(sentence)
    say(f"diagnosis: {output / 'diagnosis.html'}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(run_tool(main))
