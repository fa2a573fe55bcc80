"""What a person's marks (see ``evaluation.review_marks``) mean for the regions that count as neither."""

import numpy as np
import torch
from torchvision.ops import box_iou

from detkit.evaluation.detection_errors import IgnoreRegions
from detkit.evaluation.missing_labels import SAME_PLACE
from detkit.evaluation.review_marks import ReviewMarks
from detkit.mining.pool import Pool


def at_marked(boxes: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Which boxes [B, 4] are at the place of a marked one [M, 4], all xyxy in the same pixels: bool [B]."""
    pair = (torch.from_numpy(np.asarray(one, dtype=np.float64)) for one in (boxes, marked))
    return (box_iou(*pair) >= SAME_PLACE).any(dim=1).numpy()


def ignored_regions(pool: Pool, suspects: IgnoreRegions, marks: ReviewMarks) -> IgnoreRegions:
    """What is neither object nor background in a pool's images.

    Args:
        pool: the images.
        suspects: what earlier scans set aside; those that a person accepted as background are freed.
        marks: the person's; what was rejected joins.
    """
    accepted = pool.regions_in(marks.boxes("accepted"))
    freed = np.zeros(len(suspects), dtype=bool)
    for image_id in np.intersect1d(suspects.image_ids, accepted.image_ids):
        rows = suspects.image_ids == image_id
        freed[rows] = at_marked(suspects.boxes[rows], accepted.boxes[accepted.image_ids == image_id])
    kept = IgnoreRegions(suspects.image_ids[~freed], suspects.boxes[~freed])
    return kept.followed_by(pool.regions_in(marks.boxes("rejected")))
