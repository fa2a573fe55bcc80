"""The pictures of the hardest negatives."""

import numpy as np
import pytest

from detkit.builders.hard_negatives import around


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ([40, 40, 60, 50], (20, 40)),
        ([-10, -10, 10, 10], (20, 20)),
        ([90, 40, 110, 60], (40, 20)),
        ([150, 150, 170, 170], (1, 1)),
        ([-60, 20, -40, 40], (40, 1)),
    ],
    ids=["inside", "at the left", "at the right", "beyond the corner", "left of it"],
)
def test_what_is_around_a_region_is_cut_where_the_image_ends(box, size):
    cut = around(np.zeros((100, 100, 3), np.uint8), np.array(box, dtype=np.float32))
    assert cut.shape[:2] == size
