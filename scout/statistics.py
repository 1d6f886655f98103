"""Honest numbers: intervals, robust means and comparisons, each with its source.

Scores are [runs, maps]: a row for each training seed, a column for each map that all of them played. scipy.stats takes
most of a second to import, so it is not imported before it is needed.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 9_999


def bootstrap_interval(
    values: ArrayLike, statistic: Callable[..., Any] = np.mean, seed: int = 0
) -> tuple[float, float] | None:
    """95% bootstrap interval (bias-corrected and accelerated, 9,999 resamples); None for fewer than two values.

    Source: Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", chapter 14, as scipy.stats.bootstrap.
    """
    import scipy.stats

    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:  # all resamples are the same, of which scipy makes nan
        return float(values[0]), float(values[0])

    def bounds(method: Literal["BCa", "percentile"]) -> tuple[float, float]:
        result = scipy.stats.bootstrap(
            (values,), statistic, n_resamples=RESAMPLES, rng=np.random.default_rng(seed), method=method
        )
        return float(result.confidence_interval.low), float(result.confidence_interval.high)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        low, high = bounds("BCa")
    # Where leaving out any one value changes nothing, the acceleration is 0 / 0.
    return bounds("percentile") if np.isnan(low) or np.isnan(high) else (low, high)


def iqm(scores: Any, axis: int | None = None) -> Any:
    """Interquartile mean: that of the middle half of all scores, or of those along an axis.

    Source: Agarwal et al., 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
    """
    import scipy.stats

    return scipy.stats.trim_mean(scores, 0.25, axis=axis)


def improvement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Probability that a run of ours does better than one of theirs on a map; a tie counts half.

    Scores are [runs, maps]; maps take the place of the tasks in the source, Agarwal et al., 2021.
    """
    difference = ours[:, None] - theirs[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def interval(
    statistic: Callable[..., float], *scores: NDArray[np.float64], seed: int = 0
) -> tuple[float, float] | None:
    """95% percentile bootstrap interval of a statistic of scores [runs, maps]; None for fewer than two maps.

    Runs of each score are resampled among themselves and maps for all of them together, 2,000 times: an interval that
    holds for other training seeds as well as for other maps. Source: Owen, 2007, "The pigeonhole bootstrap".
    """
    maps = scores[0].shape[1]
    if maps < 2:
        return None
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(2_000):
        columns = generator.integers(maps, size=maps)
        found.append(statistic(*(rows[generator.integers(len(rows), size=len(rows))][:, columns] for rows in scores)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def band(curves: ArrayLike, seed: int = 0, resamples: int = 1_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95% percentile bootstrap interval, over runs, of the mean of curves [runs, points]: two arrays [points].

    Of a single run the band has no width. Points that are nan in a run are left out of the means.
    """
    values = np.asarray(curves, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    weights = np.zeros((resamples, len(values)))
    np.add.at(weights, (np.arange(resamples)[:, None], chosen), 1)
    there = np.isfinite(values)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a point at which no run has a value
        means = (weights @ np.where(there, values, 0)) / (weights @ there)
        low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high
