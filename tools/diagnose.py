"""Find what is wrong with a detector: a page with the cost of every kind of error, and the worst of each to look at."""

import argparse
import sys
from pathlib import Path

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
    add("--classes", metavar="A,B", help="with --detections: look at these classes alone (all)")
    add("--groups", type=Path, metavar="GROUPS.yaml", help="classes by group (their supercategories)")
    add("--marks", type=Path, metavar="FILE", help="marks made before, to go on with")
    add("--suspect-score", type=float, metavar="X", help="least of a missing label (of 9 in 10 correct)")
    add("--patches", type=int, default=OF_EACH_KIND, metavar="N", help="of each kind of error (%(default)s)")
    add("--output", type=Path, metavar="DIR", help="where to write (the folder diagnosis of the run)")
    told = parser.parse_args()
    run, half = told.run, bool(told.annotations) != bool(told.images)
    results = told.annotations and told.detections and told.output
    of_run = told.split or told.data_root or told.device or told.precision
    mistakes = {
        "--detections and --classes go without a run, which has both": run and (told.detections or told.classes),
        "a run needs both --annotations and --images, or neither": run and half,
        "give a run, or --annotations, --detections and --output": not run and not results,
        "--split, --data-root, --device and --precision go with a run": not run and of_run,
        "--patches: write a whole number from 1 on": told.patches < 1,
    }  # fmt: skip
    for message, made in mistakes.items():
        if made:
            parser.error(message)
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
        classes = told.classes and [name.strip() for name in told.classes.split(",") if name.strip()]
        diagnosed = diagnose_results(told.annotations, told.detections, told.images, shown, classes=classes)
    write_folder(diagnosed, output, of_each_kind=told.patches)
    for sentence in findings(diagnosed):
        say(sentence)
    say(f"diagnosis: {output / 'diagnosis.html'}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
