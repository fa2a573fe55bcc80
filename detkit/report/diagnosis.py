"""The page of a diagnosis: one HTML file that holds everything; and the files of numbers that lie beside it.

The page's numbers are drawn by the template; what is filtered and marked, the gallery, is one block of JSON that its
own script reads. File and class names are untrusted: the template escapes them, the script sets them as text alone, and
a content security policy lets no other script run and nothing be loaded.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from detkit.evaluation.diagnosed import Diagnosed
from detkit.evaluation.diagnosis import Diagnosis, PartRow
from detkit.evaluation.error_costs import ERRORS
from detkit.evaluation.kinds_file import write_kinds
from detkit.evaluation.number_texts import points
from detkit.files import write_json, write_text
from detkit.report.colours import css_variables
from detkit.report.diagnosis_charts import MANY_CLASSES, biggest_confusions, charts
from detkit.report.diagnosis_data import MOST_DRAWN, gallery_data
from detkit.report.diagnosis_gallery import OF_EACH_CLASS, OF_EACH_KIND, Item, choose_items
from detkit.report.diagnosis_pictures import PICTURE_BYTES, Pictures, cut_pictures, images_of
from detkit.report.diagnosis_text import MEANING, WORDS, findings, suspects
from detkit.report.page import page_environment


def write_folder(diagnosed: Diagnosed, folder: Path, *, of_each_kind: int = OF_EACH_KIND) -> None:
    """Write diagnosis.html, its numbers as diagnosis.json, and errors.csv (see ``kinds_file``).

    Args:
        diagnosed: what they show.
        folder: where they are written.
        of_each_kind: how many errors of each kind the gallery has.

    Raises:
        DataError: an image cannot be read.
    """
    write_diagnosis(diagnosed, folder / "diagnosis.html", of_each_kind=of_each_kind)
    write_json(folder / "diagnosis.json", diagnosed.diagnosis.record())
    write_kinds(folder / "errors.csv", diagnosed.ground_truth, diagnosed.table, diagnosed.classified)


def write_diagnosis(
    diagnosed: Diagnosed,
    path: str | PathLike,
    *,
    of_each_kind: int = OF_EACH_KIND,
    picture_bytes: int = PICTURE_BYTES,
) -> None:
    """Write the page, whole or not at all.

    Args:
        diagnosed: what it shows.
        path: of the file.
        of_each_kind: how many errors of each kind the gallery has.
        picture_bytes: what all pictures together may take.

    Raises:
        DataError: an image cannot be read.
    """
    text = render(diagnosed, of_each_kind=of_each_kind, picture_bytes=picture_bytes)
    # A name may hold half a surrogate pair, which JSON can say and UTF-8 cannot.
    write_text(path, text.encode("utf-8", "replace").decode())


def render(
    diagnosed: Diagnosed, *, of_each_kind: int = OF_EACH_KIND, picture_bytes: int = PICTURE_BYTES
) -> str:
    """The page as text; arguments as of ``write_diagnosis``."""
    items, pictures = _shown(diagnosed, of_each_kind, picture_bytes)
    environment = page_environment()
    script = _source(environment, "diagnosis.js")
    diagnosis = diagnosed.diagnosis
    return environment.get_template("diagnosis.html").render(
        diagnosed=diagnosed,
        diagnosis=diagnosis,
        findings=findings(diagnosed),
        suspects_sentence=suspects(diagnosed),
        charts=charts(diagnosis),
        parts=_part_tables(diagnosis),
        errors=[(WORDS[error], MEANING[error]) for error in ERRORS],
        confusion=_confusion_table(diagnosis),
        confusions=biggest_confusions(diagnosis),
        coverage=_coverage(diagnosis, items),
        shown_suspects=sum(item.suspect is not None for item in items),
        of_each_kind=of_each_kind,
        of_each_class=OF_EACH_CLASS,
        most_drawn=MOST_DRAWN,
        pictures=pictures is not None,
        data=_json_block(gallery_data(diagnosed, items, pictures)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
    )


def _shown(diagnosed: Diagnosed, of_each_kind: int, picture_bytes: int) -> tuple[list[Item], Pictures | None]:
    """The errors, as far as their pictures have room, and the pictures; None where there are no images."""
    items = choose_items(diagnosed, of_each_kind)
    if diagnosed.read_images is None:
        return items, None
    images = diagnosed.read_images(images_of(items))
    pictures = cut_pictures(items, images, room=picture_bytes)
    return [item for item in items if item in pictures.patches], pictures


def _source(environment: Environment, name: str) -> str:
    """A file of the templates as it is: what the braces of a script hold is no template."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _json_block(tree: dict[str, Any]) -> Markup:
    """JSON that no text in it can end: HTML looks for "<" alone."""
    text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def _part_tables(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """A table for the whole with sizes, one for groups and one for classes, the weakest first."""
    whole, *parts = diagnosis.parts
    titles = {"size": "All, and by size", "group": "By group of classes", "class": "By class"}
    # Shades can be compared over all rows; costs of the whole alone would be pale beside a rare class's.
    most = max([error.cost or 0.0 for row in diagnosis.parts for error in row.errors] + [0.01])
    tables = []
    for part, title in titles.items():
        rows = [row for row in parts if row.part == part]
        if part != "size":
            rows.sort(key=lambda row: (row.AP50 is None, row.AP50 or 0.0))
        rows = [whole, *rows] if part == "size" else rows
        if rows:
            tables.append({"title": title, "rows": [_part_row(row, most) for row in rows]})
    return tables


def _part_row(row: PartRow, most: float) -> dict[str, Any]:
    return {
        "name": "all" if row.part == "all" else row.name,
        "objects": row.objects,
        "missed": row.missed,
        "AP50": points(row.AP50),
        "cells": [
            (points(error.cost), error.count, round(100 * max(0.0, error.cost or 0.0) / most))
            for error in row.errors
        ],
    }


def _confusion_table(diagnosis: Diagnosis) -> list[dict[str, Any]] | None:
    """Rows with count and share of the row; None where there are too many classes."""
    if len(diagnosis.class_names) > MANY_CLASSES:
        return None
    counts = np.array(diagnosis.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [*diagnosis.class_names, "background"]
    return [
        {
            "name": name,
            "cells": [
                (int(count), round(100 * share), place == column)
                for column, (count, share) in enumerate(zip(counts[place], shares[place], strict=True))
            ],
        }
        for place, name in enumerate(names)
    ]


def _coverage(diagnosis: Diagnosis, items: Sequence[Item]) -> list[tuple[str, int, int]]:
    """Of each kind: how many there are, and how many the gallery has."""
    return [
        (WORDS[error.name], error.count, sum(item.kind == error.name for item in items))
        for error in diagnosis.parts[0].errors
    ]
