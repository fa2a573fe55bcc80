"""Going over the images of a pool: detections in, false positives out, and nothing lost when the process is killed.

A scan writes its journal as it goes, one line of JSON for each image, so that a scan that was interrupted goes on with
the images that have no line yet. The images of a batch are written together, and of a batch that was cut off nothing is
kept: a model's last digits depend on the batch, and the scan is to end as if it had not been interrupted. Format
version 1. The first line tells what
the scan is of: ``{"format": "detkit mining scan", "format_version": 1, ...}`` and everything in ``Scan.identity``. Each
other line is

- ``image``: its place in the pool; ``size``, ``input_size``: (height, width) of the file, and as the detector sees it;
- ``kinds``: how many detections are of each kind (see ``evaluation.detection_errors``);
- ``true_positives``: the scores of the correct ones;
- ``candidates``: the background errors, hardest first: lists in the order of ``Candidate``'s fields after ``image``;
- ``batch``, in the last line of a batch alone: its number of images.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detkit.console import progress
from detkit.errors import DataError
from detkit.evaluation import DetectionTable
from detkit.evaluation.detection_errors import DetectionKind, IgnoreRegions, classify_detections
from detkit.mining.candidates import Candidate, FalsePositives, find_candidates
from detkit.mining.decision import Decision
from detkit.mining.negative_set import MinedCrops
from detkit.mining.pool import Pool
from detkit.mining.settings import MiningSettings

FORMAT = "detkit mining scan"
FORMAT_VERSION = 1
_NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True, eq=False)
class DetectedImages:
    """A few images of a pool, and what a detector finds in them."""

    images: Sequence[int]
    """Their places in the pool."""
    sizes: Sequence[tuple[int, int]]
    """(height, width) of each in its file."""
    table: DetectionTable
    """Its image ids are those of the pool's ground truth."""


Detect = Callable[[Sequence[int]], Iterable[DetectedImages]]
"""Looks for objects in the images at these places of a pool, some at a time, each image once."""


@dataclass(frozen=True, eq=False)
class Scan:
    """One pass over a part of a pool."""

    pool: Pool
    images: Sequence[int]
    """Places of the images to go over."""
    settings: MiningSettings
    input_size: Callable[[tuple[int, int]], tuple[int, int]]
    """(height, width) of a file to that at which the detector sees it."""
    identity: dict[str, Any]
    """What a scan that is gone on with must have in common with the one before, as JSON values."""
    ignore: IgnoreRegions
    """Regions that count neither as object nor as background, beside the crowds."""
    known: MinedCrops
    """The crops that there are already."""
    accepted: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What a person called background, by the name of the image: xyxy in pixels of the original, [M, 4]."""


@dataclass(frozen=True)
class ScannedImage:
    """A line of the journal."""

    image: int
    size: tuple[int, int]
    input_size: tuple[int, int]
    kinds: dict[str, int]
    true_positives: list[float]
    candidates: list[Candidate]


def run_scan(scan: Scan, journal: Path, detect: Detect) -> list[ScannedImage]:
    """Go over the images that the journal does not have yet.

    Args:
        scan: what to go over.
        journal: a file to begin, or to go on with.
        detect: finds objects.

    Returns:
        All images of the scan, in the order of the pool.

    Raises:
        DataError: the journal is of another scan, or cannot be read.
    """
    done = {line.image for line in _begin(scan, journal)}
    remaining = [image for image in scan.images if image not in done]
    sorter = _Sorter(scan)
    with journal.open("a", encoding="utf-8") as stream:

        def journalled() -> Iterator[ScannedImage]:
            for detected in detect(remaining):
                batch = list(sorter.lines_of(detected))
                stream.write(_batch_to_text(batch))
                stream.flush()
                yield from batch

        for _ in progress(journalled(), len(remaining), "mining"):
            pass
        os.fsync(stream.fileno())
    return sorted(_read(scan, journal), key=lambda line: line.image)


class _Sorter:
    """Sorts out what is wrong with each detection, image by image."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self.windows = _by_image(scan.known.windows, scan.known.real_sources, scan.pool.real_files)
        self.ignored = _by_image(scan.ignore.boxes, scan.ignore.image_ids, scan.pool.ground_truth.image_ids)

    def lines_of(self, detected: DetectedImages) -> Iterator[ScannedImage]:
        scan, table = self.scan, detected.table
        truth = scan.pool.objects_in(detected.images)
        ignored = [self.ignored.get(image, _NO_BOXES) for image in detected.images]
        ignore = IgnoreRegions(np.repeat(truth.image_ids, list(map(len, ignored))), np.concatenate(ignored))
        classified = classify_detections(
            truth,
            table,
            foreground_iou=scan.settings.foreground_iou,
            background_iou=scan.settings.background_iou,
            ignore=ignore,
        )
        for image, size, regions in zip(detected.images, detected.sizes, ignored, strict=True):
            image_id = scan.pool.ground_truth.image_ids[image]
            mine = np.flatnonzero(table.image_ids == image_id)
            kinds = classified.kinds[mine]
            hard = mine[(kinds == DetectionKind.BACKGROUND) & (table.scores[mine] >= scan.settings.floor)]
            found = FalsePositives(
                image=image,
                table=table.select(hard),
                nearest_ious=classified.nearest_ious[hard],
                obstacles=np.concatenate([truth.boxes[truth.object_image_ids == image_id], regions]),
                known=self.windows.get(image, _NO_BOXES),
                size=size,
                input_size=scan.input_size(size),
                accepted=scan.accepted.get(str(scan.pool.names[image]), _NO_BOXES),
            )
            yield ScannedImage(
                image=image,
                size=size,
                input_size=found.input_size,
                kinds=_counts(kinds),
                true_positives=table.scores[mine[kinds == DetectionKind.CORRECT]].tolist(),
                candidates=find_candidates(found, scan.settings, quarantine=scan.pool.state == "unverified"),
            )


def _by_image(boxes: np.ndarray, keys: np.ndarray, images: np.ndarray) -> dict[int, np.ndarray]:
    """The boxes of each image, by its place among ``images``; a box belongs to the image with its key."""
    rows: dict[Any, list[int]] = {}
    for row, key in enumerate(keys.tolist()):
        rows.setdefault(key, []).append(row)
    return {place: boxes[rows[key]] for place, key in enumerate(images.tolist()) if key in rows}


def _counts(kinds: np.ndarray) -> dict[str, int]:
    counts = np.bincount(kinds, minlength=len(DetectionKind)).tolist()
    return {kind.words: count for kind, count in zip(DetectionKind, counts, strict=True) if count}


def _begin(scan: Scan, journal: Path) -> list[ScannedImage]:
    """Make the journal, or cut off what a kill left half written; the images that it has."""
    header = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **scan.identity}) + "\n"
    journal.parent.mkdir(parents=True, exist_ok=True)
    whole = journal.read_bytes() if journal.exists() else b""
    whole = whole[: whole.rfind(b"\n") + 1]
    if not whole:
        journal.write_text(header, encoding="utf-8")
        return []
    os.truncate(journal, len(whole))
    done = list(_read(scan, journal))
    rows = whole.splitlines(keepends=True)
    while done and "batch" not in json.loads(rows[len(done)]):
        done.pop()
    os.truncate(journal, sum(map(len, rows[: 1 + len(done)])))
    return done


def _read(scan: Scan, journal: Path) -> Iterator[ScannedImage]:
    with journal.open(encoding="utf-8") as stream:
        _check_header(stream.readline(), scan.identity, journal)
        for number, text in enumerate(stream, start=2):
            try:
                yield _from_json(text)
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    f"{journal}: line {number}: is damaged; begin the scan anew without this file"
                ) from None


def _check_header(text: str, identity: dict[str, Any], journal: Path) -> None:
    try:
        header = json.loads(text)
        format_name, version = header.pop("format"), header.pop("format_version")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DataError(f"{journal}: is no journal of a scan; move the file away") from None
    if (format_name, version) != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"{journal}: is {format_name!r} of format version {version}, this detkit writes version "
            f"{FORMAT_VERSION} of {FORMAT!r}; begin the scan anew"
        )
    expected = json.loads(json.dumps(identity))
    for key in expected:
        if header.get(key) != expected[key]:
            name, before, now = _difference(key, header.get(key), expected[key])
            raise DataError(
                f"{journal}: was begun with {name} {before!r}, this scan has {now!r}; go on with the former, or begin "
                "anew (--overwrite)"
            )


def _difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """The name of a value and its two contents; of two dicts those of the first entry that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            if before.get(key) != now.get(key):
                return key, before.get(key), now.get(key)
    return name, before, now


def _batch_to_text(batch: Sequence[ScannedImage]) -> str:
    """The lines of a batch, of which the last says that it is whole."""
    trees = [_to_tree(line) for line in batch]
    if trees:
        trees[-1]["batch"] = len(batch)
    return "".join(json.dumps(tree, allow_nan=False) + "\n" for tree in trees)


def _to_tree(line: ScannedImage) -> dict[str, Any]:
    rows = [
        [row.box, row.score, row.category_id, row.nearest_iou, row.decision, row.reason, row.window]
        for row in line.candidates
    ]
    return {**line.__dict__, "candidates": rows}


def _from_json(text: str) -> ScannedImage:
    tree = json.loads(text)
    candidates = [
        Candidate(
            tree["image"], tuple(box), score, category_id, iou, Decision(decision), reason,
            None if window is None else tuple(window),
        )
        for box, score, category_id, iou, decision, reason, window in tree["candidates"]
    ]  # fmt: skip
    return ScannedImage(
        image=tree["image"],
        size=tuple(tree["size"]),
        input_size=tuple(tree["input_size"]),
        kinds=tree["kinds"],
        true_positives=tree["true_positives"],
        candidates=candidates,
    )
