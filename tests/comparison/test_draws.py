"""The hierarchical bootstrap: its draws, and whether its intervals hold the truth as often as they say."""

import numpy as np
import pytest

from detkit.comparison.draws import draw
from detkit.comparison.intervals import interval

IMAGES, RESAMPLES, TRIALS = 60, 400, 300


def test_the_first_row_is_the_data_as_they_are():
    draws = draw(IMAGES, resamples=50, seed=3)
    assert draws.images.shape == (51, IMAGES)
    assert (draws.images[0] == 1).all()
    assert (draws.images.sum(axis=1) == IMAGES).all()
    values = np.random.default_rng(0).normal(size=(51, 3))
    assert draws.means(values, (1, 2, 3))[0] == pytest.approx(values[0].mean())


def test_the_same_seed_draws_the_same_and_another_does_not():
    values = np.random.default_rng(0).normal(size=(201, 3))
    first, again, other = (draw(IMAGES, resamples=200, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.means(values, (1, 2, 3)), again.means(values, (1, 2, 3)))
    assert (first.images != other.images).any()
    assert (first.means(values, (1, 2, 3)) != other.means(values, (1, 2, 3))).any()


def test_what_two_arms_share_cancels_in_their_difference():
    """Draws of seeds are the same for both, so that the mean of a difference is the difference of means."""
    rng = np.random.default_rng(0)
    draws = draw(IMAGES, resamples=200, seed=0)
    first, second = rng.normal(size=(2, 201, 4))
    seeds = (1, 2, 5, 9)
    np.testing.assert_allclose(
        draws.means(first - second, seeds), draws.means(first, seeds) - draws.means(second, seeds), atol=1e-12
    )
    np.testing.assert_allclose(draws.means(first + 0.3 - first, seeds), 0.3)


def test_a_group_is_drawn_with_all_its_images():
    groups = np.array([0, 1, 1, 2, 0, 1])
    draws = draw(6, resamples=500, seed=1, groups=groups)
    assert (draws.images[0] == 1).all()
    for group in range(3):
        assert (
            draws.images[:, groups == group].max(axis=1) == draws.images[:, groups == group].min(axis=1)
        ).all()
    assert (draws.images[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(draws.images.sum(axis=1))) > 1


def test_one_seed_is_not_resampled():
    values = np.random.default_rng(0).normal(size=(101, 1))
    np.testing.assert_array_equal(draw(IMAGES, resamples=100, seed=0).means(values, (7,)), values[:, 0])


def test_a_seed_that_cannot_be_measured_leaves_the_resample_unmeasured():
    values = np.ones((11, 2))
    values[4, 1] = np.nan
    assert np.flatnonzero(np.isnan(draw(IMAGES, resamples=10, seed=0).means(values, (1, 2)))).tolist() == [4]


@pytest.mark.parametrize(("together", "least", "most"), [(True, 0.9, 0.99), (False, 0, 0.8)])
def test_frames_of_a_film_are_drawn_together(together, least, most):
    """Intervals of images drawn one by one hold the truth much less often than they say."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 8)
    held = 0
    for trial in range(TRIALS):
        scores = rng.normal(0, 1, 30)[groups] + rng.normal(0, 1, len(groups))
        images = draw(
            len(groups), resamples=RESAMPLES, seed=trial, groups=groups if together else None
        ).images
        low, high = interval((images @ scores / images.sum(axis=1))[1:])
        held += low <= 0 <= high
    assert least <= held / TRIALS <= most


def coverage(seeds: int, seed_spread: float, *, plain: bool = False) -> float:
    """How often a 95 % interval holds the true difference, which is 0.

    A run's metric is the mean over images of an image's part, a seed's part and noise. With ``plain`` the seeds'
    drawn mean is taken as it is, as a bootstrap without correction has it.
    """
    rng = np.random.default_rng([seeds, round(100 * seed_spread)])
    held = 0
    for trial in range(TRIALS):
        noise = rng.normal(0, 0.3, (seeds, IMAGES))
        scores = rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, 1, IMAGES) + noise
        draws = draw(IMAGES, resamples=RESAMPLES, seed=trial)
        values = draws.images @ scores.T / IMAGES
        if plain:
            chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES + 1) / seeds
            resampled = (values * chosen).sum(axis=1)
        else:
            resampled = draws.means(values, tuple(range(seeds)))
        low, high = interval(resampled[1:])
        held += low <= 0 <= high
    return held / TRIALS


@pytest.mark.parametrize(
    ("seeds", "seed_spread"), [(3, 0.0), (3, 0.2), (3, 1.0), (5, 0.2), (5, 1.0), (1, 0.0)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, seed_spread):
    assert 0.92 <= coverage(seeds, seed_spread) <= 0.99


def test_three_seeds_would_fool_a_plain_bootstrap():
    """What the correction is for, and that the test above can tell."""
    assert coverage(3, 1.0, plain=True) < 0.85
