"""The false positives of one image: ranked, freed of overlaps, and given the windows of their crops."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torchvision.ops import nms

from detkit.evaluation import DetectionTable
from detkit.mining.crop_windows import Box, place_window
from detkit.mining.decision import Decision
from detkit.mining.review import at_marked
from detkit.mining.settings import MiningSettings

COVERED = 0.9
"""A false positive of which a crop holds this share needs no crop of its own."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A false positive on background, and what became of it."""

    image: int
    """Its place in the pool."""
    box: tuple[float, float, float, float]
    """xyxy in pixels of the original image."""
    score: float
    category_id: int
    nearest_iou: float
    """IoU with the nearest object, 0 where there is none."""
    decision: Decision = Decision.PENDING
    reason: str = ""
    window: Box | None = None
    """Where its crop is, in pixels of the image as the detector sees it; None where there is no crop."""

    def decided(self, decision: Decision, reason: str = "") -> "Candidate":
        """The same false positive with another decision."""
        return replace(self, decision=decision, reason=reason)


@dataclass(frozen=True, eq=False)
class FalsePositives:
    """The background errors of one image, in any order, and what else is in it."""

    image: int
    table: DetectionTable
    """Boxes are in pixels of the original image."""
    nearest_ious: np.ndarray
    """IoU of each with the nearest object, [D]."""
    obstacles: np.ndarray
    """Objects, crowds and ignore regions that crops keep out of, xyxy in pixels of the original image, [O, 4]."""
    known: np.ndarray
    """Windows of crops that earlier rounds cut from this image, xyxy in pixels of the original, [W, 4]."""
    size: tuple[int, int]
    """(height, width) of the original image."""
    input_size: tuple[int, int]
    """(height, width) of the image as the detector sees it."""
    accepted: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    """What a person called background, xyxy in pixels of the original, [A, 4]: never set aside."""


def find_candidates(found: FalsePositives, settings: MiningSettings, *, quarantine: bool) -> list[Candidate]:
    """Decide about the false positives of one image, hardest first; those that can become crops are pending.

    What is decided about one does not depend on easier ones, so that the score threshold can be applied later.

    Args:
        found: the false positives.
        settings: limits and geometry.
        quarantine: set aside what scores ``settings.quarantine_score`` or more and nobody accepted, and keep all crops
            out of it.
    """
    order = np.argsort(-found.table.scores, kind="stable")
    found = replace(found, table=found.table.select(order), nearest_ious=found.nearest_ious[order])
    candidates = _candidates(found)
    boxes = found.table.boxes
    suspect = (
        quarantine & (found.table.scores >= settings.quarantine_score) & ~at_marked(boxes, found.accepted)
    )
    for row in np.flatnonzero(suspect):
        reason = f"scores {settings.quarantine_score:g} or more in an unverified pool"
        candidates[row] = candidates[row].decided(Decision.QUARANTINED, reason)
    found = replace(found, obstacles=np.concatenate([found.obstacles, boxes[suspect]]))
    _suppress_overlaps(candidates, boxes, np.flatnonzero(~suspect), settings)
    _place(candidates, found, settings)
    return candidates


def _candidates(found: FalsePositives) -> list[Candidate]:
    table = found.table
    columns = (table.boxes, table.scores, table.category_ids, found.nearest_ious)
    return [
        Candidate(found.image, tuple(box), score, category_id, iou)
        for box, score, category_id, iou in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _suppress_overlaps(
    candidates: list[Candidate], boxes: np.ndarray, rows: np.ndarray, settings: MiningSettings
) -> None:
    """Non-maximum suppression of these rows, over all classes."""
    # The rows are in order already; equal scores must stay so.
    ranks = torch.arange(len(rows), 0, -1, dtype=torch.float64)
    kept = nms(torch.from_numpy(boxes[rows].astype(np.float64)), ranks, settings.overlap_iou).numpy()
    reason = f"overlaps a harder one by an IoU above {settings.overlap_iou:g}"
    for row in np.delete(rows, kept):
        candidates[row] = candidates[row].decided(Decision.DUPLICATE, reason)


def _place(candidates: list[Candidate], found: FalsePositives, settings: MiningSettings) -> None:
    """Give windows to the hardest pending ones, up to the image's limit."""
    scale = np.tile(np.array(found.input_size[::-1]) / np.array(found.size[::-1]), 2)
    boxes, obstacles = found.table.boxes * scale, found.obstacles * scale
    known, placed = found.known * scale, np.zeros((0, 4))
    for row, candidate in enumerate(candidates):
        if candidate.decision != Decision.PENDING:
            continue
        if holds(known, boxes[row : row + 1]).any():
            candidates[row] = candidate.decided(Decision.KNOWN, "inside a crop of an earlier round")
        elif holds(placed, boxes[row : row + 1]).any():
            candidates[row] = candidate.decided(Decision.DUPLICATE, "inside the crop of a harder one")
        elif len(placed) == settings.per_image:
            reason = f"the image has {settings.per_image} harder ones"
            candidates[row] = candidate.decided(Decision.OVER_IMAGE_LIMIT, reason)
        else:
            placement = place_window(boxes[row], obstacles, found.input_size, settings)
            candidates[row] = replace(candidate, **placement._asdict())
            if placement.window is not None:
                placed = np.concatenate([placed, [placement.window]])


def holds(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which windows, xyxy [W, 4], hold which boxes [B, 4] nearly whole (``COVERED`` of each): bool [W, B]."""
    top_left = np.maximum(windows[:, None, :2], boxes[:, :2])
    bottom_right = np.minimum(windows[:, None, 2:], boxes[:, 2:])
    inside = (bottom_right - top_left).clip(min=0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return (inside >= COVERED * areas) & (areas > 0)
