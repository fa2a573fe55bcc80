"""The scans of a round: the detector goes over what may hold false positives, and crops of them join the set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from detkit.bootstrap.compute import scan_compute
from detkit.errors import ConfigError
from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks
from detkit.mining.decision import Decision
from detkit.mining.negative_set import MinedCrops, NegativeSet
from detkit.mining.pool import Pool
from detkit.mining.quarantine import set_aside
from detkit.mining.round import CROPS, MiningRound, mine, negatives_before
from detkit.mining.settings import MiningSettings
from detkit.mining.source import InputSize, MiningSource


@dataclass(frozen=True)
class ScanResult:
    """What the scans of a round gave, all sources together."""

    scanned: int = 0
    """Images."""
    false_positives: int = 0
    """Detections that are background errors, of any score."""
    crops: int = 0
    """Those that joined."""
    over_limit: int = 0
    """Those that the round had no room for."""
    negatives: int = 0
    """Crops of the set after the round."""
    charge: int = 0
    """What the scans cost, in forward passes per canvas pixel."""


@dataclass(frozen=True, eq=False)
class Scans:
    """What rounds go over, and where they keep what they find.

    Crops of all sources make one set: the scans of a round follow one another, and each adds to what the one before
    left. Round ``n`` of source ``name`` has the folder ``name_n`` (see ``mining.round``).

    Raises:
        ConfigError: a pool has fewer images than parts.
    """

    root: Path
    """The folder of all rounds."""
    pools: Mapping[str, Pool]
    """By the name of the source; at least one."""
    settings: MiningSettings
    capacity: int | None
    """Crops of the set; None has no end."""
    parts: int
    """Of each pool, one of which a round goes over."""
    stride: int
    """Divides the canvases on which the detector sees the images."""
    batch: int
    """Images that it sees together."""
    input_size: InputSize
    source: Callable[[Pool, str], MiningSource]
    """The detector as it is now over a pool; the text names it in the records."""
    marks: Mapping[str, ReviewMarks] = field(default_factory=dict)
    """What a person said of places in the pools, by the name of the source."""

    def __post_init__(self) -> None:
        for pool in self.pools.values():
            if len(pool) < self.parts:
                raise ConfigError(
                    f"bootstrap.parts: {self.parts} parts of the {len(pool)} images of {pool.name} leave some empty; "
                    "take fewer"
                )

    def run(self, number: int, part: int, before: int, name: str) -> ScanResult:
        """Do the scans of a round, or go on with them where they were interrupted.

        Args:
            number: of the round.
            part: of each pool, counted from 0.
            before: the last round that added to the set; 0 is none.
            name: the detector's, for the records.

        Raises:
            DataError: an image cannot be used, or the round was begun with another detector.
        """
        negatives, summaries = self._set_after(before), []
        for label, pool in self.pools.items():
            mined = mine(
                MiningRound(
                    number=number,
                    root=self.root,
                    source=self.source(pool, name),
                    settings=self.settings,
                    negatives=negatives,
                    part=(part, self.parts),
                    label=label,
                    marks=self.marks.get(label, NO_MARKS),
                )
            )
            negatives = mined.negatives
            summaries.append(mined.summary)
        return ScanResult(
            scanned=sum(summary["images"] for summary in summaries),
            false_positives=sum(summary["detections"].get("background", 0) for summary in summaries),
            crops=sum(summary["kept"] for summary in summaries),
            over_limit=sum(summary["decisions"].get(Decision.OVER_ROUND_LIMIT, 0) for summary in summaries),
            negatives=len(negatives.crops),
            charge=self.charge(part),
        )

    @property
    def crops_folder(self) -> Path:
        """Where the files of crops are."""
        return self.root / CROPS

    def crops_after(self, number: int, *, ended: int) -> MinedCrops:
        """The crops of the set that a round left; none before the first.

        Without those that hold what a later round set aside, of the ``ended`` that there were: where it was undone,
        they are in the set that it went back to.
        """
        crops = self._set_after(number).crops
        for label, pool in self.pools.items():
            crops = crops.select(~crops.touching(pool.files_of(self.ignored(label, ended + 1))))
        return crops

    def ignored(self, label: str, before: int) -> IgnoreRegions:
        """What of a pool was set aside by rounds before this one, or rejected by a person."""
        marks = self.marks.get(label, NO_MARKS)
        return set_aside(self.root, label, self.pools[label], marks, before=before)

    def charge(self, part: int) -> int:
        """What the scans of a part cost, in forward passes per canvas pixel."""
        scanned = (of_pool[part :: self.parts].tolist() for of_pool in self._sizes.values())
        return sum(
            scan_compute([self.input_size(tuple(size)) for size in sizes], self.stride, self.batch)
            for sizes in scanned
        )

    @cached_property
    def _sizes(self) -> dict[str, np.ndarray]:
        return {label: pool.image_sizes() for label, pool in self.pools.items()}

    def _set_after(self, number: int) -> NegativeSet:
        last = list(self.pools)[-1]
        return negatives_before(self.root, number + 1, capacity=self.capacity, label=last)
