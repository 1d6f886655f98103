"""Intervals and comparisons are those of their sources."""

import numpy as np
import pytest
import scipy.stats

from scout.statistics import band, bootstrap_interval, improvement, interval, iqm, share_interval

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


def test_an_interval_of_few_values_is_students() -> None:
    """Of 1, 2 and 6 it is 3 +- 4.303 x sqrt(7) / sqrt(3), the usual t interval, but for the resamples' chance."""
    assert bootstrap_interval([1.0, 2.0, 6.0]) == pytest.approx((3 - 6.572, 3 + 6.572), rel=0.05)


def test_few_values_are_not_trusted() -> None:
    """The 95% interval of three values holds the mean that they are drawn around in 93% or more of 300 cases."""
    generator = np.random.default_rng(0)
    found = [bootstrap_interval(generator.normal(size=3)) for _ in range(300)]
    assert np.mean([bounds is not None and bounds[0] < 0 < bounds[1] for bounds in found]) > 0.93


def test_a_share_of_all_is_not_certain() -> None:
    """Wilson's interval of 8 in 8 begins at 8 / (8 + 1.96^2), and that of none in 8 is its mirror."""
    assert share_interval(np.ones(8)) == pytest.approx((8 / (8 + 1.959964**2), 1))
    assert share_interval(np.zeros(8)) == pytest.approx((0, 1 - 8 / (8 + 1.959964**2)))
    assert share_interval([1.0]) is None


def test_the_interval_over_runs_and_maps_is_made_by_a_plain_loops_resamples() -> None:
    """Each resample draws maps for all and runs for each score; their spread, mended for 3 runs, is Student's error."""
    scores = np.random.default_rng(3).normal(size=(3, 6))
    generator = np.random.default_rng(0)
    means = []
    for _ in range(2_000):
        columns = generator.integers(6, size=6)
        rows = generator.integers(3, size=3)
        means.append(np.mean([[scores[row, column] for column in columns] for row in rows]))
    half = 4.302653 * np.std(means, ddof=1) * np.sqrt(3 / 2)
    assert interval(np.mean, scores) == pytest.approx((scores.mean() - half, scores.mean() + half))


def test_few_training_seeds_are_not_trusted() -> None:
    """Where seeds differ more than maps, that of three seeds holds the true mean in 93% or more of 100 cases."""
    generator = np.random.default_rng(1)
    held = []
    for _ in range(100):
        scores = (
            generator.normal(scale=3, size=(3, 1)) + generator.normal(size=(1, 16)) + generator.normal(size=(3, 16))
        )
        bounds = interval(np.mean, scores)
        held.append(bounds is not None and bounds[0] < 0 < bounds[1])
    assert np.mean(held) > 0.93


def test_a_paired_difference_takes_the_same_maps_for_both() -> None:
    """Returns that differ by 1 on every map, though the maps differ by far more, have a difference of 1 for certain."""
    ours = np.random.default_rng(1).normal(scale=100, size=(2, 10))
    ours[1] = ours[0]
    assert interval(lambda one, other: one.mean() - other.mean(), ours + 1, ours) == pytest.approx((1, 1))


def test_the_band_is_students_interval_at_each_point() -> None:
    """Of 1, 2 and 3 it is 2 +- 4.303 / sqrt(3); where fewer than three runs have a value there is none."""
    low, high = band(np.array([[1.0, np.nan, np.nan], [2.0, 5.0, np.nan], [3.0, 6.0, np.nan]]))
    assert (low[0], high[0]) == pytest.approx((2 - 4.302653 / np.sqrt(3), 2 + 4.302653 / np.sqrt(3)))
    assert np.isnan([low[1:], high[1:]]).all()
