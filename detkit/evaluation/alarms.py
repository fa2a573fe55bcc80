"""False alarms: how many images that hold no object set the detector off."""

from dataclasses import dataclass

import numpy as np

from detkit.evaluation.detection_curve import SLACK
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.results import DetectionTable


@dataclass(frozen=True)
class Alarms:
    """The images without objects, by the score of the surest detection in each."""

    images: int
    """How many there are; an image with a crowd is none of them."""
    scores: np.ndarray
    """Of those that have a detection, its highest score, ascending: float64 [S]."""

    def rate(self, score: float) -> float | None:
        """Share of the images without objects that have a detection of this score or more; None without any."""
        loud = len(self.scores) - int(np.searchsorted(self.scores, score, side="left"))
        return loud / self.images if self.images else None

    def score_at(self, rate: float) -> float | None:
        """The least of the scores at which no more than this share of the images has an alarm.

        0 where that holds for all detections together, and None without images to look at, or where not even the
        highest score is rare enough.
        """
        if not self.images:
            return None
        candidates = np.append(0.0, np.unique(self.scores))
        loud = len(self.scores) - np.searchsorted(self.scores, candidates, side="left")
        quiet = np.flatnonzero(loud <= rate * self.images + SLACK)
        return float(candidates[quiet[0]]) if len(quiet) else None


def alarms(ground_truth: GroundTruth, table: DetectionTable) -> Alarms:
    """Look at the images without objects alone.

    Args:
        ground_truth: the objects; an image is without any if it has no row there.
        table: the detections, of every class.
    """
    empty = np.setdiff1d(ground_truth.image_ids, ground_truth.object_image_ids)
    rows = np.isin(table.image_ids, empty)
    loud, places = np.unique(table.image_ids[rows], return_inverse=True)
    highest = np.full(len(loud), -np.inf)
    np.maximum.at(highest, places, table.scores[rows])
    return Alarms(len(empty), np.sort(highest))
