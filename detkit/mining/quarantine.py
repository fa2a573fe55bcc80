"""Detections in an unverified pool that score so high that they may be objects nobody marked: for a person to look at.

The list is a COCO file, so that any labelling tool shows it: ``info`` (with ``format`` "detkit quarantine" and
``format_version`` 1), the images with a suspect (names start from the pool's folder; ``sha256``, the first 16 digits of
the file's, tells them from others of that name), an annotation for each suspect
(with its ``score``, its ``round``, and ``iscrowd`` 1, which makes it a region to ignore), and the categories. Nothing
on the list is a negative, unless a person's mark accepts it as background (see ``review``). A person takes the images
with objects out of the pool, or gives them boxes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detkit.errors import DataError
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.evaluation.ground_truth import coco_categories
from detkit.evaluation.review_marks import ReviewMarks
from detkit.files import read_json, write_json
from detkit.mining.candidates import Candidate
from detkit.mining.pool import Pool
from detkit.mining.review import ignored_regions

FORMAT = "detkit quarantine"
FORMAT_VERSION = 1
_Key = tuple[str, str]
"""An image's name and the first digits of its SHA-256."""


def quarantine_file(root: Path, label: str) -> Path:
    """The list of the suspects of all rounds below a folder; ``label`` is their source's."""
    return root / ("quarantine.json" if label == "round" else f"{label}-quarantine.json")


def write_quarantine(
    path: Path, pool: Pool, suspects: Sequence[Candidate], sizes: dict[int, tuple[int, int]], number: int
) -> None:
    """Add the suspects of a round to the list, whole or not at all; a round that is done again replaces its own.

    Args:
        path: the list; made where it is not there.
        pool: what was scanned.
        suspects: what was set aside.
        sizes: (height, width) of each image's file.
        number: the round.

    Raises:
        DataError: the file there is no such list.
    """
    tree = _read(path) if path.exists() else {"images": [], "annotations": []}
    mine = _places(tree, pool)
    image_of = {_key(image): image for image in tree["images"]}
    key_of = {image["id"]: _key(image) for image in tree["images"]}
    rows = [
        (key_of[row["image_id"]], row)
        for row in tree["annotations"]
        if row.get("round") != number or row["image_id"] not in mine
    ]
    for suspect in suspects:
        height, width = sizes[suspect.image]
        image = {"file_name": str(pool.names[suspect.image]), "width": width, "height": height}
        image["sha256"] = pool.digest(suspect.image)
        image_of.setdefault(_key(image), image)
        rows.append((_key(image), _annotation(suspect, number)))
    write_json(path, _as_coco(rows, image_of, pool))


def quarantined_regions(path: Path, pool: Pool, *, before: int) -> IgnoreRegions:
    """The regions of a pool's images that rounds ``before`` this one put on the list; none where there is no list.

    Raises:
        DataError: the file there is no such list.
    """
    if not path.exists():
        return IgnoreRegions.none()
    tree = _read(path)
    mine = _places(tree, pool)
    rows = [row for row in tree["annotations"] if row.get("round", 0) < before and row["image_id"] in mine]
    places = [mine[row["image_id"]] for row in rows]
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return IgnoreRegions(pool.ground_truth.image_ids[places].astype(np.int64), boxes)


def set_aside(root: Path, label: str, pool: Pool, marks: ReviewMarks, *, before: int) -> IgnoreRegions:
    """What is neither object nor background in a pool, as the rounds ``before`` this one and a person say.

    Args:
        root, label: of the rounds, see ``quarantine_file``.
        pool, marks: see ``review.ignored_regions``.
        before: a round's number.

    Raises:
        DataError: the list of suspects there cannot be read.
    """
    suspects = quarantined_regions(quarantine_file(root, label), pool, before=before)
    return ignored_regions(pool, suspects, marks)


def _places(tree: dict[str, Any], pool: Pool) -> dict[int, int]:
    """The place in the pool of the images of a list, by their id there: those that are the pool's, and no others."""
    place = {name: index for index, name in enumerate(pool.names.tolist())}
    return {
        image["id"]: place[image["file_name"]]
        for image in tree["images"]
        if image["file_name"] in place and image["sha256"] == pool.digest(place[image["file_name"]])
    }


def _key(image: dict[str, Any]) -> _Key:
    return image["file_name"], image["sha256"]


def _as_coco(
    rows: Sequence[tuple[_Key, dict[str, Any]]], image_of: Mapping[_Key, dict[str, Any]], pool: Pool
) -> dict[str, Any]:
    """The list of annotations, each with the key of its image, and of the images that they need, numbered anew."""
    ids = {key: id_ for id_, key in enumerate(dict.fromkeys(key for key, _ in rows), start=1)}
    return {
        "info": {"format": FORMAT, "format_version": FORMAT_VERSION},
        "images": [{**image_of[key], "id": id_} for key, id_ in ids.items()],
        "annotations": [
            {**row, "id": id_, "image_id": ids[key]} for id_, (key, row) in enumerate(rows, start=1)
        ],
        "categories": coco_categories(pool.ground_truth.names),
    }


def _annotation(suspect: Candidate, number: int) -> dict[str, Any]:
    x1, y1, x2, y2 = suspect.box
    return {
        "category_id": suspect.category_id,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 1,
        "score": suspect.score,
        "round": number,
    }


def _read(path: Path) -> dict[str, Any]:
    tree = read_json(path)
    info = tree.get("info", {}) if isinstance(tree, dict) else {}
    if info.get("format") != FORMAT or info.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path}: is no quarantine list of format version {FORMAT_VERSION}; move the file away, or use the detkit "
            "that wrote it"
        )
    return tree
