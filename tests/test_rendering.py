"""An episode in the terminal: frame by frame on a terminal, a few frames elsewhere, and never in the way."""

import io
import re
import time
from pathlib import Path

import pytest
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation
from rich.cells import cell_len

from scout.config import EvaluationConfig, MissionConfig
from scout.environment import with_map_seed
from scout.evaluation import evaluate
from scout.mission import make_game
from scout.rendering import VIEW_HEIGHT, VIEW_WIDTH, TerminalView, frame


def simulation_of(max_steps: int) -> Simulation:
    """An episode of the scout tutorial on one fixed map."""
    return Simulation(with_map_seed(make_game(MissionConfig(max_steps=max_steps)), 3), seed=0)


def show_whole_episode(view: TerminalView, max_steps: int) -> None:
    """Shows the simulation before its first and after each step, as an evaluation does."""
    simulation = simulation_of(max_steps)
    view.show(simulation)
    while not simulation.is_done():
        simulation.step()
        view.show(simulation)


def shown_steps(text: str) -> list[int]:
    """The steps whose frames are in a text, in order."""
    return [int(step) for step in re.findall(r"^(?:\x1b\S*)?Step (\d+) of", text, flags=re.MULTILINE)]


def test_a_frame_is_a_head_line_and_the_map_around_the_hub() -> None:
    """Under the head line lie 25 lines of 35 cells, each two columns wide, and the hub's symbol is in their middle."""
    simulation = simulation_of(30)
    head, *lines = frame(simulation).split("\n")
    assert head == "Step 0 of 30, return per agent 0.00"
    assert len(lines) == VIEW_HEIGHT == 25
    hub = simulation.config.game.objects["c:hub"].render_symbol
    middle = lines[VIEW_HEIGHT // 2]
    before = next(middle[:end] for end in range(len(middle)) if cell_len(middle[:end]) == 2 * (VIEW_WIDTH // 2))
    assert middle.removeprefix(before).startswith(hub)


def test_a_frame_follows_the_episode() -> None:
    """The head line has the step and the team's mean return so far, and the map the agents where they are now."""
    simulation = simulation_of(30)
    first = frame(simulation)
    for _ in range(8):
        simulation._c_sim.actions()[:] = simulation.action_ids["move_south"]
        simulation.step()
    head, _, rest = frame(simulation).partition("\n")
    mean_return = sum(simulation.episode_rewards.tolist()) / 4
    assert mean_return > 0
    assert head == f"Step 8 of 30, return per agent {mean_return:.2f}"
    assert rest != first.partition("\n")[2]


def test_a_map_without_a_hub_is_shown_around_its_centre() -> None:
    """A room of 12 x 10 cells without a hub is shown whole: 10 lines, walls all around."""
    simulation = Simulation(MettaGridConfig.EmptyRoom(num_agents=1, width=12, height=10), seed=0)
    _, *lines = frame(simulation).split("\n")
    assert len(lines) == 10
    assert lines[0] == lines[-1] == "⬛" * 12


def test_without_a_terminal_only_a_few_frames_are_written() -> None:
    """Of 250 steps the first, each hundredth and the last are shown, as plain text and without any delay."""
    stream = io.StringIO()
    started = time.monotonic()
    show_whole_episode(TerminalView(delay=10.0, stream=stream), 250)
    assert time.monotonic() - started < 10
    assert shown_steps(stream.getvalue()) == [0, 100, 200, 250]
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 4 * (1 + VIEW_HEIGHT)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_every_step_is_drawn_over_the_last() -> None:
    """Each step has a frame that begins by clearing the screen, and stays for the delay."""
    stream = Terminal()
    started = time.monotonic()
    show_whole_episode(TerminalView(delay=0.02, stream=stream), 5)
    assert time.monotonic() - started >= 6 * 0.02
    assert shown_steps(stream.getvalue()) == [0, 1, 2, 3, 4, 5]
    assert stream.getvalue().count("\x1b[H\x1b[J") == 6


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_evaluation_that_renders_ends_without_a_terminal(parallel: int, tmp_path: Path) -> None:
    """With render=true and nobody watching, all episodes are played and written."""
    mission = {"max_steps": 5}
    config = EvaluationConfig(policy="random", episodes=3, parallel=parallel, render=True, mission=mission)
    assert len(evaluate(config, tmp_path).episodes) == 3
    assert (tmp_path / "episodes.json").is_file()


def test_an_evaluation_renders_its_first_episode_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With render=true the first of three episodes is shown on stdout: its first and its last frame."""
    evaluate(EvaluationConfig(policy="noop", episodes=3, parallel=1, render=True, mission={"max_steps": 5}), tmp_path)
    assert shown_steps(capsys.readouterr().out) == [0, 5]
