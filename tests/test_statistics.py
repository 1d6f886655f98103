"""Intervals and comparisons are those of their sources."""

import numpy as np
import pytest
import scipy.stats

from scout.statistics import band, bootstrap_interval, improvement, interval, iqm

RETURNS = [0.0, 0.1, 2.2, 0.3, 4.0, 0.2, 0.1, 2.4]


def test_the_interval_is_scipys_and_contains_the_mean() -> None:
    """The 95% interval is that of scipy's bias-corrected and accelerated bootstrap with 9,999 resamples."""
    found = bootstrap_interval(RETURNS)
    by_hand = scipy.stats.bootstrap(
        (np.array(RETURNS),),
        np.mean,
        n_resamples=9_999,
        confidence_level=0.95,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found == (by_hand.low, by_hand.high)
    assert found is not None
    assert found[0] < np.mean(RETURNS) < found[1]


def test_the_interval_narrows_with_more_episodes() -> None:
    """Four times as many episodes of the same spread halve the interval's width, by and large."""
    few, many = bootstrap_interval(RETURNS), bootstrap_interval(RETURNS * 4)
    assert few is not None
    assert many is not None
    assert (many[1] - many[0]) / (few[1] - few[0]) == pytest.approx(0.5, abs=0.1)


def test_the_interval_of_equal_returns_is_a_point() -> None:
    """Returns that are all the same have an interval without width, and not one of nan."""
    assert bootstrap_interval([0.3] * 5) == (0.3, 0.3)


def test_a_statistic_that_no_single_value_moves_has_an_interval_all_the_same() -> None:
    """Where scipy's acceleration is 0 / 0, as of this middle half, the interval is the percentiles' and not nan."""
    found = bootstrap_interval([0.0, *[1.0] * 10, 9.0], iqm)
    assert found is not None
    assert np.isfinite(found).all()
    assert found[0] <= 1 <= found[1]


def test_the_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    """Of eight scores the two lowest and the two highest do not count."""
    assert iqm([100.0, -50.0, 1.0, 2.0, 3.0, 6.0, 900.0, -7.0]) == 3.0


def test_the_probability_of_improvement_is_over_pairs_of_runs_on_each_map() -> None:
    """Two runs against one, on two maps: 1 of 2 on the first, a win and a tie of 2 on the second: 5 of 8."""
    ours, theirs = np.array([[3.0, 5.0], [1.0, 4.0]]), np.array([[2.0, 4.0]])
    assert improvement(ours, theirs) == pytest.approx((0.5 + 0.75) / 2)
    assert improvement(theirs, ours) == pytest.approx(1 - (0.5 + 0.75) / 2)


def test_the_interval_over_runs_and_maps_is_that_of_a_plain_loop() -> None:
    """Each resample draws maps for all and runs for each score, and the bounds are the middle 95% of the means."""
    scores = np.random.default_rng(3).normal(size=(3, 6))
    generator = np.random.default_rng(0)
    means = []
    for _ in range(2_000):
        columns = generator.integers(6, size=6)
        rows = generator.integers(3, size=3)
        means.append(np.mean([[scores[row, column] for column in columns] for row in rows]))
    assert interval(np.mean, scores) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_an_interval_over_runs_is_wider_than_over_the_maps_alone() -> None:
    """Runs that differ a lot on maps that do not: the interval spans the runs, where that of the maps is a point."""
    scores = np.array([[1.0] * 20, [5.0] * 20, [9.0] * 20])
    found = interval(np.mean, scores)
    assert found is not None
    assert found[0] < 3
    assert found[1] > 7


def test_a_paired_difference_takes_the_same_maps_for_both() -> None:
    """Returns that differ by 1 on every map, though the maps differ by far more, have a difference of 1 for certain."""
    ours = np.random.default_rng(1).normal(scale=100, size=(2, 10))
    ours[1] = ours[0]
    assert interval(lambda one, other: one.mean() - other.mean(), ours + 1, ours) == pytest.approx((1, 1))


def test_the_band_holds_the_mean_and_leaves_out_what_is_missing() -> None:
    """Pointwise over runs: around the mean where all have a value, the single value where one has, nan where none."""
    curves = np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [3.0, np.nan, np.nan]])
    low, high = band(curves)
    assert 1 <= low[0] < 2 < high[0] <= 3
    assert (low[1], high[1]) == (5, 5)
    assert np.isnan([low[2], high[2]]).all()
