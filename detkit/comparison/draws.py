"""The resamples of a hierarchical bootstrap: of seeds, and of images or groups of them.

Every arm is measured on the same images, so that images are drawn once for all arms and seeds, and seeds once for
all pairs that have them. What a pair of arms has in common then cancels in its difference.

Seeds and images are crossed: each seed is measured on each image. A resample of the mean over seeds is therefore the
mean on the drawn images, plus how far the drawn seeds' mean lies from the mean of all seeds on the images as they
are. Taking that distance on the drawn images would count the noise that each seed has on each image once more.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draws:
    """The first row of everything is the data as they are; the others are resamples."""

    images: np.ndarray
    """How often each image was drawn, int64 [1 + R, I]."""
    seed: int
    """Of the generators."""

    def means(self, values: np.ndarray, seeds: tuple[int, ...]) -> np.ndarray:
        """The mean over seeds, resampled.

        Args:
            values: of each seed on each draw of images, float64 [1 + R, n].
            seeds: of the columns; the same seeds get the same draws.

        Returns:
            float64 [1 + R]; NaN where a seed's value is.
        """
        return np.asarray(values.mean(axis=1) + self._seed_deviations(seeds) @ values[0])

    def _seed_deviations(self, seeds: tuple[int, ...]) -> np.ndarray:
        """Weights that turn the seeds' values into the drawn seeds' distance from the mean; float64 [1 + R, n].

        A bootstrap of n values makes the variance of their mean (n - 1)/n of what it is, and takes a spread that was
        estimated from n values for the true one: with three seeds that differ, its interval of "95 %" holds the
        truth three times out of four. So the distance is multiplied by sqrt(n / chi-square), with a draw of n - 1
        degrees of freedom for each resample: this puts the variance right, and turns the normal distribution's
        limits into Student's. One seed has no spread to draw from; its weight is 0.
        """
        count, rows = len(seeds), len(self.images)
        if count == 1:
            return np.zeros((rows, 1))
        generator = np.random.default_rng([self.seed, 1, *seeds])
        drawn = generator.multinomial(count, np.full(count, 1 / count), rows) / count
        scale = np.sqrt(count / generator.chisquare(count - 1, rows))
        scale[0] = 0
        return np.asarray(scale[:, None] * (drawn - 1 / count))


def draw(images: int, *, resamples: int, seed: int, groups: np.ndarray | None = None) -> Draws:
    """Draw ``resamples`` times as many images as there are, with replacement.

    Args:
        images: how many there are.
        resamples: how many times.
        seed: of the generators.
        groups: the group of each image, counted from 0, int64 [I]. Groups are drawn then, each with all its images:
            frames of one film are alike, and drawn one by one they would pass for more than they are (a cluster
            bootstrap, Davison and Hinkley, 1997, section 3.8).
    """
    if groups is None:
        groups = np.arange(images)
    count = int(groups.max()) + 1
    generator = np.random.default_rng([seed, 0])
    counts = generator.multinomial(count, np.full(count, 1 / count), resamples)[:, groups]
    return Draws(np.concatenate([np.ones((1, images), dtype=np.int64), counts]), seed)
