"""Honest numbers: intervals, robust means and comparisons, each with its source.

Scores are [runs, maps]: a row for each training seed, a column for each map that all of them played.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 9_999


def bootstrap_interval(
    values: Sequence[float], statistic: Callable[..., Any] = np.mean, seed: int = 0
) -> tuple[float, float] | None:
    """95% bootstrap interval (bias-corrected and accelerated, 9,999 resamples); None for fewer than two values.

    Source: Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", chapter 14, as scipy.stats.bootstrap.
    """
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:  # all resamples are the same, of which scipy makes nan
        return float(values[0]), float(values[0])
    generator = np.random.default_rng(seed)
    result = scipy.stats.bootstrap((values,), statistic, n_resamples=RESAMPLES, rng=generator)
    low, high = (float(bound) for bound in result.confidence_interval)
    if np.isnan(low) or np.isnan(high):  # where leaving any one value out changes nothing, there is no acceleration
        result = scipy.stats.bootstrap(
            (values,), statistic, n_resamples=RESAMPLES, rng=np.random.default_rng(seed), method="percentile"
        )
        low, high = (float(bound) for bound in result.confidence_interval)
    return low, high


def band(curves: ArrayLike, seed: int = 0, resamples: int = 1_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% percentile bootstrap interval, over runs, of the mean of curves [runs, points]: two arrays [points].

    Of a single run the band has no width. Points that are nan in a run are left out of the means.
    """
    values = np.asarray(curves, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    weights = np.zeros((resamples, len(values)))
    np.add.at(weights, (np.arange(resamples)[:, None], chosen), 1)
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(there, values, 0)) / (weights @ there)
        low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high
