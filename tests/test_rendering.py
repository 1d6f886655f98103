"""An episode in the terminal: frame by frame on a terminal, a few frames elsewhere, and never in the way."""

import io
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from scout.config import MissionConfig
from scout.environment import with_map_seed
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.mission import make_game
from scout.rendering import VIEW_HEIGHT, VIEW_WIDTH, TerminalView, frame
from scout.rollout import ROLES
from scout.team_view import IN_VIEW, NEVER_SEEN, SEEN, TeamView, agent_colour


def simulation_of(max_steps: int, num_agents: int = 4) -> Simulation:
    """An episode of the scout tutorial on one fixed map."""
    return Simulation(with_map_seed(make_game(MissionConfig(max_steps=max_steps, num_agents=num_agents)), 3), seed=0)


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


def follow(simulation: Simulation, moves: Sequence[str] = ()) -> TeamView:
    """Lets all agents make these moves, watched from before the first one."""
    team = TeamView(simulation)
    team.look()
    for move in moves:
        simulation._c_sim.actions()[:] = simulation.action_ids[move]
        simulation.step()
        team.look()
    return team


def background(text: Text, offset: int) -> tuple[int, ...]:
    """Red, green and blue behind a character."""
    colour = text.get_style_at_offset(Console(), offset).bgcolor
    assert colour is not None
    return tuple(colour.get_truecolor())


def test_a_frame_is_a_head_line_the_map_around_the_hub_and_the_agents() -> None:
    """Below the head line lie 25 lines of 35 cells, two columns each, with the hub in their middle; then the agents."""
    simulation = simulation_of(30)
    head, *lines = frame(simulation, follow(simulation)).plain.split("\n")
    assert head == "Step 0 of 30, return per agent 0.00"
    view, (heading, *agents, legend) = lines[:VIEW_HEIGHT], lines[VIEW_HEIGHT:]
    assert len(view) == VIEW_HEIGHT == 25
    assert {len(line) for line in view} == {2 * VIEW_WIDTH}
    assert view[VIEW_HEIGHT // 2][2 * (VIEW_WIDTH // 2) :].startswith("HB")
    assert heading.split() == ["gear", "energy", "HP", "return"] * 2
    assert [line.split()[0][0] for line in agents] == ["0", "1"]
    assert legend.startswith("HB hub")


def test_a_frame_follows_the_episode() -> None:
    """The head line has the mean return so far, and each agent has its number and its last move on the map."""
    simulation = simulation_of(30)
    text = frame(simulation, follow(simulation, ["move_south"] * 8)).plain
    mean_return = sum(simulation.episode_rewards.tolist()) / 4
    assert mean_return > 0
    head, *view = text.split("\n")
    assert head == f"Step 8 of 30, return per agent {mean_return:.2f}"
    hub = next(thing for thing in simulation.grid_objects().values() if thing["type_name"] == "c:hub")
    agents = [thing for thing in simulation.grid_objects().values() if "agent_id" in thing]
    for agent in agents:
        row = agent["r"] - hub["r"] + VIEW_HEIGHT // 2
        column = 2 * (agent["c"] - hub["c"] + VIEW_WIDTH // 2)
        assert view[row][column : column + 2] in (f"{agent['agent_id']}↓", f"{agent['agent_id']}↑")
    assert any("↓" in line for line in view)


def test_each_agent_has_a_line_with_the_simulators_numbers() -> None:
    """Gear, energy and HP of their limits, and the return, as the agents themselves observe them."""
    simulation = simulation_of(30)
    simulation.agent(1).set_inventory({"energy": 30, "hp": 90, "scout": 1})
    lines = frame(simulation, follow(simulation, ["move_east"] * 5)).plain.split("\n")[-4:-1]
    words = " ".join(lines).split()
    for agent in range(4):
        held, scout = simulation.agent(agent).inventory, agent == 1
        number = next(index for index, word in enumerate(words) if word in (f"{agent}→", f"{agent}↓"))
        expected = [role for role in ROLES if held.get(role)] or ["no", "gear"]
        expected += [f"{held['energy']}/{100 if scout else 20}", f"{held['hp']}/{400 if scout else 100}"]
        expected += [f"{simulation.episode_rewards[agent]:.2f}"]
        assert words[number + 1 : number + 1 + len(expected)] == expected


def test_without_colours_floor_that_was_never_seen_is_blank() -> None:
    """In one line of the map around agents that see 5 cells far, bare floor is dotted near them and blank far off."""
    simulation = Simulation(MettaGridConfig.EmptyRoom(num_agents=1, width=40, height=10), seed=0)
    team = follow(simulation)
    row, column = team.places[0]
    line = frame(simulation, team).plain.split("\n")[1 + row]
    first = max(0, min(20 - VIEW_WIDTH // 2, 40 - VIEW_WIDTH))  # the view's first column, around the room's centre
    dotted = {first + place // 2 for place in range(0, len(line), 2) if line[place : place + 2] == ". "}
    seen = set(range(column - 5, column + 6)) - {column, 0, 39}
    assert dotted == seen & set(range(first, first + VIEW_WIDTH))
    assert dotted


def test_in_colour_agents_have_their_own() -> None:
    """On the map and in its line an agent lies on the colour that films give it."""
    simulation = simulation_of(30)
    text = frame(simulation, follow(simulation), in_colour=True)
    for agent in range(4):
        found = [match.start() for match in re.finditer(f"{agent}↓", text.plain)]
        assert len(found) == 2
        assert [background(text, offset) for offset in found] == [agent_colour(agent)] * 2


def test_in_colour_the_ground_tells_what_was_seen() -> None:
    """Bare floor has one colour for each of never seen, seen before and in view, from dark to bright."""
    simulation = simulation_of(30)
    team = follow(simulation, ["move_west"] * 6)
    text = frame(simulation, team, in_colour=True)
    things = {(thing["r"], thing["c"]): thing for thing in simulation.grid_objects().values()}
    hub = next(place for place, thing in things.items() if thing["type_name"] == "c:hub")
    found: dict[int, set[int]] = {NEVER_SEEN: set(), SEEN: set(), IN_VIEW: set()}
    start = text.plain.index("\n") + 1
    for down in range(VIEW_HEIGHT):
        for right in range(VIEW_WIDTH):
            place = hub[0] - VIEW_HEIGHT // 2 + down, hub[1] - VIEW_WIDTH // 2 + right
            if place not in things:
                offset = start + down * (2 * VIEW_WIDTH + 1) + 2 * right
                found[int(team.light[place])].add(sum(background(text, offset)))
    never, before, now = (found[light] for light in (NEVER_SEEN, SEEN, IN_VIEW))
    assert len(never) == len(before) == len(now) == 1
    assert max(never) < min(before) < min(now)


@pytest.mark.parametrize("agents", [1, 4, 20])
@pytest.mark.parametrize("size", [(80, 32), (80, 24), (120, 50), (60, 40)])
def test_a_frame_fits_its_terminal(agents: int, size: tuple[int, int]) -> None:
    """No line reaches the last column, and all lines with the cursor's below them fit, with the hub in view."""
    simulation = simulation_of(30, agents)
    lines = frame(simulation, follow(simulation), size, in_colour=True).plain.split("\n")
    assert max(cell_len(line) for line in lines) < size[0]
    assert len(lines) < size[1]
    assert any("HB" in line for line in lines[1:-1])


def test_a_map_without_a_hub_is_shown_around_its_centre() -> None:
    """A room of 12 x 10 cells without a hub is shown whole: 10 lines, walls all around."""
    simulation = Simulation(MettaGridConfig.EmptyRoom(num_agents=1, width=12, height=10), seed=0)
    lines = frame(simulation, follow(simulation)).plain.split("\n")[1:11]
    assert lines[0] == lines[-1] == "##" * 12
    assert all(line.startswith("##") and line.endswith("##") and len(line) == 24 for line in lines)


def test_without_a_terminal_only_a_few_frames_are_written() -> None:
    """Of 250 steps the first, each hundredth and the last are shown, as plain text and without any delay."""
    stream = io.StringIO()
    started = time.monotonic()
    show_whole_episode(TerminalView(delay=10.0, stream=stream), 250)
    assert time.monotonic() - started < 10
    assert shown_steps(stream.getvalue()) == [0, 100, 200, 250]
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 4 * (1 + VIEW_HEIGHT + 4)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal with 256 colours, whatever the tests themselves run in."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "32")
    return Terminal()


def test_on_a_terminal_every_step_is_drawn_over_the_last(terminal: Terminal) -> None:
    """Each step has a frame in colour that begins at the top and stays for the delay; only the first one clears."""
    started = time.monotonic()
    show_whole_episode(TerminalView(delay=0.02, stream=terminal), 5)
    assert time.monotonic() - started >= 6 * 0.02
    assert shown_steps(terminal.getvalue()) == [0, 1, 2, 3, 4, 5]
    assert terminal.getvalue().count("\x1b[H") == 6
    assert terminal.getvalue().count("\x1b[2J") == 1
    assert "\x1b[1;38;5;16;48;5;" in terminal.getvalue()


def test_no_color_is_respected(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR the frames are still drawn over each other, without a single colour or other style."""
    monkeypatch.setenv("NO_COLOR", "1")
    show_whole_episode(TerminalView(delay=0, stream=terminal), 5)
    assert shown_steps(terminal.getvalue()) == [0, 1, 2, 3, 4, 5]
    assert set(re.findall(r"\x1b\[[0-9;]*[A-Za-z]", terminal.getvalue())) == {"\x1b[2J", "\x1b[H", "\x1b[K"}


def test_a_terminal_that_knows_no_commands_gets_a_few_frames(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TERM=dumb is treated like no terminal: nothing can be drawn over."""
    monkeypatch.setenv("TERM", "dumb")
    show_whole_episode(TerminalView(delay=10, stream=terminal), 5)
    assert shown_steps(terminal.getvalue()) == [0, 5]
    assert "\x1b" not in terminal.getvalue()


def test_a_stream_that_takes_ascii_alone_is_no_problem() -> None:
    """Where arrows cannot be written, as with LANG=C, their like in ASCII are."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="ascii")
    show_whole_episode(TerminalView(delay=0, stream=stream), 5)
    assert shown_steps(content.getvalue().decode("ascii")) == [0, 5]
    assert re.search(r"^0[v^<>] no gear", content.getvalue().decode("ascii"), flags=re.MULTILINE)


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
