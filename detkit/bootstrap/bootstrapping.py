"""Bootstrapping in a training run: what happens at the pauses of its loop, when a round ends.

In order: the detector is watched, and where it lost recall the training since the round before is undone, and with it
what that round had added; else what the training steps noted joins the regions, and the scans' crops join the set. The
round leaves ``round_NNN.json``, an
object of JSON with the fields of ``FinishedRound``. Every part follows from the checkpoint of the pause and from files
that are written whole, so that a round that was interrupted anywhere and is done again ends as if it had not been.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detkit.bootstrap.rounds import FinishedRound, exhausted, loses, standing, too_dear
from detkit.bootstrap.scans import ScanResult, Scans
from detkit.bootstrap.settings import BootstrapSettings
from detkit.console import say
from detkit.files import read_json, write_json, written_whole
from detkit.mining.negative_set import MinedCrops
from detkit.negative_regions import NegativeRegions
from detkit.training.learner import Learner
from detkit.training.loop import Position

KEPT = "kept.pt"
"""The learner as it was when the last round that was not undone ended, before that round added anything."""
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Watch:
    """Looks how good the detector is when a round ends."""

    measure: Callable[[], Metrics]
    recall: str
    """The metric that must not be lost."""
    charge: int
    """In forward passes per canvas pixel."""


@dataclass(frozen=True, eq=False)
class Bootstrapping:
    """Ends the rounds of a run: call it at each pause (see ``loop.Run.at_pause``)."""

    folder: Path
    """Of the rounds."""
    settings: BootstrapSettings
    steps: int
    """Of the whole run."""
    learner: Learner
    regions: NegativeRegions | None = None
    """Those of the learner's selection; None where it remembers none."""
    scans: Scans | None = None
    watch: Watch | None = None
    fresh: Callable[[], Mapping[str, Any]] | None = None
    """The state of a learner that has learned nothing, to begin each round from; None goes on with what there is."""

    def __call__(self, position: Position) -> dict[str, Any] | None:
        """End a round; returns what to log, None where bootstrapping has ended before.

        Raises:
            DataError: an image of a scan cannot be used, or the folder is of another run.
        """
        number = position.ended_pauses + 1
        before = self.rounds(number - 1)
        if before and before[-1].last:
            return None
        metrics = self.watch.measure() if self.watch else position.metrics
        metrics = None if metrics is None else _finite(metrics)
        round_ = self._end(number, position, before, metrics)
        write_json(self._file(number), round_.record())
        position.compute = round_.compute
        if self.fresh is not None:
            self.learner.load_state_dict({**self.fresh(), "criterion": self.learner.criterion.state_dict()})
        if self.regions is not None:
            self.regions.closed = round_.last or number == len(self.settings.rounds)
        say(round_.in_words())
        return {name: value for name, value in round_.record().items() if name not in ("metrics", "before")}

    def rounds(self, ended: int) -> list[FinishedRound]:
        """The first so many rounds, as far as they took place."""
        files = [self._file(number) for number in range(1, ended + 1)]
        return [FinishedRound.of_record(read_json(file)) for file in files if file.exists()]

    def crops(self, ended: int) -> MinedCrops:
        """The crops that count after so many pauses."""
        if self.scans is None:
            return MinedCrops.none()
        return self.scans.crops_after(_last_scan(standing(self.rounds(ended))), ended=ended)

    def charge(self) -> int:
        """What the rounds cost if all take place, in forward passes per canvas pixel."""
        count = len(self.settings.rounds)
        watching = count * self.watch.charge if self.watch else 0
        if self.scans is None:
            return watching
        return watching + sum(self.scans.charge(scan % self.settings.parts) for scan in range(count))

    def _end(
        self, number: int, position: Position, before: list[FinishedRound], metrics: Metrics | None
    ) -> FinishedRound:
        recall = metrics[self.watch.recall] if self.watch and metrics else None
        undone = loses(recall, before, tolerance=self.settings.lost_recall)
        noted, seen = (0, 0) if self.regions is None else (self.regions.noted, self.regions.seen)
        part = sum(not one.undone for one in before) % self.settings.parts
        if undone:
            joined, found = 0, self._undo(before)
        else:
            self._keep()
            joined, found = self._mine(number, part, position.step, before)
        charged = (self.watch.charge if self.watch else 0) + found.charge
        round_ = FinishedRound(
            number=number,
            step=position.step,
            charged=charged,
            compute=position.compute + charged,
            part=part,
            scanned=found.scanned,
            false_positives=found.false_positives,
            crops=found.crops,
            over_limit=found.over_limit,
            seen=seen,
            noted=noted,
            regions=joined,
            negatives=found.negatives + (0 if self.regions is None else len(self.regions)),
            recall=recall,
            before=before[-1].metrics if before else None,
            metrics=metrics,
            undone=bool(undone),
            reason=undone,
        )
        return round_ if undone else self._last_or_not([*before, round_])

    def _mine(self, number: int, part: int, step: int, before: list[FinishedRound]) -> tuple[int, ScanResult]:
        """How many regions joined, and what scans found."""
        joined = 0 if self.regions is None else self.regions.end_round()
        if self.scans is None:
            return joined, ScanResult()
        # Without the folder's name, which a run that is gone on with may change.
        return joined, self.scans.run(number, part, _last_scan(standing(before)), f"step {step}")

    def _last_or_not(self, rounds: list[FinishedRound]) -> FinishedRound:
        settings = self.settings
        reason = exhausted(rounds, parts=settings.parts, least_acceptance=settings.least_acceptance)
        reason = reason or too_dear(rounds, steps=self.steps, most=settings.most_compute)
        return rounds[-1].ending(reason)

    def _undo(self, before: list[FinishedRound]) -> ScanResult:
        """Go back to where the last round ended, without what it added: the set as it was."""
        self.learner.load_state_dict(torch.load(self.folder / KEPT, weights_only=True, map_location="cpu"))
        if self.regions is not None:
            self.regions.forget_noted()
        if self.scans is None:
            return ScanResult()
        last = _last_scan(standing(before, then_undone=True))
        return ScanResult(negatives=len(self.scans.crops_after(last, ended=len(before))))

    def _keep(self) -> None:
        if self.watch is not None:
            with written_whole(self.folder / KEPT) as partial:
                torch.save(self.learner.state_dict(), partial)

    def _file(self, number: int) -> Path:
        return self.folder / f"round_{number:03}.json"


def _finite(metrics: Metrics) -> Metrics:
    """The same, with None for what is not finite, as a validation loss may be: JSON has no such numbers."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }


def _last_scan(rounds: list[FinishedRound]) -> int:
    """The number of the last round that scanned, 0 for none."""
    return max((one.number for one in rounds if one.scanned), default=0)
