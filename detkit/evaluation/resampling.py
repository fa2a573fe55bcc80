"""Metrics of a run on any multiset of its images, from matches that are made once.

A bootstrap measures a run on thousands of resamples of its images. Detections are matched within an image, so
copies of an image change no match: each row only counts as often as its image was drawn. What is left of a
resample is a weighted cumulative sum over the detections in the order of their scores.

AP, AP50, AP75 and AR100 equal those of ``coco_metrics.evaluate_boxes`` on the images really copied, where an
image's detections of one class have different scores. Where they are equal, COCO's number depends on the order
of copies: here an image's copies of one detection stand together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detkit.evaluation.detection_curve import SLACK, last_of_equals
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.matching import Matches, match_detections
from detkit.evaluation.results import DetectionTable

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
"""COCO's, to the last bit: a recall that falls on a point must fall on it here too."""
DETECTIONS = 100
"""An image and class, surest first; COCO's limit, and of no account for the curve over all classes."""
BATCH = 1 << 21
"""Elements of the largest temporary array, which bounds the memory."""


@dataclass(frozen=True)
class ClassRanking:
    """The detections of one class, surest first, and what they find at each of the ten IoUs."""

    images: np.ndarray
    """Index of the image of each row: int64 [D]."""
    found: tuple[np.ndarray, ...]
    """For each IoU the rows that find an object: int64."""
    ignored: tuple[np.ndarray, ...]
    """For each IoU the rows on a crowd: int64."""
    objects: np.ndarray
    """How many each image has, crowds left out: int64 [I]."""

    def measure(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Average precision and highest recall at each IoU.

        Args:
            counts: how often each image is there, int64 [B, I].

        Returns:
            Two of float64 [10, B]; NaN where the resample has no object of the class.
        """
        objects = counts @ self.objects
        weights = np.take(counts, self.images, axis=1)
        rows = np.cumsum(weights, axis=1)
        precisions, recalls = np.zeros((2, len(IOUS), len(counts)))
        for index, (found, ignored) in enumerate(zip(self.found, self.ignored, strict=True)):
            true = np.cumsum(np.take(weights, found, axis=1), axis=1)
            if len(found):
                counted = np.take(rows, found, axis=1) - _ignored_before(weights, found, ignored)
                precisions[index] = average_precision(true, counted, objects)
                recalls[index] = true[:, -1] / np.maximum(objects, 1)
        nothing = objects == 0
        precisions[:, nothing] = recalls[:, nothing] = np.nan
        return precisions, recalls


@dataclass(frozen=True)
class PooledRanking:
    """The detections of all classes, surest first, at IoU .5; those on crowds left out."""

    images: np.ndarray
    """Index of the image of each row: int64 [D]."""
    correct: np.ndarray
    """bool [D]."""
    last: np.ndarray
    """The rows after which the score falls, where a threshold may lie: int64 [T]."""
    objects: np.ndarray
    """How many each image has, crowds left out: int64 [I]."""

    def counts(self, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
        """True and false positives at each threshold (int64 [T]), objects and images of one resample."""
        weights = count[self.images]
        true = np.cumsum(weights * self.correct)[self.last]
        return true, np.cumsum(weights)[self.last] - true, int(count @ self.objects), int(count.sum())


@dataclass(frozen=True)
class MatchedDetections:
    """The detections of a run, matched once, to be measured on any multiset of the images.

    ``counts`` is in all methods how often each image is there: integers [R, I], images in the order of the
    ground truth's ``image_ids``. Nothing to measure, or a recall that is not reached, is NaN.
    """

    classes: tuple[ClassRanking, ...]
    pooled: PooledRanking

    def precision_and_recall(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """AP, AP50, AP75 and AR100 of each resample, float64 [R]."""
        shape = (len(self.classes), len(IOUS), len(counts))
        precisions, recalls = np.full(shape, np.nan), np.full(shape, np.nan)
        for index, ranking in enumerate(self.classes):
            for part in _batches(len(counts), len(ranking.images)):
                precisions[index, :, part], recalls[index, :, part] = ranking.measure(counts[part])
        # Every IoU has the same classes without objects, so that a mean of means is COCO's mean of all.
        precision = _mean_of_measured(precisions)
        return {
            "AP": precision.mean(axis=0),
            "AP50": precision[0],
            "AP75": precision[5],
            "AR100": _mean_of_measured(recalls).mean(axis=0),
        }

    def recall_at(self, counts: np.ndarray, false_positives_per_image: Sequence[float]) -> np.ndarray:
        """``DetectionCurve.recall_at`` of each resample, float64 [R, levels]."""
        found = np.full((len(counts), len(false_positives_per_image)), np.nan)
        levels = np.asarray(false_positives_per_image, dtype=np.float64)
        for row, count in enumerate(counts):
            true, false, objects, images = self.pooled.counts(count)
            if objects:
                points = np.searchsorted(false, levels * images + SLACK, side="right")
                found[row] = np.append(0, true)[points] / objects
        return found

    def false_positives_at(self, counts: np.ndarray, recalls: np.ndarray) -> np.ndarray:
        """``DetectionCurve.false_positives_at`` of each resample.

        Args:
            recalls: the levels, float64 [L], or [R, L] where each resample has its own; NaN gives NaN.

        Returns:
            float64 [R, L].
        """
        levels = np.broadcast_to(recalls, (len(counts), recalls.shape[-1]))
        found = np.full(levels.shape, np.nan)
        for row, count in enumerate(counts):
            true, false, objects, images = self.pooled.counts(count)
            if objects:
                points = np.searchsorted(np.append(0, true), levels[row] * objects - SLACK)
                found[row] = np.concatenate([[0], false, [np.nan]])[points] / images
        return found

    def highest_recall(self, counts: np.ndarray) -> np.ndarray:
        """``DetectionCurve.highest_recall`` of each resample, float64 [R]."""
        found = counts @ np.bincount(
            self.pooled.images[self.pooled.correct], minlength=len(self.pooled.objects)
        )
        objects = counts @ self.pooled.objects
        return np.divide(found, objects, out=np.full(len(counts), np.nan), where=objects > 0)


def match_once(ground_truth: GroundTruth, table: DetectionTable) -> MatchedDetections:
    """Match a run's detections at COCO's ten IoUs.

    Args:
        ground_truth: the objects.
        table: detections of images and classes that the ground truth knows (see ``results.restrict``).
    """
    matches = [match_detections(ground_truth, table, iou=iou) for iou in IOUS.tolist()]
    order = np.argsort(ground_truth.image_ids, kind="stable")
    images = order[np.searchsorted(ground_truth.image_ids, table.image_ids, sorter=order)]
    return MatchedDetections(
        classes=tuple(
            _class_ranking(ground_truth, table, category_id, images, matches)
            for category_id in ground_truth.category_ids
        ),
        pooled=_pooled_ranking(ground_truth, table, images, matches[0]),
    )


def _class_ranking(
    ground_truth: GroundTruth,
    table: DetectionTable,
    category_id: int,
    images: np.ndarray,
    matches: Sequence[Matches],
) -> ClassRanking:
    rows = np.flatnonzero(table.category_ids == category_id)
    # Of equal scores, first the image with the lower id and then the earlier row, as pycocotools has it.
    by_image = rows[np.lexsort((-table.scores[rows], table.image_ids[rows]))]
    starts = np.searchsorted(table.image_ids[by_image], table.image_ids[by_image])
    by_image = by_image[np.arange(len(by_image)) - starts < DETECTIONS]
    ranked = by_image[np.argsort(-table.scores[by_image], kind="stable")]
    return ClassRanking(
        images=images[ranked],
        found=tuple(np.flatnonzero(match.correct[ranked]) for match in matches),
        ignored=tuple(np.flatnonzero(match.ignored[ranked]) for match in matches),
        objects=_objects_per_image(ground_truth, ground_truth.object_category_ids == category_id),
    )


def _pooled_ranking(
    ground_truth: GroundTruth, table: DetectionTable, images: np.ndarray, matches: Matches
) -> PooledRanking:
    counted = np.flatnonzero(~matches.ignored)
    ranked = counted[np.argsort(-table.scores[counted], kind="stable")]
    return PooledRanking(
        images=images[ranked],
        correct=matches.correct[ranked],
        last=last_of_equals(table.scores[ranked]),
        objects=_objects_per_image(ground_truth, np.ones(len(ground_truth), dtype=bool)),
    )


def _objects_per_image(ground_truth: GroundTruth, wanted: np.ndarray) -> np.ndarray:
    """How many of the wanted objects (bool [G]) each image has, crowds left out; int64 [I]."""
    ids, counts = np.unique(ground_truth.object_image_ids[wanted & ~ground_truth.crowd], return_counts=True)
    per_id = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return np.array([per_id.get(id_, 0) for id_ in ground_truth.image_ids.tolist()], dtype=np.int64)


def _ignored_before(weights: np.ndarray, found: np.ndarray, ignored: np.ndarray) -> np.ndarray | int:
    """How many ignored rows, copies counted, stand above each found one; [B, found]."""
    if not len(ignored):
        return 0
    total = np.cumsum(np.take(weights, ignored, axis=1), axis=1)
    total = np.concatenate([np.zeros_like(total[:, :1]), total], axis=1)
    return np.take(total, np.searchsorted(ignored, found), axis=1)


def average_precision(true: np.ndarray, counted: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The mean over 101 recalls of the highest precision at that recall or above (COCO's AP).

    Only rows that find an object are needed: recall grows there, and precision falls between them.

    Args:
        true: objects found up to each such row, int64 [B, F].
        counted: detections up to it, int64 [B, F].
        objects: int64 [B].

    Returns:
        float64 [B].
    """
    precision = true / (counted + np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = true / np.maximum(objects, 1)[:, None]
    reached = np.searchsorted(RECALLS, recall, side="right")
    reached[:, 1:] -= reached[:, :-1].copy()
    return np.einsum("bf,bf->b", reached, highest) / len(RECALLS)


def _batches(resamples: int, rows: int) -> Iterator[slice]:
    step = max(1, BATCH // max(rows, 1))
    return (slice(start, start + step) for start in range(0, resamples, step))


def _mean_of_measured(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN; NaN where nothing is."""
    measured = ~np.isnan(values)
    total = np.where(measured, values, 0).sum(axis=0)
    number = measured.sum(axis=0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
