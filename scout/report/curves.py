"""Smoothed curves of a group's runs, and its evaluations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from scout.files import HELD_OUT, RETURN
from scout.report.runs import Array, Run
from scout.report.sections import Group
from scout.statistics import band

EPISODES_IN_A_POINT = 8
"""Training episodes of a run that a point of its curve is the mean of, about."""
FEWEST_POINTS, MOST_POINTS = 5, 50
SPEED = "performance/SPS"


@dataclass(frozen=True)
class Curve:
    """The mean over the runs of a group that count, and its 95% interval from three runs on, [points]; else nan."""

    steps: Array
    minutes: Array
    mean: Array
    low: Array
    high: Array
    singles: list[tuple[Array, Array]]
    """Minutes and values [points] of each run, also of those that do not count."""


def metric_curve(group: Group, metric: str) -> Curve | None:
    """A training metric of a group in equal bins of agent steps: each run's mean, of speeds its median.

    Straight lines lead across bins in which nothing was logged. None where it never was.
    """
    runs = [run for run in group.runs if run.has(metric)]
    if not runs:
        return None
    edges = bin_edges(runs)
    middles = (edges[1:] + edges[:-1]) / 2
    statistic = "median" if metric == SPEED else "mean"
    curves = {}
    for run in runs:
        values = scipy.stats.binned_statistic(*run.series(metric), statistic, edges).statistic
        curves[run.name] = np.interp(middles, run.steps, run.minutes), bridged(values)
    counted = [curves[run.name] for run in group.counted if run.name in curves] or list(curves.values())
    minutes, values = (np.array(parts) for parts in zip(*counted, strict=True))
    return Curve(middles, minutes.mean(axis=0), *_mean_and_band(values), list(curves.values()))


def bin_edges(runs: Sequence[Run]) -> Array:
    """Edges [points + 1] of equal bins from 0 to the runs' last agent step, wide enough for EPISODES_IN_A_POINT."""
    episodes = np.median([len(run.series(RETURN)[1]) for run in runs])
    points = int(np.clip(episodes / EPISODES_IN_A_POINT, FEWEST_POINTS, MOST_POINTS))
    return np.linspace(0, max(run.steps[-1] for run in runs), points + 1)


def bridged(values: Array) -> Array:
    """With straight lines across gaps between values [points]; nan stays before the first and after the last."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known], left=np.nan, right=np.nan)


def held_out_points(group: Group) -> Curve | None:
    """The evaluations of a group on held-out maps, at the steps at which all of its runs that count have one.

    The interval of a single run is that over its episodes.
    """
    runs = [run for run in group.counted if run.has(HELD_OUT)]
    steps = np.array(sorted(set.intersection(*(set(run.series(HELD_OUT)[0]) for run in runs)) if runs else []))
    if not len(steps):
        return None
    where = [np.isin(run.steps, steps) for run in runs]
    minutes, values = (
        np.array([column[there] for column, there in zip(columns, where, strict=True)])
        for columns in ([run.minutes for run in runs], [run.column(HELD_OUT) for run in runs])
    )
    mean, low, high = _mean_and_band(values)
    if len(runs) == 1:
        low, high = (runs[0].column(f"evaluation/interval_{side}")[where[0]] for side in ("low", "high"))
    return Curve(steps, minutes.mean(axis=0), mean, low, high, [])


def _mean_and_band(values: Array) -> tuple[Array, Array, Array]:
    """Mean and 95% interval over runs [runs, points], where every run has a value."""
    whole = np.isfinite(values).all(axis=0)
    mean, low, high = np.full((3, values.shape[1]), np.nan)
    if whole.any():
        mean[whole] = values[:, whole].mean(axis=0)
        low[whole], high[whole] = band(values[:, whole])
    return mean, low, high
