"""What a person sees while a run trains: plain lines now and then, or a live display on a terminal."""

import io
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from scout.progress import TrainingProgress, duration


def metrics_at(update: int, **changes: Any) -> dict[str, float]:
    """One update's metrics, 250 steps an update."""
    return {
        "agent_steps": 250 * update,
        "update": update,
        "optimizer/learning_rate": 0.00092,
        "losses/policy_loss": -0.0123,
        "losses/value_loss": 0.4567,
        "losses/entropy": 1.6094,
        "losses/approx_kl": 0.0031,
        "losses/clipfrac": 0.0875,
        "losses/explained_variance": 0.7654,
        "environment/episodes": 3.0,
        "environment/episode_return": 1.25,
        "environment/agent/cell.visited": 234.5,
        "performance/SPS": 1234.4,
        "performance/rollout_seconds": 0.75,
        "performance/update_seconds": 1.5,
        "performance/peak_memory_mb": 512.4,
        **changes,
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock by which progress measures."""
    now = [1000.0]
    monkeypatch.setattr("scout.progress.time", SimpleNamespace(monotonic=lambda: now[0]))

    def set_to(seconds: float) -> None:
        now[0] = 1000.0 + seconds

    return set_to


class Lines:
    """The plain lines of a run of 1,000 steps, without a terminal."""

    def __init__(self, caplog: pytest.LogCaptureFixture, log_interval: float = 0.0) -> None:
        caplog.set_level("INFO")
        self._caplog = caplog
        self._progress = TrainingProgress(1000, log_interval, Console(file=io.StringIO()))

    def show(self, metrics: dict[str, float]) -> list[str]:
        """The lines that this update adds."""
        self._caplog.clear()
        with self._progress:
            self._progress.show(metrics)
        return [record.getMessage() for record in self._caplog.records]


def test_a_plain_line_says_how_far_how_long_how_fast_and_how_well(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """One line has done/total, the share, the time left, the speed, the return and the losses."""
    lines = Lines(caplog)
    clock(60)  # a quarter took 60 seconds, so the other three take 180
    assert lines.show(metrics_at(1)) == [
        "  250/1,000 steps   25%  3:00 left  1,234 steps/s  return 1.25  "
        "policy_loss -0.012  value_loss 0.457  entropy 1.609"
    ]


def test_the_lines_of_a_run_end_at_its_total(clock: Callable[[float], None], caplog: pytest.LogCaptureFixture) -> None:
    """The last update may go beyond the total: its line says 100% and that nothing is left."""
    lines = Lines(caplog)
    clock(100)
    (line,) = lines.show(metrics_at(5))
    assert line.startswith("1,250/1,000 steps  100%  0:00 left  ")


def test_the_return_is_a_dash_until_an_episode_ended_and_then_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    """An update in which no whole episode ended shows the return of the last that did."""
    lines = Lines(caplog)
    shown = []
    for update, given in enumerate([{}, {"environment/episode_return": 2.5}, {}], start=1):
        metrics = metrics_at(update)
        del metrics["environment/episode_return"]
        shown += lines.show(metrics | given)
    assert [re.findall(r"return (\S+)", line) for line in shown] == [["-"], ["2.50"], ["2.50"]]


def test_lines_come_at_the_first_update_every_interval_and_at_the_last(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """With an interval of 10 s, updates of 60 steps at 1, 9, 12, 21, 22.5 and 23 s and the last at 24 s."""
    lines = Lines(caplog, log_interval=10.0)
    shown = []
    for update, seconds in enumerate([1, 9, 12, 21, 22.5, 23, 24], start=1):
        clock(seconds)
        steps = 1000 if update == 7 else 60 * update
        shown += [seconds] * len(lines.show(metrics_at(update, agent_steps=steps)))
    # 9 s is only 8 s after the line at 1 s, and 21 s only 9 s after that at 12 s; 22.5 s is 10.5 s after it.
    assert shown == [1, 12, 22.5, 24]


def test_an_interval_of_zero_gives_a_line_at_every_update(
    clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """log_interval=0 leaves none out, however fast they come."""
    lines = Lines(caplog, log_interval=0.0)
    assert [len(lines.show(metrics_at(update))) for update in (1, 2, 3, 4)] == [1, 1, 1, 1]


def live_display(updates: list[dict[str, float]], width: int = 120) -> str:
    """What a terminal shows at the end of updates of a run of 1,000 steps, without its control codes."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=width)
    with TrainingProgress(1000, 10.0, console) as progress:
        for metrics in updates:
            progress.show(metrics)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return text[text.rindex("training ━") :]  # what was drawn last


def test_the_live_display_shows_how_far_the_run_is(clock: Callable[[float], None]) -> None:
    """A bar with the share, the steps of all, and the time left."""
    terminal = io.StringIO()
    with TrainingProgress(
        1000, 10.0, Console(file=terminal, force_terminal=True, width=120, color_system=None)
    ) as progress:
        clock(60)  # a quarter took 60 seconds, so the other three take 180
        progress.show(metrics_at(1))
    assert re.search(r"training ━\S* +25% 250 / 1,000 steps 3:00 left", terminal.getvalue()) is not None


def test_the_live_display_shows_speed_return_and_losses() -> None:
    """Each number of an update stands beside its name."""
    text = live_display([metrics_at(1)])
    expected = {
        "update": "1",
        "steps/s": "1,234",
        "rollout": "0.75 s",
        "training": "1.50 s",
        "memory": "512 MB",
        "learning rate": "9.20e-04",
        "return": "1.25",
        "episodes": "3",
        "cell.visited": "234",
        "policy_loss": "-0.0123",
        "value_loss": "0.457",
        "entropy": "1.61",
        "approx_kl": "0.0031",
        "clipfrac": "0.0875",
        "explained var.": "0.765",
    }
    for name, value in expected.items():
        assert re.search(rf"{re.escape(name)} +{re.escape(value)}\s", text) is not None, name


def test_the_live_display_keeps_statistics_of_the_episodes_that_ended_last() -> None:
    """An update in which no episode ended leaves the return and the visits of those that did."""
    second = {key: value for key, value in metrics_at(2).items() if not key.startswith("environment/")}
    text = live_display([metrics_at(1), second | {"environment/episodes": 0.0}])
    assert re.search(r" return +1\.25\s", text) is not None
    assert re.search(r"cell\.visited +234\s", text) is not None
    assert re.search(r"episodes +0\s", text) is not None


def test_the_live_display_ends_with_the_last_update() -> None:
    """When the run is over, the last update's numbers remain on the terminal."""
    text = live_display([metrics_at(update, **{"environment/episode_return": update * 1.5}) for update in (1, 2, 3, 4)])
    assert re.findall(r" return +(\S+)", text) == ["6.00"]
    assert re.findall(r"(\S+) / 1,000 steps", text) == ["1,000"]


def test_a_terminal_gets_no_plain_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The live display stands for the plain lines, which would tear it."""
    caplog.set_level("INFO")
    live_display([metrics_at(1), metrics_at(4)])
    assert caplog.records == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.99, "0:09"),
        (60, "1:00"),
        (75, "1:15"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (3675, "1:01:15"),
        (100 * 3600 + 62, "100:01:02"),
    ],
)
def test_a_duration_is_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    """Minutes and seconds, with hours before them where there are some."""
    assert duration(seconds) == text


HELD_OUT = {"evaluation/return": 25.312, "evaluation/interval_low": 23.69, "evaluation/interval_high": 26.69}


def test_the_live_display_shows_the_last_evaluation_and_fits_into_eighty_columns() -> None:
    """Its mean and interval stay until the next one, and with a good scout's numbers nothing is cut off or broken."""
    large = {"environment/agent/cell.visited": 281_119.8, "environment/agent/death": 1.0}
    text = live_display([metrics_at(1, **HELD_OUT), metrics_at(2, **large)], width=80)
    assert re.search(r"held out +25\.31\s", text) is not None
    assert re.search(r"its 95% +23\.7 \.\. 26\.7\s", text) is not None
    assert re.search(r"cell\.visited +281,120\s", text) is not None
    assert "explained var." in text
    assert "…" not in text


def test_a_line_has_the_last_evaluation(caplog: pytest.LogCaptureFixture) -> None:
    """Once there was one it stands beside the return of training's own episodes."""
    lines = Lines(caplog, log_interval=0.0)
    assert "held out" not in lines.show(metrics_at(1))[0]
    lines.show(metrics_at(2, **HELD_OUT))
    assert "held out 25.31" in lines.show(metrics_at(3))[0]
