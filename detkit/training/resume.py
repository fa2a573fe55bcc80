"""Whether a run may begin in a folder, or go on there."""

import shutil
from pathlib import Path
from typing import Any

from detkit.errors import TrainingError
from detkit.training.checkpoint import load_checkpoint
from detkit.training.loop import BEST, LAST

FREE_TO_CHANGE = (
    "output",
    "device",
    "data.root",
    "data.workers",
    "training.tensorboard",
    "evaluation.batch_size",
)
"""Keys that a resumed run may change: where it runs, not what it learns. (Another device rounds differently.)"""
RUN_FILES = (LAST, BEST, "metrics.jsonl")
ROUNDS = "rounds"
"""The folder of bootstrapping's rounds."""


def checkpoint_to_resume(
    folder: Path, config: dict[str, Any], *, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """The checkpoint that a run in ``folder`` goes on from, or None where it begins.

    A run that was killed before its first checkpoint begins anew. Nothing is removed here; a run that begins
    replaces the files of the one before, see ``clear``.

    Raises:
        TrainingError: the folder holds a run and neither flag is given, or the run has another configuration.
        WeightsError: the checkpoint cannot be read.
    """
    last = folder / LAST
    if overwrite or not any((folder / name).exists() for name in RUN_FILES):
        return None
    if not resume:
        raise TrainingError(
            f"{folder}: holds a run already; go on with it (--resume), throw it away (--overwrite) or choose "
            "another output"
        )
    if not last.exists():
        return None
    checkpoint = load_checkpoint(last)
    changed = _changed_keys(checkpoint["config"], config)
    if changed:
        raise TrainingError(
            f"{last}: was trained with another configuration ({'; '.join(changed)}); resume with the same, "
            "throw the run away (--overwrite), or begin another from its weights (output=..., model.weights=...)"
        )
    return checkpoint


def clear(folder: Path) -> None:
    """Remove what an earlier run left in ``folder``, half-written checkpoints of a killed one included."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob(".*.part"):
        path.unlink()
    shutil.rmtree(folder / ROUNDS, ignore_errors=True)


def _changed_keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line per key whose value differs, but for those that are free to change.

    A key that the run did not know came with a newer detkit, whose default is what the run did; but where the run had
    no such section at all, what stands in it now is new.
    """
    old, new = flat_keys(before), flat_keys(after)
    free = set(FREE_TO_CHANGE)
    if (before.get("bootstrap") or {}).get("crops"):
        # The crops remember the files that they were cut from.
        free.remove("data.root")
    added = {key for key in new if any(key.startswith(f"{name}.") and old[name] is None for name in old)}
    return [
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
        for key in sorted({*old, *added})
        if key not in free and old.get(key) != new.get(key) and not (old.get(key) is None and key not in new)
    ]


def flat_keys(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by full key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flat_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
