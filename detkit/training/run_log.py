"""The log of a run: one JSON object per line, and TensorBoard where asked.

``metrics.jsonl``, format version 1. The first row is ``{"event": "start", "format_version": 1}``; then come

- ``{"event": "train", "step", "epoch", "compute", "loss", "classification", "box", "gradient_norm", "learning_rate",
  "images_per_second", "seconds"}``: means over the steps since the row before;
- ``{"event": "look", "step", "epoch", "compute", "positive_loss", ..., "seconds"}``: where the loss of the first step,
  and of each that a train row follows, came from, see ``laziness.StepLook``; seconds are what looking took, and are in
  those of the train row too;
- ``{"event": "validate", "step", "epoch", "compute", "loss", "classification", "box", AP, AP50, ..., "seconds"}``: the
  metrics of ``training.validation`` as fractions, null where there is nothing to measure, and ``evaluation.symptoms``;
- ``{"event": "verdict", "step", "epoch", "compute", "cause", "sentence"}``: what is wrong with the run, once for
  each cause, see ``verdicts``;
- ``{"event": "round", "step", "epoch", "compute", ...}``: a round of bootstrapping, see ``bootstrap.rounds``.

``step`` counts finished optimiser steps, ``epoch`` finished epochs (with a fraction), ``compute`` forward passes per
canvas pixel (three for a step, whose backward pass counts twice; validation is not counted); ``seconds`` and
``images_per_second`` are the only values that differ between two runs of one seed on one CPU.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from detkit.errors import ConfigError, DataError, TrainingError

FORMAT_VERSION = 1


class RunLog:
    """Appends rows to ``metrics.jsonl``; ``flush`` and ``resume_at`` let a resumed run cut off what it repeats."""

    def __init__(self, folder: Path, *, resume_at: int | None = None, tensorboard: bool = False) -> None:
        """Open the log of ``folder``; ``resume_at`` is the size in bytes to cut it back to, None begins anew."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = path = folder / "metrics.jsonl"
        if resume_at is None:
            path.unlink(missing_ok=True)
        else:
            _cut(path, resume_at)
        self._file = path.open("a", encoding="utf-8")
        self._board = _summary_writer(folder) if tensorboard else None
        if resume_at is None:
            self.write({"event": "start", "format_version": FORMAT_VERSION})

    def write(self, row: dict[str, Any]) -> None:
        """Append a row at once, so that a killed run keeps it; a number that is not finite is written as null."""
        clean = {name: None if _not_finite(value) else value for name, value in row.items()}
        self._file.write(json.dumps(clean, allow_nan=False) + "\n")
        self._file.flush()
        if self._board is not None and "step" in row:
            for name, value in clean.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._board.add_scalar(f"{row['event']}/{name}", value, row["step"])

    def flush(self) -> int:
        """Put all rows safely on disk and return their size in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file and TensorBoard's."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All rows of a ``metrics.jsonl``; of a run that was killed as it wrote the last line, those before.

    Raises:
        DataError: a line that was written to its end is no row.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    return [_row(line, f"{path}: line {number}") for number, line in enumerate(lines, start=1) if line]


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or "event" not in row:
        raise DataError(
            f"{where}: is no row of a log, a JSON object with an 'event': {line[:60]!r}; put a copy of the file back, "
            "or take the line out"
        )
    return row


def _cut(path: Path, size: int) -> None:
    """Keep the first ``size`` bytes of a log, which a checkpoint was saved with."""
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise TrainingError(
            f"{path}: has {found} bytes, but the checkpoint beside it was saved with {size}; put the log back, or "
            "begin anew with --overwrite"
        )
    os.truncate(path, size)


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "training.tensorboard: TensorBoard is not installed; pip install 'detkit[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
