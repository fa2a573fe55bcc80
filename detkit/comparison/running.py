"""Making the runs of a comparison, one after another or by several processes, each run once."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detkit.comparison.finished import FinishedRun, load_finished, save_finished
from detkit.console import say, warn
from detkit.errors import DataError, TrainingError
from detkit.files import locked

FINISHED = "finished"
"""The folder of finished runs, in that of the comparison."""


@dataclass(frozen=True)
class PlannedRun:
    """A run that a comparison needs."""

    arm: str
    seed: int
    identity: Mapping[str, Any]
    """What it is made from, as JSON values; a finished run of other values is not taken for it."""

    @property
    def slug(self) -> str:
        """Names its files."""
        return f"{arm_slug(self.arm)}-{self.seed}"


Make = Callable[[PlannedRun], FinishedRun | None]
"""Makes a run, or goes on with one that was stopped; None where it was stopped again."""


def arm_slug(name: str) -> str:
    """An arm's name as part of a file's name; names that differ may have one slug."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "arm"


def finished_file(folder: Path, planned: PlannedRun) -> Path:
    """Where a comparison keeps a run."""
    return folder / FINISHED / f"{planned.slug}.npz"


def make_runs(folder: Path, work: Path, runs: Sequence[PlannedRun], make: Make) -> bool:
    """Make the runs that are not there yet and that no other process is making.

    Args:
        folder: of the comparison.
        work: where runs are made; processes that share it share the work.
        runs: in the order in which they are wanted.
        make: makes one.

    Returns:
        Whether all is done as far as this process can: False where it was asked to stop. A run that fails is told, and
        those after it are made.

    Raises:
        DataError: a finished run was made from something else.
    """
    check_finished(folder, runs)
    for planned in runs:
        file = finished_file(folder, planned)
        with locked(work / f"{planned.slug}.lock", wait=False) as mine:
            if not mine or finished_already(file, planned):
                continue
            try:
                run = make(planned)
            except TrainingError as error:
                # One that does not come to an end must not keep the others from being made.
                warn(f"{planned.arm}, seed {planned.seed}: {error}")
                continue
            if run is None:
                return False
            save_finished(file, run, planned.identity)
            count = len(runs) - len(missing_runs(folder, runs))
            say(f"{planned.arm}, seed {planned.seed}: finished ({count} of {len(runs)} runs)")
    return True


def missing_runs(folder: Path, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs that are not finished."""
    return [planned for planned in runs if not finished_file(folder, planned).exists()]


def check_finished(folder: Path, runs: Sequence[PlannedRun]) -> None:
    """Make sure that each run that is there is one of the plan.

    Raises:
        DataError: it was made from something else, or cannot be read.
    """
    for planned in runs:
        finished_already(finished_file(folder, planned), planned)


def finished_already(file: Path, planned: PlannedRun) -> bool:
    """Whether a run is there.

    Raises:
        DataError: it was made from something else, or cannot be read.
    """
    if not file.exists():
        return False
    _, identity = load_finished(file)
    changed = sorted(
        key for key in {*identity, *planned.identity} if identity.get(key) != planned.identity.get(key)
    )
    if changed:
        named = "; ".join(
            f"{key} was {identity.get(key)!r}, is {planned.identity.get(key)!r}" for key in changed[:4]
        )
        raise DataError(
            f"{file}: was made with another configuration ({named}); remove it to make the run anew, or choose "
            "another output"
        )
    return True
