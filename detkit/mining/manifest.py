"""What a round of mining did: every false positive that was looked at, what became of it, and the counts.

``manifest.jsonl``, format version 1, holds JSON objects, one a line. The first has ``format`` ("detkit mining
manifest"), ``format_version`` and what the round was told. Each other line is a false positive:

- ``file``, ``sha256``: the source image; ``box``: xyxy in its pixels; ``score``; ``category_id``, ``class``: what the
  detector took it for; ``nearest_iou``: IoU with the nearest object;
- ``round``, ``checkpoint``: when, and what found it;
- ``decision`` (see ``mining.decision``) and ``reason``;
- ``window``: what was cut out, or would have been: xyxy in pixels of the source, null for none; ``crop``: the file's
  name, null where there is none.

A crop of an earlier round that had to make room has a line too: ``round`` is when it joined, ``sha256`` and
``nearest_iou`` are null.

``summary.json``, format version 1: what the round was told, and ``images`` scanned; ``detections`` by kind;
``threshold``, the least score; ``candidates`` and ``decisions``, the number of each; ``kept``; ``evicted``; ``crops``
in the negative set now; ``acceptance_ratio``, new crops for each image scanned: it falls as the detector learns (the
measure of opencv_traincascade, which counts windows).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from detkit.errors import DataError
from detkit.files import sha256_of, write_text
from detkit.mining.candidates import Candidate
from detkit.mining.crops import CropWriter
from detkit.mining.decision import Decision
from detkit.mining.negative_set import MinedCrops
from detkit.mining.pool import Pool
from detkit.mining.scan import ScannedImage

FORMAT = "detkit mining manifest"
FORMAT_VERSION = 1
_WITH_FILE = {Decision.KEPT, Decision.EVICTED}


def manifest_rows(
    candidates: Sequence[Candidate], windows: np.ndarray, writer: CropWriter, *, number: int, checkpoint: str
) -> list[dict[str, Any]]:
    """The lines of the false positives of a round.

    Args:
        candidates: with their decisions.
        windows: what is cut out for each, xyxy in pixels of the source, [N, 4]; NaN where nothing is.
        writer: names the files of crops.
        number: the round.
        checkpoint: what found them.
    """
    pool = writer.pool
    digests = _digests(pool, sorted({candidate.image for candidate in candidates}))
    names = pool.ground_truth.names
    return [
        {
            "file": str(pool.files[candidate.image]),
            "sha256": digests[candidate.image],
            "box": list(candidate.box),
            "score": candidate.score,
            "category_id": candidate.category_id,
            "class": names[candidate.category_id],
            "nearest_iou": candidate.nearest_iou,
            "round": number,
            "checkpoint": checkpoint,
            "decision": candidate.decision,
            "reason": candidate.reason,
            "window": None if candidate.window is None else window,
            "crop": writer.name_of(candidate) if candidate.decision in _WITH_FILE else None,
        }
        for candidate, window in zip(candidates, windows.tolist(), strict=True)
    ]


def evicted_rows(
    crops: MinedCrops, class_names: Mapping[int, str], checkpoint: str, reason: str
) -> list[dict[str, Any]]:
    """The lines of crops of earlier rounds that had to make room."""
    return [
        {
            "file": str(crops.sources[row]),
            "sha256": None,
            "box": crops.boxes[row].tolist(),
            "score": float(crops.scores[row]),
            "category_id": int(crops.category_ids[row]),
            "class": class_names.get(int(crops.category_ids[row])),
            "nearest_iou": None,
            "round": int(crops.rounds[row]),
            "checkpoint": checkpoint,
            "decision": Decision.EVICTED,
            "reason": reason,
            "window": crops.windows[row].tolist(),
            "crop": str(crops.files[row]),
        }
        for row in range(len(crops))
    ]


def write_manifest(path: Path, identity: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write a manifest, whole or not at all."""
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, **identity}
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in (header, *rows)))


def read_manifest(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header and the lines of a manifest.

    Raises:
        DataError: the file is not there, is no manifest, or has a format version that this detkit does not know.
    """
    try:
        header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        version = header["format_version"] if header["format"] == FORMAT else None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; mine first") from None
    except (ValueError, KeyError, TypeError):
        version = None
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: is no manifest of format version {FORMAT_VERSION}; mine again")
    return header, rows


def summarise(
    lines: Sequence[ScannedImage], candidates: Sequence[Candidate], *, threshold: float
) -> dict[str, Any]:
    """The counts of a round, as far as they follow from its images and false positives."""
    kinds: Counter[str] = Counter()
    for line in lines:
        kinds.update(line.kinds)
    decisions = Counter(candidate.decision.value for candidate in candidates)
    kept = decisions[Decision.KEPT.value]
    return {
        "format_version": FORMAT_VERSION,
        "images": len(lines),
        "detections": dict(sorted(kinds.items())),
        "threshold": threshold,
        "candidates": len(candidates),
        "decisions": dict(decisions.most_common()),
        "kept": kept,
        "acceptance_ratio": kept / len(lines),
    }


def _digests(pool: Pool, images: Sequence[int]) -> dict[int, str]:
    with ThreadPoolExecutor() as threads:
        return dict(zip(images, threads.map(sha256_of, pool.files[list(images)].tolist()), strict=True))
