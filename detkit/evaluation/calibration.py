"""Whether a score is the chance of being right: reliability (Guo et al., 2017, section 2), of detections."""

from dataclasses import dataclass

import numpy as np

from detkit.evaluation.detection_errors import ClassifiedDetections, DetectionKind
from detkit.evaluation.results import DetectionTable


@dataclass(frozen=True)
class Calibration:
    """Detections in bins of equal width over the scores from 0 to 1; those that are ignored are left out."""

    edges: np.ndarray
    """float64 [B + 1]."""
    counts: np.ndarray
    """Detections of each bin, int64 [B]."""
    scores: np.ndarray
    """Their mean score, NaN in an empty bin: float64 [B]."""
    precisions: np.ndarray
    """The share that is correct, NaN in an empty bin: float64 [B]."""

    @property
    def error(self) -> float | None:
        """The expected calibration error: how far scores and precisions lie apart, over all detections; None
        without any."""
        total = int(self.counts.sum())
        if not total:
            return None
        filled = self.counts > 0
        gaps = np.abs(self.scores - self.precisions)[filled]
        return float((self.counts[filled] * gaps).sum() / total)


def calibration(table: DetectionTable, classified: ClassifiedDetections, *, bins: int = 10) -> Calibration:
    """Compare scores with the share of detections that are correct.

    Args:
        table: detections with scores from 0 to 1.
        classified: what each of them is.
        bins: of equal width.
    """
    kept = classified.kinds != DetectionKind.IGNORED
    scores = table.scores[kept].astype(np.float64)
    correct = classified.kinds[kept] == DetectionKind.CORRECT
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    many = np.where(counts > 0, counts, np.nan)
    return Calibration(
        edges,
        counts,
        scores=np.bincount(places, weights=scores, minlength=bins) / many,
        precisions=np.bincount(places, weights=correct, minlength=bins) / many,
    )
