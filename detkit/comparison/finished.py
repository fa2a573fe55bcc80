"""What a run leaves behind, as one small file, so that a comparison can be spread over days and machines.

The file, format version 1, is a NumPy archive (.npz, no pickled objects): ``record``, a text of JSON with ``format``
("detkit finished run"), ``format_version``, ``identity`` and the fields of ``FinishedRun`` but for its detections; and
these as columns: ``image_ids``, ``category_ids``, ``scores`` float32, and ``boxes`` int32 in sixteenths of a pixel.
"""

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from detkit.errors import DataError
from detkit.evaluation import DetectionTable
from detkit.evaluation.comparison_results import HardNegative, LearningPoint, RoundResult
from detkit.files import written_whole

FORMAT = "detkit finished run"
FORMAT_VERSION = 1
STEPS_PER_PIXEL = 16
"""Boxes are rounded to this part of a pixel before anything is measured, so that a file gives what the run gave."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind."""

    seed: int
    detections: DetectionTable
    """Of the images of the comparison, by the finished detector."""
    compute: Mapping[str, float]
    """By part, see ``comparison_results``."""
    wall_clock: float
    """Seconds."""
    learning: Sequence[LearningPoint] = ()
    rounds: Sequence[RoundResult] = ()
    hardest: Sequence[HardNegative] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what it was made with; a file of before they were kept has none."""


@dataclass(frozen=True)
class FinishedArm:
    """A strategy and its runs."""

    name: str
    config: str
    runs: Sequence[FinishedRun] = field(default_factory=tuple)


@dataclass(frozen=True)
class _Record:
    """What the file's text holds beside the format."""

    identity: dict[str, Any]
    seed: int
    compute: dict[str, float]
    wall_clock: float
    learning: tuple[LearningPoint, ...]
    rounds: tuple[RoundResult, ...]
    hardest: tuple[HardNegative, ...]
    versions: dict[str, str] = field(default_factory=dict)


def rounded(table: DetectionTable) -> DetectionTable:
    """The detections as a file keeps them."""
    return DetectionTable(
        table.image_ids,
        (_to_steps(table.boxes) / np.float32(STEPS_PER_PIXEL)).astype(np.float32),
        table.scores.astype(np.float32),
        table.category_ids,
    )


def save_finished(path: str | os.PathLike, run: FinishedRun, identity: Mapping[str, Any]) -> None:
    """Write a run, whole or not at all.

    Args:
        path: ending on .npz.
        run: detections are rounded, see ``rounded``.
        identity: what it was made from, as JSON values.
    """
    record = _Record(
        dict(identity),
        run.seed,
        dict(run.compute),
        run.wall_clock,
        tuple(run.learning),
        tuple(run.rounds),
        tuple(run.hardest),
        dict(run.versions),
    )
    tree = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(record)}
    table = run.detections
    with written_whole(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(
            stream,
            record=json.dumps(tree, allow_nan=False),
            image_ids=table.image_ids.astype(np.int64),
            category_ids=table.category_ids.astype(np.int64),
            scores=table.scores.astype(np.float32),
            boxes=_to_steps(table.boxes),
        )


def load_finished(path: str | os.PathLike) -> tuple[FinishedRun, dict[str, Any]]:
    """Read a run, and what it was made from.

    Raises:
        DataError: the file is none, is damaged, or has a format version that this detkit does not know.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as archive:
            columns = dict(archive)
        tree = json.loads(str(columns["record"]))
        name, version = tree.pop("format"), tree.pop("format_version")
        if (name, version) != (FORMAT, FORMAT_VERSION):
            raise DataError(
                f"{path}: is {name!r} of format version {version}, this detkit reads version {FORMAT_VERSION} of "
                f"{FORMAT!r}; make the run anew"
            )
        record = TypeAdapter(_Record).validate_python(tree)
        table = DetectionTable(
            columns["image_ids"],
            (columns["boxes"] / np.float32(STEPS_PER_PIXEL)).astype(np.float32),
            columns["scores"],
            columns["category_ids"],
        )
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, TypeError, ValidationError) as error:
        reason = type(error).__name__
        raise DataError(f"{path}: is no finished run ({reason}); remove it, and it is made anew") from None
    run = FinishedRun(
        record.seed,
        table,
        record.compute,
        record.wall_clock,
        record.learning,
        record.rounds,
        record.hardest,
        # One of before versions were kept tells that of torch.
        record.versions or {"torch": str(record.identity.get("torch"))},
    )
    return run, record.identity


def _to_steps(boxes: np.ndarray) -> np.ndarray:
    return np.rint(boxes.astype(np.float64) * STEPS_PER_PIXEL).astype(np.int32)
