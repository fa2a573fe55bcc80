"""A round of mining: scan, choose, cut, record.

Everything after the scan follows from its journal alone, and every file is written whole or not at all, so that a round
that was interrupted anywhere and is done again ends as if it had not been. A round's folder receives

- ``scan.jsonl``: the journal (see ``scan``);
- ``manifest.jsonl`` and ``summary.json``: see ``manifest``; the summary is written last, and marks the round as done;
- ``negatives.npz``: the negative set after the round (see ``negative_set``). What a round added is undone by going back
  to the set of the one before.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detkit.console import warn
from detkit.errors import ConfigError
from detkit.evaluation.review_marks import NO_MARKS, ReviewMarks
from detkit.files import write_json
from detkit.mining.candidates import Candidate, holds
from detkit.mining.crops import CropFormat, CropWriter, choose_crops
from detkit.mining.decision import Decision
from detkit.mining.export import write_coco_negatives
from detkit.mining.manifest import evicted_rows, manifest_rows, summarise, write_manifest
from detkit.mining.negative_set import MinedCrops, NegativeSet, load_negative_set
from detkit.mining.pool import Pool
from detkit.mining.quarantine import quarantine_file, set_aside, write_quarantine
from detkit.mining.scan import Scan, ScannedImage, run_scan
from detkit.mining.settings import MiningSettings
from detkit.mining.source import MiningSource

SCAN, MANIFEST, SUMMARY, NEGATIVES = "scan.jsonl", "manifest.jsonl", "summary.json", "negatives.npz"
CROPS = "crops"
"""The folder of the crops of all rounds, in that of the rounds."""


@dataclass(frozen=True, eq=False)
class MiningRound:
    """What a round is told.

    Raises:
        ConfigError: the number of the round is less than 1.
    """

    number: int
    """Counted from 1."""
    root: Path
    """The folder of all rounds."""
    source: MiningSource
    settings: MiningSettings
    negatives: NegativeSet
    """The set before the round."""
    part: tuple[int, int] = (0, 1)
    """Which part of the pool, counted from 0, and of how many."""
    file_format: CropFormat = "png"
    """Of the crops."""
    label: str = "round"
    """What the names of its folder and crops begin with; two pools of one round need two."""
    marks: ReviewMarks = NO_MARKS
    """What a person said of places in the pool."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ConfigError(f"round {self.number}: rounds count from 1")

    @property
    def images(self) -> Sequence[int]:
        """The places in the pool of the images to go over."""
        return self.source.pool.part(*self.part)

    @property
    def folder(self) -> Path:
        """Receives the round's records."""
        return _folder(self.root, self.label, self.number)

    @property
    def crops(self) -> Path:
        """Receives the crops of all rounds."""
        return self.root / CROPS

    @property
    def quarantine(self) -> Path:
        """The list of the suspects of all rounds (see ``quarantine``)."""
        return quarantine_file(self.root, self.label)

    @property
    def coco(self) -> Path:
        """All crops of the set as a COCO file (see ``export``)."""
        return self.root / "negatives.json"

    @property
    def prefix(self) -> str:
        """What the names of the round's crops begin with."""
        return f"{self.label}{self.number:03}"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this round from others, as JSON values."""
        return {
            "round": self.number,
            "checkpoint": self.source.name,
            "pool": self.source.pool.name,
            "state": self.source.pool.state,
            "pool_images": len(self.source.pool),
            "pool_sha256": _digest(self.source.pool),
            "crops_before": len(self.negatives.crops),
            "part": self.part[0] + 1,
            "parts": self.part[1],
            "settings": asdict(self.settings),
            "marks": self.marks.digest if self.marks.marks else None,
        }


@dataclass(frozen=True, eq=False)
class MinedRound:
    """What a round gave."""

    negatives: NegativeSet
    """The set after the round."""
    summary: dict[str, Any]
    """The content of summary.json."""


def mine(told: MiningRound) -> MinedRound:
    """Do a round, or go on with one that was interrupted.

    Raises:
        DataError: an image or a file of the round cannot be used, the round was begun with something else, or the
            threshold is a percentile of the scores of true positives, and the pool has no object. Where it has, but
            none was found, as by a detector that has just begun to learn, nothing is mined.
    """
    if not len(told.source.pool.ground_truth):
        told.settings.least_score(np.zeros(0))
    lines = run_scan(_scan(told), told.folder / SCAN, told.source.detect)
    threshold = _least_score(told, lines)
    candidates = [_above(candidate, threshold) for line in lines for candidate in line.candidates]
    writer = CropWriter(
        told.source.pool,
        {line.image: line.input_size for line in lines},
        told.crops,
        told.prefix,
        told.file_format,
    )
    pending = [candidate for candidate in candidates if candidate.decision == Decision.PENDING]
    chosen = choose_crops(
        sorted(pending, key=lambda candidate: -candidate.score),
        writer,
        limit=told.settings.per_round,
        alike_bits=told.settings.alike_bits,
        known_hashes=told.negatives.crops.hashes,
    )
    settled = [candidate for candidate in candidates if candidate.decision != Decision.PENDING]
    return _record(
        told, lines, [*chosen.decided, *settled], chosen.hashes, writer=writer, threshold=threshold
    )


def negatives_before(root: Path, number: int, *, capacity: int | None, label: str = "round") -> NegativeSet:
    """The negatives that a round adds to: those that the round before left.

    Args:
        root: the folder of all rounds.
        number: of the round that is about to be done; the first one begins with nothing.
        capacity: crops of all rounds; None has no end.
        label: as of ``MiningRound``.

    Raises:
        DataError: the round before left no set, or one that cannot be read.
    """
    if number <= 1:
        return NegativeSet.empty(capacity=capacity)
    return replace(load_negative_set(_folder(root, label, number - 1) / NEGATIVES), capacity=capacity)


def refuse_begun(told: MiningRound, *, resume: bool, overwrite: bool) -> None:
    """Make sure that a round's folder is fit to be mined into; nothing is removed here, see ``remove_round``.

    Args:
        told: the round.
        resume: go on with what is there.
        overwrite: do it anew.

    Raises:
        ConfigError: the round has been begun, and neither is asked for; or one is, and the next round builds on it.
    """
    later = _folder(told.root, told.label, told.number + 1)
    if (resume or overwrite) and later.exists():
        raise ConfigError(
            f"{later}: builds on round {told.number}; move it away before you do that round again"
        )
    if (told.folder / SCAN).exists() and not (resume or overwrite):
        raise ConfigError(
            f"{told.folder}: round {told.number} was begun already; go on with it (--resume), do it anew "
            f"(--overwrite), or do the next one (--round {told.number + 1})"
        )


def remove_round(told: MiningRound) -> None:
    """Remove what is there of a round."""
    for name in (SUMMARY, NEGATIVES, MANIFEST, SCAN):
        (told.folder / name).unlink(missing_ok=True)
    # Those too that a kill left half written.
    for pattern in (f"{told.prefix}-*", f".{told.prefix}-*.part"):
        for crop in told.crops.glob(pattern):
            crop.unlink()


def _folder(root: Path, label: str, number: int) -> Path:
    return root / f"{label}_{number:03}"


def _digest(pool: Pool) -> str:
    """Of the names of the images and of their objects: places in the pool mean the same where this is the same."""
    truth = pool.ground_truth
    columns = (truth.image_ids, truth.object_image_ids, truth.object_category_ids, truth.boxes, truth.crowd)
    digest = hashlib.sha256("\n".join(pool.names.tolist()).encode("utf-8", "surrogateescape"))
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def _true_positives(lines: Sequence[ScannedImage]) -> np.ndarray:
    """Their scores, [T]."""
    return np.array([score for line in lines for score in line.true_positives])


def _least_score(told: MiningRound, lines: Sequence[ScannedImage]) -> float:
    scores = _true_positives(lines)
    if isinstance(told.settings.threshold, str) and not len(scores):
        warn(
            f"threshold {told.settings.threshold}: no object was found in the images that were scanned, so that "
            "nothing is mined; a score such as 0.1 would do without"
        )
        return 1.0
    return told.settings.least_score(scores)


def _scan(told: MiningRound) -> Scan:
    pool = told.source.pool
    return Scan(
        pool=pool,
        images=told.images,
        settings=told.settings,
        input_size=told.source.input_size,
        identity=told.identity,
        ignore=set_aside(told.root, told.label, pool, told.marks, before=told.number),
        known=told.negatives.crops,
        accepted=told.marks.boxes("accepted"),
    )


def _above(candidate: Candidate, threshold: float) -> Candidate:
    """The candidate; below the threshold, as far as nothing more was decided of it, with that decision."""
    if candidate.score >= threshold or candidate.decision == Decision.QUARANTINED:
        return candidate
    return candidate.decided(Decision.BELOW_THRESHOLD, f"scores less than {threshold:.3g}")


def _record(
    told: MiningRound,
    lines: list[ScannedImage],
    candidates: list[Candidate],
    hashes: np.ndarray,
    *,
    writer: CropWriter,
    threshold: float,
) -> MinedRound:
    """Update the set and write all files; ``hashes`` are those of the kept candidates, in their order."""
    windows = _windows_in_source(candidates, lines)
    kept = [row for row, candidate in enumerate(candidates) if candidate.decision == Decision.KEPT]
    new = _as_crops(told, [candidates[row] for row in kept], windows[kept], hashes, writer)
    negatives = told.negatives.with_scores(_latest_scores(told, lines))
    suspects = [candidate for candidate in candidates if candidate.decision == Decision.QUARANTINED]
    negatives, doubtful = negatives.without(negatives.crops.touching(_doubts(told, suspects)))
    negatives, evicted = negatives.with_crops(new)
    no_room = f"easier than all of a full set of {negatives.capacity}"
    old = evicted.select(~np.isin(evicted.files, new.files))
    for row, file in zip(kept, new.files.tolist(), strict=True):
        if file in evicted.files:
            candidates[row] = candidates[row].decided(Decision.EVICTED, no_room)
    rows = manifest_rows(candidates, windows, writer, number=told.number, checkpoint=told.source.name)
    left = {no_room: old, "holds what may be an object, as this round or a person says": doubtful}
    write_manifest(told.folder / MANIFEST, told.identity, [*_hardest_first(rows), *_left(told, left)])
    if told.source.pool.state == "unverified":
        sizes = {line.image: line.size for line in lines}
        write_quarantine(told.quarantine, told.source.pool, suspects, sizes, told.number)
    negatives.save(told.folder / NEGATIVES)
    write_coco_negatives(told.coco, negatives.crops, told.source.pool.ground_truth.names)
    summary = {
        **summarise(lines, candidates, threshold=threshold),
        **told.identity,
        "evicted": len(evicted) + len(doubtful),
        "crops": len(negatives.crops),
    }
    write_json(told.folder / SUMMARY, summary)
    return MinedRound(negatives, summary)


def _hardest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["score"])


def _left(told: MiningRound, crops: Mapping[str, MinedCrops]) -> list[dict[str, Any]]:
    """The lines of crops of earlier rounds that left the set, by why they did."""
    names = told.source.pool.ground_truth.names
    return [
        row for reason, some in crops.items() for row in evicted_rows(some, names, told.source.name, reason)
    ]


def _doubts(told: MiningRound, suspects: Sequence[Candidate]) -> list[tuple[str, Sequence[float]]]:
    """The file and box of all that this round or one before it sets aside, and of all that a person rejected.

    Those of earlier rounds again, for a round that was undone has put back the crops that it took out.
    """
    pool = told.source.pool
    return [
        *((str(pool.files[suspect.image]), suspect.box) for suspect in suspects),
        *pool.files_of(set_aside(told.root, told.label, pool, told.marks, before=told.number)),
    ]


def _windows_in_source(candidates: Sequence[Candidate], lines: Sequence[ScannedImage]) -> np.ndarray:
    """What is cut out for each candidate, xyxy in pixels of its source, float64 [N, 4]; NaN where nothing is."""
    scale = {line.image: np.divide(line.size, line.input_size)[[1, 0, 1, 0]] for line in lines}
    nothing = np.full(4, np.nan)
    rows = [
        nothing if candidate.window is None else np.array(candidate.window) * scale[candidate.image]
        for candidate in candidates
    ]
    return np.array(rows).reshape(-1, 4)


def _as_crops(
    told: MiningRound,
    kept: Sequence[Candidate],
    windows: np.ndarray,
    hashes: np.ndarray,
    writer: CropWriter,
) -> MinedCrops:
    count = len(kept)
    cut = np.array([candidate.window for candidate in kept], dtype=np.int32).reshape(-1, 4)
    return MinedCrops(
        files=np.array([writer.name_of(candidate) for candidate in kept], dtype=str),
        sizes=np.stack([cut[:, 3] - cut[:, 1], cut[:, 2] - cut[:, 0]], axis=1),
        sources=told.source.pool.files[[candidate.image for candidate in kept]].astype(str),
        boxes=np.array([candidate.box for candidate in kept], dtype=np.float32).reshape(-1, 4),
        windows=windows.astype(np.float32).reshape(-1, 4),
        category_ids=np.array([candidate.category_id for candidate in kept], dtype=np.int64),
        scores=np.array([candidate.score for candidate in kept], dtype=np.float32),
        rounds=np.full(count, told.number, dtype=np.int32),
        hashes=hashes,
    )


def _latest_scores(told: MiningRound, lines: Sequence[ScannedImage]) -> np.ndarray:
    """The scores of the crops there are, float32 [N]: of the hardest false positive that now lies in each.

    Where the detector no longer finds any, the score is 0; of images that were not scanned it stays.
    """
    crops = told.negatives.crops
    scores = crops.scores.copy()
    found = {str(told.source.pool.real_files[line.image]): line.candidates for line in lines}
    for row, source in enumerate(crops.real_sources.tolist()):
        if source in found:
            boxes = np.array([candidate.box for candidate in found[source]]).reshape(-1, 4)
            inside = holds(crops.windows[row : row + 1], boxes)[0]
            latest = np.array([candidate.score for candidate in found[source]])
            scores[row] = latest[inside].max(initial=0)
    return scores
