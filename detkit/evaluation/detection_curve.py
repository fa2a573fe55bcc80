"""What every score threshold gives: precision, recall and false positives per image, over all classes together.

Recall against false positives per image is the free-response ROC curve (Bunch et al., 1977): unlike average
precision it says what a user of one threshold gets, and how often the detector fires on background.
"""

from dataclasses import dataclass

import numpy as np

from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.matching import match_detections
from detkit.evaluation.results import DetectionTable

SLACK = 1e-9
"""Added where a level times a count is compared with a count, so that .1 x 30 images allows 3."""


@dataclass(frozen=True)
class DetectionCurve:
    """Detections counted at each score threshold, highest first; those on crowds count neither way.

    A threshold takes all detections of a score or none, so there is a point for each different score.
    """

    scores: np.ndarray
    """The thresholds, each a score that occurs: float64 [T]."""
    true_positives: np.ndarray
    """Detections of at least that score that find an object: int64 [T]."""
    false_positives: np.ndarray
    """The others: int64 [T]."""
    objects: int
    """Crowds left out."""
    images: int

    @property
    def recall(self) -> np.ndarray:
        """Share of the objects found, float64 [T]; NaN without objects."""
        return self.true_positives / (self.objects or np.nan)

    @property
    def precision(self) -> np.ndarray:
        """Share of the detections that find an object, float64 [T]."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall, float64 [T]; NaN without objects."""
        counted = self.true_positives + self.false_positives + (self.objects or np.nan)
        return 2 * self.true_positives / counted

    @property
    def best(self) -> int | None:
        """The point with the highest F1, of equal ones that of the highest score; None where no detection is right."""
        return int(np.argmax(self.f1)) if self.objects and self.true_positives.any() else None

    @property
    def false_positives_per_image(self) -> np.ndarray:
        """float64 [T]; NaN without images."""
        return self.false_positives / (self.images or np.nan)

    @property
    def highest_recall(self) -> float | None:
        """The recall of all detections together; None without objects."""
        if not self.objects:
            return None
        return float(self.recall[-1]) if len(self.scores) else 0.0

    def recall_at(self, false_positives_per_image: float) -> float | None:
        """The highest recall with at most so many false positives per image; None without objects.

        Where all detections together make fewer, it is the recall of all.
        """
        if not self.objects:
            return None
        allowed = false_positives_per_image * self.images + SLACK
        points = int(np.searchsorted(self.false_positives, allowed, side="right"))
        return float(self.recall[points - 1]) if points else 0.0

    def false_positives_at(self, recall: float) -> float | None:
        """The fewest false positives per image with at least this recall; None where it is never reached."""
        if recall <= 0 and self.objects:
            return 0.0  # no detection is needed
        point = self._first_at(recall)
        return None if point is None else float(self.false_positives_per_image[point])

    def score_at(self, recall: float) -> float | None:
        """The highest threshold with at least this recall; None where it is never reached."""
        point = self._first_at(recall)
        return None if point is None else float(self.scores[point])

    def precision_at(self, recall: float) -> float | None:
        """The precision at ``score_at``; None where the recall is never reached."""
        point = self._first_at(recall)
        return None if point is None else float(self.precision[point])

    def _first_at(self, recall: float) -> int | None:
        point = int(np.searchsorted(self.true_positives, recall * self.objects - SLACK))
        return point if self.objects and point < len(self.scores) else None


def detection_curve(ground_truth: GroundTruth, table: DetectionTable, *, iou: float = 0.5) -> DetectionCurve:
    """Count right and wrong detections at every score.

    Args:
        ground_truth: the objects.
        table: detections of images and classes that the ground truth knows (see ``results.restrict``).
        iou: the least overlap of a detection with the object that it finds.
    """
    matches = match_detections(ground_truth, table, iou=iou)
    counted = ~matches.ignored
    order = np.argsort(-table.scores[counted], kind="stable")
    scores = table.scores[counted][order].astype(np.float64)
    correct = matches.correct[counted][order]
    last = last_of_equals(scores)
    return DetectionCurve(
        scores=scores[last],
        true_positives=np.cumsum(correct)[last],
        false_positives=np.cumsum(~correct)[last],
        objects=sum(ground_truth.objects_per_class()),
        images=len(ground_truth.image_ids),
    )


def last_of_equals(values: np.ndarray) -> np.ndarray:
    """Indices of the last of each run of equal values; int64."""
    return np.flatnonzero(np.append(values[1:] != values[:-1], True)[: len(values)])
