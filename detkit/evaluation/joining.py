"""Several sets of images measured as one, as validation and test are for a verdict.

Image ids may be in more than one set, so they are counted anew: from 0, set after set, in the order of each.
"""

from collections.abc import Sequence

import numpy as np

from detkit.errors import DataError
from detkit.evaluation.ground_truth import GroundTruth
from detkit.evaluation.results import DetectionTable


def join_ground_truths(truths: Sequence[GroundTruth]) -> GroundTruth:
    """All objects of all sets.

    Raises:
        DataError: the sets have different classes.
    """
    first = truths[0]
    for other in truths[1:]:
        if (other.category_ids, other.class_names) != (first.category_ids, first.class_names):
            raise DataError(
                f"sets of different classes cannot be measured as one: {', '.join(first.class_names)}, and "
                f"{', '.join(other.class_names)}"
            )
    starts = _starts(truths)
    return GroundTruth(
        image_ids=np.arange(starts[-1]),
        category_ids=first.category_ids,
        class_names=first.class_names,
        object_image_ids=np.concatenate(
            [
                _places(truth, truth.object_image_ids) + start
                for truth, start in zip(truths, starts, strict=False)
            ]
        ),
        object_category_ids=np.concatenate([truth.object_category_ids for truth in truths]),
        boxes=np.concatenate([truth.boxes for truth in truths]),
        areas=np.concatenate([truth.areas for truth in truths]),
        crowd=np.concatenate([truth.crowd for truth in truths]),
        dropped_category_ids=tuple(sorted({id_ for truth in truths for id_ in truth.dropped_category_ids})),
    )


def join_tables(truths: Sequence[GroundTruth], tables: Sequence[DetectionTable]) -> DetectionTable:
    """The detections in each set, with the image ids of the joined one."""
    starts = _starts(truths)
    return DetectionTable(
        image_ids=np.concatenate(
            [
                _places(truth, table.image_ids) + start
                for truth, table, start in zip(truths, tables, starts, strict=False)
            ]
        ),
        boxes=np.concatenate([table.boxes for table in tables]),
        scores=np.concatenate([table.scores for table in tables]),
        category_ids=np.concatenate([table.category_ids for table in tables]),
    )


def _starts(truths: Sequence[GroundTruth]) -> np.ndarray:
    return np.cumsum([0, *(len(truth.image_ids) for truth in truths)])


def _places(truth: GroundTruth, image_ids: np.ndarray) -> np.ndarray:
    """The place of each image id in its set, int64 [N]."""
    order = np.argsort(truth.image_ids, kind="stable")
    return order[np.searchsorted(truth.image_ids, image_ids, sorter=order)]
