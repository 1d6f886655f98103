"""An episode in the terminal, as section 7 of the seed notebook shows it: in colour where the terminal has any."""

import sys
import time
from itertools import groupby
from operator import itemgetter
from typing import Any, TextIO

from mettagrid.simulator import Simulation
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from scout.team_view import IN_VIEW, NEVER_SEEN, SEEN, AgentStatus, TeamView, agent_colour

VIEW_HEIGHT, VIEW_WIDTH = 25, 35  # cells around the hub, where the terminal has room for them
FEWEST_ROWS = 5
STEPS_BETWEEN_FRAMES = 100  # where there is no terminal to animate

Colour = tuple[int, int, int]

BRIGHTNESS = {NEVER_SEEN: 0.35, SEEN: 0.7, IN_VIEW: 1.0}
FLOOR: dict[int, Colour] = {NEVER_SEEN: (24, 22, 20), SEEN: (58, 52, 46), IN_VIEW: (96, 86, 75)}
WALL, WALL_MARKS = (46, 41, 36), (104, 95, 84)
UNKNOWN = (220, 220, 220)
THINGS: dict[str, tuple[str, Colour]] = {
    "hub": ("HB", (255, 205, 70)),
    "junction": ("J ", (215, 215, 225)),
    "carbon_extractor": ("C ", (205, 150, 240)),
    "oxygen_extractor": ("O ", (120, 200, 255)),
    "germanium_extractor": ("Ge", (150, 230, 130)),
    "silicon_extractor": ("Si", (255, 225, 90)),
    "aligner": ("al", (255, 120, 120)),
    "miner": ("mi", (110, 190, 255)),
    "scout": ("sc", (120, 235, 120)),
    "scrambler": ("sr", (250, 250, 250)),
}
HELD, CLIPPED = ("J+", (120, 235, 120)), ("J!", (255, 110, 100))  # junctions of a team and of the clips
ARROWS, ASCII_ARROWS = {"n": "↑", "e": "→", "s": "↓", "w": "←"}, {"n": "^", "e": ">", "s": "v", "w": "<"}
LEGEND = "HB hub  J junction: J+ held, J! clipped  C O Ge Si extractors  al mi sc sr gear"
STATUS_HEAD = f"   {'gear':<9} {'energy':>7} {'HP':>7} {'return':>8}"
STATUS_GAP = "   "


class TerminalView:
    """Draws the cells around the hub and how the agents fare.

    On a terminal each step is drawn over the last one, in its colours unless NO_COLOR is set; elsewhere a few frames
    are written below each other as plain text.
    """

    def __init__(self, delay: float, stream: TextIO | None = None) -> None:
        """`delay` is in seconds, and only kept on a terminal; `stream` is stdout unless one is given."""
        self._delay, self._stream = delay, stream or sys.stdout
        self._console = Console(file=self._stream, force_jupyter=False, highlight=False)
        self._team: TeamView | None = None
        self._simulation: Simulation | None = None
        self._size: tuple[int, int] | None = None

    def show(self, simulation: Simulation) -> None:
        """Draws the simulation as it is now; to be called before an episode's first step and after each."""
        if self._team is None or self._simulation is not simulation:
            self._simulation, self._team = simulation, TeamView(simulation)
        self._team.look()
        console = self._console
        animated = console.is_terminal and not console.is_dumb_terminal
        if not animated and simulation.current_step % STEPS_BETWEEN_FRAMES and not simulation.is_done():
            return
        in_colour = animated and console.color_system is not None and not console.no_color
        size = console.size if animated else None
        text = frame(simulation, self._team, size, in_colour, "utf" in console.encoding)
        with console.capture() as captured:
            console.print(text, soft_wrap=True)
        drawn = captured.get()
        if animated:
            # Over the last frame, line by line: a terminal that is cleared first flickers.
            clear = "" if size == self._size else "\033[2J"
            drawn = f"{clear}\033[H{drawn.replace('\n', '\033[K\n')}"
            self._size = size
        self._stream.write(drawn.encode(console.encoding, "replace").decode(console.encoding))
        self._stream.flush()
        if animated:
            time.sleep(self._delay)


def frame(
    simulation: Simulation,
    team: TeamView,
    size: tuple[int, int] | None = None,
    in_colour: bool = False,
    in_unicode: bool = True,
) -> Text:
    """The step, the map around the hub (around its centre without one), a line for each two agents, and the symbols.

    `size` is the columns and rows that there are; None is as many as it takes.
    """
    statuses = team.statuses(team.things())
    columns, rows = size or (sys.maxsize, sys.maxsize)
    across = 2 if columns > 2 * len(STATUS_HEAD) + len(STATUS_GAP) else 1
    beside = 3 + -(-len(statuses) // across) + 1  # head line, heading of the statuses, legend; the cursor's line
    height = min(VIEW_HEIGHT, max(FEWEST_ROWS, rows - beside))
    width = min(VIEW_WIDTH, (columns - 1) // 2)
    mean_return = simulation.episode_rewards.mean()
    text = Text(f"Step {simulation.current_step} of {simulation.config.game.max_steps}, ")
    text.append(f"return per agent {mean_return:.2f}\n", "bold" if in_colour else "")
    arrows = ARROWS if in_unicode else ASCII_ARROWS
    agents = [_agent(status, team.headings[status.number], arrows, in_colour) for status in statuses]
    _add_map(text, simulation, team, agents, (height, width), in_colour)
    _add_statuses(text, statuses, agents, across, in_colour)
    text.append(LEGEND[: columns - 1], "dim" if in_colour else "")
    return text


def _add_map(
    text: Text,
    simulation: Simulation,
    team: TeamView,
    agents: list[tuple[str, Style]],
    size: tuple[int, int],
    in_colour: bool,
) -> None:
    things = {(thing["r"], thing["c"]): thing for thing in simulation.grid_objects().values()}
    hub = next((place for place, thing in things.items() if "hub" in thing["type_name"]), None)
    middle = hub or (simulation.map_height // 2, simulation.map_width // 2)
    sides = zip(middle, size, (simulation.map_height, simulation.map_width), strict=True)
    rows, columns = (_span(*side) for side in sides)

    def cell(row: int, column: int) -> tuple[str, Style]:
        thing = things.get((row, column))
        if thing is not None and "agent_id" in thing:
            return agents[thing["agent_id"]]
        return _cell(thing, int(team.light[row, column]), in_colour)

    for row in rows:
        # Neighbours of one style together: a frame in colour takes a third of the bytes.
        for style, alike in groupby((cell(row, column) for column in columns), key=itemgetter(1)):
            text.append("".join(symbol for symbol, _ in alike), style)
        text.append("\n")


def _span(middle: int, size: int, length: int) -> range:
    first = max(0, min(middle - size // 2, length - size))
    return range(first, min(first + size, length))


def _cell(thing: dict[str, Any] | None, light: int, in_colour: bool) -> tuple[str, Style]:
    """Two columns of the map: a wall, a thing that is no agent, or floor. Without colours unseen floor is blank."""
    if thing is None:
        return "  " if in_colour or light == NEVER_SEEN else ". ", _style(None, FLOOR[light], in_colour)
    if thing["type_name"] == "wall":
        marks, wall = (tuple(round(BRIGHTNESS[light] * part) for part in colour) for colour in (WALL_MARKS, WALL))
        return "##", _style(marks, wall, in_colour)
    name, owner = thing["type_name"].rpartition(":")[2], thing.get("collective_name") or ""
    symbol, colour = THINGS.get(name, (name[:2].ljust(2), UNKNOWN))
    if name == "junction" and owner:
        symbol, colour = CLIPPED if "clip" in owner else HELD
    return symbol, _style(tuple(round(BRIGHTNESS[light] * part) for part in colour), FLOOR[light], in_colour, bold=True)


def _agent(status: AgentStatus, heading: str, arrows: dict[str, str], in_colour: bool) -> tuple[str, Style]:
    """An agent's two columns: its number and, from the eleventh on without, where it moved last."""
    symbol = f"{status.number}{arrows[heading]}" if status.number < 10 else str(status.number)
    return symbol, _style((0, 0, 0), agent_colour(status.number), in_colour, bold=True)


def _add_statuses(
    text: Text, statuses: list[AgentStatus], agents: list[tuple[str, Style]], across: int, in_colour: bool
) -> None:
    text.append(STATUS_GAP.join([STATUS_HEAD] * min(across, len(statuses))) + "\n", "dim" if in_colour else "")
    rows = -(-len(statuses) // across)
    for row in range(rows):
        for index in range(row, len(statuses), rows):
            status = statuses[index]
            text.append(STATUS_GAP if index != row else "").append(*agents[index])
            text.append(f" {status.gear_text:<9}")
            for level in status.levels:
                text.append(f" {level.text:>7}", "bold bright_red" if in_colour and level.share < 0.2 else "")
            text.append(f" {status.total_return:>8.2f}")
        text.append("\n")


def _style(ink: tuple[int, ...] | None, paper: tuple[int, ...], in_colour: bool, bold: bool = False) -> Style:
    if not in_colour:
        return Style.null()
    return Style(color=Color.from_rgb(*ink) if ink else None, bgcolor=Color.from_rgb(*paper), bold=bold)
