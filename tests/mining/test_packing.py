"""Canvases are filled without overlap, and every pixel is either a rectangle's or left over."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detkit.mining.packing import pack


def check(canvases, sizes, canvas):
    for packed in canvases:
        covered = np.zeros(canvas, dtype=int)
        for item, (x1, y1, x2, y2) in zip(packed.items, packed.places, strict=True):
            assert (y2 - y1, x2 - x1) == tuple(sizes[item])
            assert min(x1, y1) >= 0
            covered[y1:y2, x1:x2] += 1
        for x1, y1, x2, y2 in packed.uncovered:
            assert x1 < x2
            assert y1 < y2
            covered[y1:y2, x1:x2] += 1
        assert (covered == 1).all()


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_pixel_belongs_to_one_rectangle_or_to_the_rest(seed):
    rng = np.random.default_rng(seed)
    canvas = tuple(rng.integers(5, 40, 2).tolist())
    sizes = rng.integers(1, np.array(canvas) + 1, (int(rng.integers(1, 80)), 2))
    canvases = pack(sizes, canvas)
    check(canvases, sizes, canvas)
    laid = np.concatenate([packed.items for packed in canvases])
    assert set(laid.tolist()) == set(range(len(sizes)))
    before_the_last = np.concatenate([packed.items for packed in canvases[:-1]] or [np.zeros(0, int)])
    assert len(set(before_the_last.tolist())) == len(before_the_last)


def test_little_is_wasted():
    rng = np.random.default_rng(0)
    sizes = rng.integers(32, 120, (600, 2))
    # But for the last one, which holds what is left.
    rest = [packed.uncovered for packed in pack(sizes, (512, 512))[:-1]]
    shares = [1 - (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).sum() / 512**2 for boxes in rest]
    assert np.mean(shares) > 0.82


def test_the_first_ones_are_on_the_first_canvases():
    sizes = np.random.default_rng(1).integers(20, 60, (400, 2))
    canvases = pack(sizes, (128, 128))
    means = [np.mean([packed.items.mean() for packed in part]) for part in (canvases[:5], canvases[-6:-1])]
    assert means[0] < 60
    assert means[1] > 340


def test_the_rest_of_the_last_canvas_holds_the_first_ones_again():
    (packed,) = pack(np.array([[40, 40], [10, 100]]), (100, 100))
    assert np.bincount(packed.items).tolist() == [4, 2]


def test_nothing_and_too_much():
    assert pack(np.zeros((0, 2), dtype=int), (10, 10)) == []
    with pytest.raises(ValueError, match="on a canvas"):
        pack(np.array([[5, 11]]), (10, 10))
