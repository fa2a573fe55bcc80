"""Percentile intervals, p values and Holm's correction, by hand."""

import numpy as np
import pytest

from detkit.comparison.intervals import holm, interval, p_value


def test_an_interval_leaves_out_one_fortieth_on_each_side():
    values = np.random.default_rng(0).permutation(np.arange(1, 401) / 400)
    assert interval(values) == (10 / 400, 391 / 400)


def test_a_resample_that_cannot_be_measured_could_be_anything():
    values = np.arange(1.0, 401)
    values[200:205] = np.nan
    assert interval(values) == (5, 396)  # it stands below the lowest and above the highest
    values[200:210] = np.nan
    assert interval(values) == (None, None)


def test_an_end_is_open_where_the_unmeasured_reach_it():
    assert interval(np.full(100, np.nan)) == (None, None)
    assert interval(np.array([1.0])) == (1, 1)


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([1.0] * 99, 2 * 1 / 100),
        ([1.0] * 97 + [-1.0] * 2, 2 * 3 / 100),
        ([-1.0] * 97 + [0.0] * 2, 2 * 3 / 100),
        ([0.0] * 99, 1),
        ([1.0] * 97 + [np.nan] * 2, 2 * 3 / 100),
        ([-1.0, 1.0] * 50, 1),
    ],
)
def test_p_is_twice_the_share_beyond_zero(values, p):
    assert p_value(np.array(values)) == pytest.approx(p)


def test_holm_by_hand():
    """Holm (1979): .01 x 4, .02 x 3, .03 x 2 kept at .06 or above, .04 x 1 kept at .06."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx([0.025, 0.044, 0.06, 0.08, 0.13])
    assert holm([0.4, 0.6, 0.001]) == pytest.approx([0.8, 0.8, 0.003])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
