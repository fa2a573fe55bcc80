"""Check, repair and describe one COCO file."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from detkit.data.checks import check_annotations
from detkit.data.coco import CocoAnnotations, read_coco
from detkit.data.columns import read_coco_tree
from detkit.data.defects import Defect
from detkit.data.image_checks import check_images
from detkit.data.repair import repair
from detkit.data.report import Report
from detkit.data.statistics import AnchorStatistics, data_statistics
from detkit.errors import DataError
from detkit.files import write_json


def inspect_file(
    path: str | os.PathLike,
    image_folder: str | os.PathLike | None = None,
    *,
    classes: Sequence[str] | None = None,
    match: Callable[[CocoAnnotations], AnchorStatistics] | None = None,
    repaired: str | os.PathLike | None = None,
) -> Report:
    """Find every defect of a COCO file and its images, repair it if asked, and count what is in it.

    Args:
        path: COCO annotations.
        image_folder: what the file names start from; None leaves the images closed.
        classes: count these classes alone; defects are found in all.
        match: gives the anchor statistics of a sound file.
        repaired: where to write a repaired copy; an error that cannot be mended leaves it unwritten.

    Raises:
        DataError: the image folder is missing, or a class is not in the file.
    """
    try:
        tree = read_coco_tree(path)
    except DataError as error:
        found, _, remedy = str(error).removeprefix(f"{path}: ").rpartition("; ")
        return Report(str(path), [Defect("unreadable", "error", "file", found, remedy)])
    image_defects = [] if image_folder is None else check_images(tree, image_folder)
    defects = check_annotations(tree)
    report = Report(str(path), sorted([*defects, *image_defects], key=lambda defect: defect.rank))
    if repaired is not None:
        report = _repair(report, tree, image_defects, repaired)
    if report.repaired is None and any(defect.severity == "error" for defect in defects):
        return report
    annotations = read_coco(report.repaired or path, classes)
    return replace(
        report, data=data_statistics(annotations), anchors=None if match is None else match(annotations)
    )


def _repair(
    report: Report, tree: dict[str, list], image_defects: list[Defect], path: str | os.PathLike
) -> Report:
    try:
        tree, changes = repair(tree, image_defects)
        write_json(path, tree, indent=None)
    except DataError as error:
        return replace(report, not_repaired=str(error))
    except ValueError:
        found = "it holds NaN or infinity elsewhere than in boxes and areas, which JSON does not know"
        return replace(report, not_repaired=f"{found}; take them out")
    return replace(report, repaired=str(path), changes=changes)
