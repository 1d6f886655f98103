"""Curves, effects of hyperparameters and pictures of a report."""

import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib.text
import numpy as np
import pytest
from matplotlib.figure import Figure
from report_helpers import only_run, only_section, row, rows, write_run

from scout.files import RETURN
from scout.references import Reference
from scout.report.curves import bin_edges, bridged, held_out_points, metric_curve
from scout.report.effects import Effect, effects_of, effects_picture, explained
from scout.report.pictures import learning_curves
from scout.report.style import STYLES, drawing, new_figure, short_number, styles_for

# -- curves ------------------------------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_of_the_episodes_in_each_bin(tmp_path: Path) -> None:
    """The same as a plain loop over all episodes gives, with each of them counted once."""
    generator = np.random.default_rng(0)
    metrics = [
        row(update, episode_return=float(generator.normal()), episodes=int(generator.integers(1, 4)))
        for update in range(1, 81)
    ]
    section = only_section(write_run(tmp_path / "run", metrics))
    curve = metric_curve(section.groups[0], RETURN)
    assert curve is not None
    points, end = len(curve.mean), 8000
    assert 15 < points < 25, "about 160 episodes, 8 in a point"
    for point in range(points):
        episodes: list[float] = []
        for line in metrics:
            inside = point * end / points <= line["agent_steps"] < (point + 1) * end / points
            if inside or (point == points - 1 and line["agent_steps"] == end):
                episodes += [line[RETURN]] * int(line["environment/episodes"])
        assert curve.mean[point] == pytest.approx(np.mean(episodes))
        assert curve.steps[point] == pytest.approx((point + 0.5) * end / points)


def test_gaps_are_bridged_and_ends_are_not() -> None:
    """A straight line leads across bins in which no episode ended; before the first one there is nothing."""
    nan = np.nan
    assert list(bridged(np.array([nan, 2, nan, nan, 5, nan]))[1:5]) == [2, 3, 4, 5]
    assert np.isnan(bridged(np.array([nan, 2, nan, nan, 5, nan]))[[0, 5]]).all()


def test_a_mean_curve_ends_where_the_first_of_its_runs_ends(tmp_path: Path) -> None:
    """No mean is of other runs than the point before it; of 3 runs its interval is 6 +- 4.303 x 2 / sqrt(3)."""
    write_run(tmp_path / "0", rows([4] * 100))
    write_run(tmp_path / "1", rows([8] * 50), seed=2)
    write_run(tmp_path / "2", rows([6] * 100), seed=4)
    write_run(tmp_path / "3", rows([99] * 100), seed=3, state="failed")
    curve = metric_curve(only_section(tmp_path).groups[0], RETURN)
    assert curve is not None
    half = len(curve.mean) // 2
    assert list(curve.mean[:half]) == [6] * half
    assert np.isnan(curve.mean[half + 1 :]).all()
    assert (curve.low[0], curve.high[0]) == pytest.approx((6 - 4.9685, 6 + 4.9685), abs=1e-3)
    assert len(curve.singles) == 4


def test_the_minutes_of_a_mean_are_those_of_its_runs_at_the_same_steps(tmp_path: Path) -> None:
    """One run takes 2 seconds an update and the other 6: 4 on average, at every point."""
    write_run(tmp_path / "0", rows([4] * 100))
    write_run(tmp_path / "1", [line | {"performance/rollout_seconds": 4.5} for line in rows([4] * 100)], seed=2)
    curve = metric_curve(only_section(tmp_path).groups[0], RETURN)
    assert curve is not None
    assert curve.minutes[1:] == pytest.approx(curve.steps[1:] / 100 * 4 / 60)


def test_the_number_of_points_follows_the_number_of_episodes(tmp_path: Path) -> None:
    """A run with few episodes has few points, one with many no more than 50."""
    few, many = (only_run(write_run(tmp_path / str(n), rows([1] * n))) for n in (3, 1000))
    assert len(bin_edges([few])) == 6
    assert len(bin_edges([many])) == 51


def test_held_out_points_are_at_the_steps_that_all_runs_have(tmp_path: Path) -> None:
    """Means over runs; two runs have no interval."""
    write_run(tmp_path / "0", [row(1, held_out=2), row(2, held_out=4)])
    write_run(tmp_path / "1", [row(1, held_out=6), row(2)], seed=2)
    points = held_out_points(only_section(tmp_path).groups[0])
    assert points is not None
    assert (list(points.steps), list(points.mean)) == ([100], [4])
    assert np.isnan([points.low[0], points.high[0]]).all()


def test_a_single_runs_interval_is_that_of_its_episodes(tmp_path: Path) -> None:
    """It was logged with the evaluation."""
    points = held_out_points(only_section(write_run(tmp_path / "0", [row(1, held_out=2, low=1, high=5)])).groups[0])
    assert points is not None
    assert (list(points.low), list(points.high)) == ([1], [5])


# -- hyperparameters ---------------------------------------------------------------------------------------------------


def test_what_a_key_explains_is_adjusted_for_the_number_of_its_values() -> None:
    """One minus the mean square within values over that in total, by hand."""
    finals = np.array([0.0, 1.0, 9.0, 10.0])  # squares within: 4 x 0.25; in total: 25 + 16 + 16 + 25
    assert explained(["a", "a", "b", "b"], finals) == pytest.approx(1 - (1 / 2) / (82 / 3))
    assert explained(["a", "b", "b", "a"], finals) == 0
    assert explained(["a", "b", "c", "d"], finals) is None
    assert explained(["a", "a", "b", "b"], np.ones(4)) == 0


def test_the_most_influential_key_comes_first(tmp_path: Path) -> None:
    """The clip range decides the return, the learning rate does not."""
    for number in range(8):
        rate, clip = (1e-3, 1e-4)[number % 2], (0.1, 0.3)[number // 4]
        changes = {"optimizer": {"learning_rate": rate}, "trainer": {"clip_coef": clip}}
        metrics = rows([number // 4 * 10 + (number * 7) % 3])
        write_run(tmp_path / str(number), metrics, "finished", "", seed=number, **changes)
    first, second = effects_of(only_section(tmp_path))
    assert (first.key, second.key) == ("trainer.clip_coef", "optimizer.learning_rate")
    assert sorted(first.values) == [0.1] * 4 + [0.3] * 4
    assert [final >= 10 for final in first.finals] == [value == 0.3 for value in first.values]


def test_many_numbers_are_compared_in_bins() -> None:
    """Twenty values are five bins of four, in their order; true and false are no numbers."""
    effect = Effect("key", [float(number) for number in range(20)], np.zeros(20))
    assert effect.labels == [str(number // 4) for number in range(20)]
    assert not Effect("key", [True, False], np.zeros(2)).numeric


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-4, 1e-3, 1e-2], "log"),
        ([1, 2, 3], "linear"),
        ([0.0, 1.0, 100.0], "linear"),
        (["gru", None, "lstm"], "linear"),
    ],
)
def test_numbers_that_span_more_than_a_decade_have_a_logarithmic_axis(values: list, scale: str) -> None:
    """All others have a linear one, also those with a zero."""
    with drawing():
        (axes, *_) = effects_picture([Effect("key", values, np.array([0.0, 1.0, 2.0]))]).axes
    assert axes.get_xscale() == scale


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_styles_differ_in_colour_dashes_and_marker() -> None:
    """So lines can be told apart in colour and in grey; of many groups the best seven are in colour."""
    for kind in zip(*STYLES, strict=True):
        assert len(set(kind)) == len(STYLES)
    assert len(set(styles_for(8))) == 8
    assert [style.colour for style in styles_for(9)].count("#d0d0d0") == 2


def test_a_legend_names_every_group_in_full() -> None:
    """Long names are broken into lines, names that look like formulas or hidden labels are shown as they are."""
    wanted = ["_hidden", "a$b$", " ".join(f"trainer.some_key_{number}=0.001" for number in range(9))]
    with drawing():
        figure = new_figure(2, wanted)
        figure.draw_without_rendering()
    shown = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert shown == wanted


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """The learning curves of two runs, beside references with these means."""

    def draw(**means: float) -> Figure:
        references = {name: Reference(mean=mean, low=0, high=1, episodes=3) for name, mean in means.items()}
        monkeypatch.setattr("scout.report.sections.references", lambda mission: references)
        write_run(tmp_path / "0", rows(range(40)))
        write_run(
            tmp_path / "1", [row(n, episode_return=n / 2, held_out=n) for n in range(1, 41)], trainer={"gamma": 0.9}
        )
        with drawing():
            figure = learning_curves(only_section(tmp_path), "steps")
            assert figure is not None
            figure.draw_without_rendering()
        return figure

    return draw


def test_labels_of_references_do_not_overlap_and_lie_within_the_picture(drawn: Callable[..., Figure]) -> None:
    """Four lines at nearly the same height have four labels, one above the other."""
    figure = drawn(random=7.2, noop=7.3, walker=7.25, a_name_that_is_much_too_long_for_a_line=7.21)
    labels = [text for text in figure.axes[0].texts if isinstance(text, matplotlib.text.Annotation)]
    boxes = sorted((matplotlib.text.Text.get_window_extent(label) for label in labels), key=lambda box: box.y0)
    assert len(boxes) == 4
    for below, above in itertools.pairwise(boxes):
        assert below.y1 <= above.y0 + 1
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert boxes[-1].y1 <= figure.bbox.y1


def test_all_references_are_within_the_axes(drawn: Callable[..., Figure]) -> None:
    """A baseline above all returns is still to be seen."""
    low, high = drawn(walker=90.0, noop=-5.0).axes[0].get_ylim()
    assert low <= -5 < 90 <= high


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5, "0.5"), (20_000, "20k"), (1.5e6, "1.5M"), (1024, "1024"), (1e-4, "0.0001")]
)
def test_ticks_are_short(value: float, text: str) -> None:
    """Agent steps are counted in thousands and millions."""
    assert short_number(value) == text
