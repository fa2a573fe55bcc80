"""What each kind of error costs: the average precision without the errors of a kind, less what it is with them.

The errors and how each is mended are those of TIDE (Bolya et al., 2020, sections 2.2 and 2.3):

=====================================  =============================================================================
duplicate, background,                 the detection is left out
wrong class and bad localisation
wrong class                            it gets the class of the object that it lies on
bad localisation                       it gets the place of the object that it overlaps
missed                                 an object that no detection finds, nor would if its class or place were mended,
                                       is not asked for
=====================================  =============================================================================

A mended detection finds its object if nothing surer does; else it is left out. Costs of several kinds do not add up:
a false positive above all others costs more than the next.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from detkit.evaluation.detection_errors import ClassifiedDetections, DetectionKind
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.resampling import average_precision
from detkit.evaluation.results import DetectionTable

MISSED = "missed"
ERRORS = (*(kind.words for kind in DetectionKind if kind > DetectionKind.IGNORED), MISSED)
"""Every error by name: the kinds of wrong detections, and the missed object."""
_LEFT_OUT = (
    DetectionKind.DUPLICATE,
    DetectionKind.WRONG_CLASS_AND_BAD_LOCALISATION,
    DetectionKind.BACKGROUND,
)
_MENDED = (DetectionKind.WRONG_CLASS, DetectionKind.BAD_LOCALISATION)


@dataclass(frozen=True)
class ErrorCosts:
    """Average precisions at the IoU of the classification; fractions, NaN for a class without objects."""

    category_ids: tuple[int, ...]
    as_is: np.ndarray
    """Of each class, float64 [C]."""
    without: dict[str, np.ndarray]
    """By the name of the error that is mended."""
    without_any: np.ndarray
    """With all of them mended: 1 in every class that has objects."""
    counts: dict[str, np.ndarray]
    """How many errors there are, by name: int64 [C]. A detection is counted with the class that it names."""

    def cost(self, error: str, category_ids: Collection[int] | None = None) -> float | None:
        """What an error costs the mean over classes (these, or all); None where none of them has objects."""
        return self._mean(self.without[error] - self.as_is, category_ids)

    def mean(self, category_ids: Collection[int] | None = None) -> float | None:
        """The mean average precision over classes (these, or all), as it is; None where none has objects."""
        return self._mean(self.as_is, category_ids)

    def _mean(self, values: np.ndarray, category_ids: Collection[int] | None) -> float | None:
        if category_ids is not None:
            values = values[np.isin(self.category_ids, list(category_ids))]
        return float(np.nanmean(values)) if np.isfinite(values).any() else None


def error_costs(
    ground_truth: GroundTruth,
    table: DetectionTable,
    classified: ClassifiedDetections,
    *,
    areas: tuple[float, float] = (0, np.inf),
) -> ErrorCosts:
    """Mend the errors of each kind alone, and of all together, and measure again.

    As it is, the average precision is COCO's at the IoU of the classification, if the table holds no more than the 100
    surest detections of each image and class (see ``results.surest``).

    Args:
        ground_truth: the objects.
        table: the detections.
        classified: what each of them is, from ``detection_errors.classify_detections``.
        areas: square pixels from (inclusive) which and to (exclusive) which objects, and detections that are about no
            object, count; the others are ignored.
    """
    ledger = _Ledger.open(ground_truth, table, classified, areas)
    without = {error: ledger.precisions([error]) for error in ERRORS}
    return ErrorCosts(
        ground_truth.category_ids,
        as_is=ledger.precisions([]),
        without=without,
        without_any=ledger.precisions(ERRORS),
        counts=ledger.counts(),
    )


@dataclass(frozen=True)
class _Ledger:
    """What average precisions are computed from: the detections that count, surest first, and the objects."""

    kinds: np.ndarray
    scores: np.ndarray
    named: np.ndarray
    """The class that each detection names, as an index."""
    meant: np.ndarray
    """Row of the object that it is about, -1 for none."""
    object_classes: np.ndarray
    asked: np.ndarray
    """Which objects count, bool [G]."""
    found: np.ndarray
    classes: int

    @staticmethod
    def open(
        ground_truth: GroundTruth,
        table: DetectionTable,
        classified: ClassifiedDetections,
        areas: tuple[float, float],
    ) -> "_Ledger":
        """Keep what counts within the areas, in the order in which COCO ranks detections."""
        sides = table.boxes[:, 2:].astype(np.float64) - table.boxes[:, :2]
        about, meant = classified.meant_objects >= 0, classified.meant_objects
        own = sides.prod(axis=1)
        area = np.where(about, np.append(ground_truth.areas, 0)[meant], own)  # -1 reads the 0 behind the last
        counts = (area >= areas[0]) & (area < areas[1]) & (classified.kinds != DetectionKind.IGNORED)
        order = np.lexsort((table.image_ids, -table.scores))
        rows = order[counts[order]]
        return _Ledger(
            kinds=classified.kinds[rows],
            scores=table.scores[rows],
            named=ground_truth.class_indices(table.category_ids[rows]),
            meant=meant[rows],
            object_classes=ground_truth.class_indices(ground_truth.object_category_ids),
            asked=~ground_truth.crowd & (ground_truth.areas >= areas[0]) & (ground_truth.areas < areas[1]),
            found=classified.found,
            classes=len(ground_truth.category_ids),
        )

    def counts(self) -> dict[str, np.ndarray]:
        """How many errors there are, by name and class."""
        counts = {
            kind.words: np.bincount(self.named[self.kinds == kind], minlength=self.classes)
            for kind in DetectionKind
            if kind.words in ERRORS
        }
        missed = self.object_classes[self.asked & ~self.found]
        return {**counts, MISSED: np.bincount(missed, minlength=self.classes)}

    def precisions(self, errors: Sequence[str]) -> np.ndarray:
        """The average precision of each class with these errors mended, float64 [C]."""
        mended = np.isin(self.kinds, [kind for kind in _MENDED if kind.words in errors])
        left_out = np.isin(self.kinds, [kind for kind in _LEFT_OUT if kind.words in errors])
        finds = self._first_of_unfound(mended)
        correct = (self.kinds == DetectionKind.CORRECT) | finds
        counted = correct | ~(mended | left_out)
        classes = self.named.copy()
        classes[finds] = self.object_classes[self.meant[finds]]
        asked = np.bincount(self.object_classes[self.asked], minlength=self.classes)
        left = asked - self._not_asked() if MISSED in errors else asked
        return np.array(
            [
                _average_precision(correct[rows], int(left[label])) if asked[label] else np.nan
                for label in range(self.classes)
                for rows in [counted & (classes == label)]
            ]
        )

    def _first_of_unfound(self, mended: np.ndarray) -> np.ndarray:
        """Which of the mended detections is the surest for an object that none finds: bool [D]."""
        rows = np.flatnonzero(mended)
        rows = rows[~self.found[self.meant[rows]]]
        _, first = np.unique(self.meant[rows], return_index=True)
        finds = np.zeros(len(mended), dtype=bool)
        finds[rows[first]] = True
        return finds

    def _not_asked(self) -> np.ndarray:
        """Missed objects of each class that no detection would find, mended or not: int64 [C]."""
        missed = self.asked & ~self.found
        missed[self.meant[np.isin(self.kinds, _MENDED)]] = False
        return np.bincount(self.object_classes[missed], minlength=self.classes)


def _average_precision(correct: np.ndarray, objects: int) -> float:
    """COCO's, of detections in order, surest first: bool [D]; with no object left to find there is nothing to lose."""
    if not objects:
        return 1.0
    found = np.flatnonzero(correct)
    if not len(found):
        return 0.0
    true = np.arange(1, len(found) + 1)
    return float(average_precision(true[None], found[None] + 1, np.array([objects]))[0])
