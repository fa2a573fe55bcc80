"""Where crops lie: by hand, and for any image, false positive and objects against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.mining.crop_windows import place_window
from detkit.mining.decision import Decision
from detkit.mining.settings import MiningSettings

SIZE = (100, 200)
PLAIN = MiningSettings(context=2, least_side=8, largest=(100, 100))


def place(box, obstacles=(), size=SIZE, told=PLAIN):
    return place_window(np.array(box, float), np.array(obstacles, float).reshape(-1, 4), size, told)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ([90, 40, 110, 60], (80, 30, 120, 70)),
        ([90.2, 40.7, 109.9, 59.1], (80, 30, 120, 70)),
        ([0, 0, 20, 20], (0, 0, 40, 40)),
        ([185, 85, 215, 115], (170, 70, 200, 100)),
        ([199, 99, 200, 100], (192, 92, 200, 100)),
        ([50, 40, 54, 60], (48, 30, 56, 70)),
    ],
    ids=["with context", "rounded outward", "in a corner", "reaches out", "one pixel", "least side"],
)
def test_without_objects(box, window):
    assert place(box) == (window, Decision.PENDING, "")


def test_one_larger_than_a_crop_may_be_is_cut_to_its_middle():
    placement = place([0, 10, 200, 90])
    assert placement.window == (50, 0, 150, 100)


def test_in_an_image_smaller_than_the_crop_it_is_the_image():
    assert place([2, 2, 28, 18], size=(20, 30)).window == (0, 0, 30, 20)


@pytest.mark.parametrize(
    ("box", "size", "reason"),
    [
        ([1, 1, 5, 5], (7, 30), "a side under 8"),
        ([210, 10, 220, 20], SIZE, "no pixel"),
        ([50, 50, 50, 60], SIZE, "no pixel"),
    ],
)
def test_too_small(box, size, reason):
    placement = place(box, size=size)
    assert (placement.window, placement.decision) == (None, Decision.TOO_SMALL)
    assert reason in placement.reason


def test_shifted_away_from_an_object_by_as_little_as_will_do():
    placement = place([90, 40, 110, 60], [[75, 40, 83, 60]])
    assert placement.window == (83, 30, 123, 70)
    assert placement.decision == Decision.PENDING
    assert "shifted" in placement.reason


def test_between_two_objects_it_is_trimmed():
    placement = place([90, 40, 110, 60], [[70, 0, 85, 100], [115, 0, 130, 100]])
    assert placement.window == (85, 30, 115, 70)
    assert "trimmed" in placement.reason


def test_a_corner_of_an_object_on_the_false_positive_is_trimmed_away():
    placement = place([90, 40, 110, 60], [[106, 0, 200, 100]])
    assert placement.window == (80, 30, 106, 70)


@pytest.mark.parametrize(
    "objects",
    [[[100, 0, 200, 100]], [[99, 49, 101, 51]], [[0, 0, 200, 100]]],
    ids=["half of it", "in its middle", "all of it"],
)
def test_on_an_object_there_is_no_crop(objects):
    placement = place([90, 40, 110, 60], objects)
    assert (placement.window, placement.decision) == (None, Decision.TOUCHES_OBJECT)


def test_an_object_may_leave_too_little():
    placement = place([96, 46, 101, 51], [[0, 0, 95, 100], [102, 0, 200, 100]])
    assert placement.decision == Decision.TOUCHES_OBJECT
    assert "side of less than 8" in placement.reason


def nearest_free(core, sides, size, blocks):
    """By trying every window of these sides around the core: the least distance from the centred one, or None."""
    (width, height), (image_height, image_width) = sides, size
    centre = (
        min(max((core[0] + core[2] - width) // 2, 0), image_width - width),
        min(max((core[1] + core[3] - height) // 2, 0), image_height - height),
    )
    best = None
    for x, y in itertools.product(range(image_width - width + 1), range(image_height - height + 1)):
        if x > core[0] or y > core[1] or x + width < core[2] or y + height < core[3]:
            continue
        if any(x < b[2] and x + width > b[0] and y < b[3] and y + height > b[1] for b in blocks):
            continue
        distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        best = distance if best is None else min(best, distance)
    return best, centre


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_crop_lies_inside_holds_no_object_and_is_the_nearest_free_one(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(10, 26, 2).tolist())
    told = MiningSettings(context=2, least_side=4, largest=(16, 16), least_visible=0.6)

    def box(largest):
        corner = rng.integers(0, [size[1] - 2, size[0] - 2])
        return np.minimum([*corner, *(corner + rng.integers(2, largest, 2))], [size[1], size[0]] * 2)

    false, blocks = box(9), [box(12).tolist() for _ in range(rng.integers(0, 5))]
    placement = place(false, blocks, size, told)
    sides = tuple(min(max(2 * (false[axis + 2] - false[axis]), 4), 16, size[1 - axis]) for axis in (0, 1))
    distance, centre = nearest_free(false.tolist(), sides, size, blocks)
    if placement.window is None:
        assert placement.decision == Decision.TOUCHES_OBJECT
        assert distance is None
        return
    x1, y1, x2, y2 = placement.window
    assert 0 <= x1 < x2 <= size[1]
    assert 0 <= y1 < y2 <= size[0]
    assert not any(x1 < b[2] and x2 > b[0] and y1 < b[3] and y2 > b[1] for b in blocks)
    if distance is not None:
        assert (x2 - x1, y2 - y1) == sides
        assert (x1 - centre[0]) ** 2 + (y1 - centre[1]) ** 2 == distance
        return
    seen = max(min(x2, false[2]) - max(x1, false[0]), 0) * max(min(y2, false[3]) - max(y1, false[1]), 0)
    assert seen >= 0.6 * (false[2] - false[0]) * (false[3] - false[1])
    assert min(x2 - x1, y2 - y1) >= 4
