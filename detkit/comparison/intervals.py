"""Intervals and p values from resampled values, and Holm's correction."""

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95


def interval(resampled: np.ndarray) -> tuple[float | None, float | None]:
    """The percentile interval of a statistic.

    A resample in which it cannot be measured (NaN: a recall is not reached) could be anything, so it counts as
    minus infinity for the lower end and as infinity for the upper one. An end that it moves to infinity is open.

    Args:
        resampled: float64 [R].

    Returns:
        The ends, None where open.
    """
    # The k-th smallest and the k-th largest: interpolating between infinite values would give NaN.
    rank = max(int(len(resampled) * (1 - CONFIDENCE) / 2), 1) - 1
    low = np.sort(_filled(resampled, -np.inf))[rank]
    high = np.sort(_filled(resampled, np.inf))[-1 - rank]
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)


def p_value(resampled: np.ndarray) -> float:
    """Two-sided p of a difference of 0: twice the share of resamples on or beyond 0, on the smaller side.

    One more on each side keeps it above 0 (Davison and Hinkley, 1997, section 4.2). A resample that cannot be
    measured counts on both sides.
    """
    below = int((_filled(resampled, -np.inf) <= 0).sum())
    above = int((_filled(resampled, np.inf) >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(resampled) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979): p values that hold for all comparisons of a family together.

    In ascending order the k-th of n is multiplied by n - k + 1, never falls below the one before it, and never
    exceeds 1. Returned in the order given.
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, highest)
    return corrected


def _filled(values: np.ndarray, instead: float) -> np.ndarray:
    return np.where(np.isnan(values), instead, values)
