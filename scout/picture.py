"""One picture of an episode: the map on the left, the team's numbers on the right.

What no agent has seen yet is dark, what was seen lies under a veil, and what is in view now is bright. Behind each
agent lies its trail, which fades with its age.
"""

import functools
import math
from collections import deque
from collections.abc import Callable

import numpy as np
from mettagrid.simulator import Simulation
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scout.sprites import (
    FLOOR,
    Pixels,
    agent_cell,
    agent_stamp,
    ground,
    label_stamp,
    number_plate,
    ring_stamp,
    thing_sprite,
    thing_stamp,
)
from scout.team_view import IN_VIEW, NEVER_SEEN, SEEN, AgentStatus, Level, TeamView, agent_colour

BRIGHTNESS = {NEVER_SEEN: 0.28, SEEN: 0.68, IN_VIEW: 1.0}
TRAIL = 150  # steps
LARGEST_CELL = 40  # pixels

STRIP_WIDTH, MARGIN = 232, 12
HEAD, TALLEST_AGENT, SHORTEST_AGENT, LEGEND = 120, 50, 36, 76  # pixels of the strip's parts
PAPER, INK, FAINT, TROUGH = (24, 26, 30), (235, 235, 235), (160, 164, 170), (58, 62, 70)
FILLINGS = {"energy": (150, 108, 0), "HP": (170, 50, 60)}


class Picture:
    """Draws one episode, step by step."""

    def __init__(self, simulation: Simulation, title: str, map_pixels: int) -> None:
        """`title` has one line or two; `map_pixels` is about what the longer side of the map measures."""
        self._simulation, self._view = simulation, TeamView(simulation)
        walls = np.zeros((simulation.map_height, simulation.map_width), dtype=bool)
        for thing in simulation.grid_objects().values():
            walls[thing["r"], thing["c"]] = thing["type_name"] == "wall"
        self._window = _window(walls)
        walls = walls[self._window]
        self.cell = min(max(map_pixels // max(walls.shape), 4), LARGEST_CELL)
        """Pixels of a cell."""
        self.corner = self._window[0].start, self._window[1].start
        """The map's row and column that is at the top left: the mass of walls around most maps is cut off."""
        self._ground = ground(walls, self.cell)
        self._drawn: dict[tuple[int, int], str] | None = None
        self._light: NDArray[np.uint8] = np.full(walls.shape, 255, dtype=np.uint8)
        self._lit = self._ground.copy()
        self._trail: deque[np.ndarray] = deque(maxlen=TRAIL + 1)
        height, width = self._ground.shape[:2]
        strip = HEAD + SHORTEST_AGENT * simulation.num_agents
        self.size = width + width % 2 + STRIP_WIDTH, max(height, strip) + max(height, strip) % 2
        """Width and height in pixels, both even."""
        self._paper = np.full((self.size[1], self.size[0], 3), PAPER, dtype=np.uint8)
        self._strip = Strip(simulation, title, self.size[1])

    def look(self) -> None:
        """Takes in the episode as it is now: to be called before its first step and after each."""
        self._view.look()
        self._trail.append(self._view.places)

    def draw(self) -> Pixels:
        """The picture of what was looked at last: uint8 [height, width, 3]."""
        things = self._view.things()
        statuses = self._view.statuses(things)
        self._place({(thing["r"], thing["c"]): thing_sprite(thing) for thing in things if "agent_id" not in thing})
        self._shine()
        field = self._lit.copy()
        self._draw_trails(field)
        self._draw_agents(field, statuses)
        picture = self._paper.copy()
        picture[: field.shape[0], : field.shape[1]] = field
        picture[:, -STRIP_WIDTH:] = self._strip.draw(statuses, int(np.count_nonzero(self._view.light)))
        return picture

    def shades(self) -> Pixels:
        """Colours that later pictures need, uint8 [any height, width, 3]: the map in each light, and the agents'."""
        agents = range(len(self._view.places))
        stripes = [np.full((8, self._lit.shape[1], 3), agent_colour(agent), dtype=np.uint8) for agent in agents]
        return np.concatenate([lit.reshape(self._lit.shape) for lit in self._lights] + stripes)

    def _middle(self, row: int, column: int) -> tuple[int, int]:
        half = self.cell // 2
        return (row - self.corner[0]) * self.cell + half, (column - self.corner[1]) * self.cell + half

    def _place(self, things: dict[tuple[int, int], str]) -> None:
        if things == self._drawn:
            return
        self._drawn = things
        full = self._ground.copy()
        for (row, column), name in sorted(things.items()):
            y, x = self._middle(row, column)
            thing_stamp(name, self.cell).lay(full, y - self.cell // 4, x)  # as mettascope does: they stand on the floor
        rows, columns = self._light.shape
        shape = rows, self.cell, columns, self.cell, 3
        self._lights = [
            (full * BRIGHTNESS[light]).astype(np.uint8).reshape(shape) for light in (NEVER_SEEN, SEEN, IN_VIEW)
        ]
        self._light[:] = 255

    def _shine(self) -> None:
        light = self._view.light[self._window]
        cells = self._lit.reshape(self._lights[0].shape)
        for level, lit in enumerate(self._lights):
            rows, columns = np.nonzero((light != self._light) & (light == level))
            cells[rows, :, columns] = lit[rows, :, columns]
        self._light[:] = light

    def _draw_trails(self, field: Pixels) -> None:
        places = np.stack(list(self._trail)) - np.array(self.corner)  # [steps, agents, 2]
        between = (places[1:] + places[:-1]) * self.cell // 2
        dots = np.concatenate([places * self.cell, between])
        ages = np.concatenate([np.arange(len(places))[::-1], np.arange(len(between))[::-1] + 0.5])
        order = np.argsort(-ages, kind="stable")  # the newest are laid last
        strength = (0.2 + 0.75 * (1 - ages[order] / (TRAIL + 1))).astype(np.float32)
        size = max(2, round(self.cell / 3.5))
        lanes = (np.arange(places.shape[1]) % 3 - 1) * (self.cell // 4)  # trails through one gap stay apart
        dots = dots[order] + (self.cell - size) // 2 + lanes[:, None]
        rows = dots[..., 0, None, None] + np.arange(size)[:, None]  # [dots, agents, size, 1]
        columns = dots[..., 1, None, None] + np.arange(size)
        colours = np.array([agent_colour(agent) for agent in range(places.shape[1])], dtype=np.float32)
        under = field[rows, columns]  # [dots, agents, size, size, 3]
        field[rows, columns] = under + strength[:, None, None, None, None] * (colours[:, None, None] - under)

    def _draw_agents(self, field: Pixels, statuses: list[AgentStatus]) -> None:
        middles = [self._middle(*place) for place in self._view.places]
        for agent, (y, x) in enumerate(middles):
            ring_stamp(agent, self.cell).lay(field, y, x)
        for agent, (y, x) in sorted(enumerate(middles), key=lambda each: each[1]):
            agent_stamp(statuses[agent].gear, self._view.headings[agent], self.cell).lay(field, y, x)
        beside = round(0.55 * agent_cell(self.cell)) + 3
        for agent, (y, x) in enumerate(middles):
            label = label_stamp(agent, self.cell)
            right = field.shape[1] - label.width // 2 - 1
            label.lay(field, max(y - beside, label.height // 2), min(x + beside, right))


class Strip:
    """What stands beside the map: the step, the team's return, and each agent's return, gear, energy and HP."""

    def __init__(self, simulation: Simulation, title: str, height: int) -> None:
        self._simulation, self._cells = simulation, simulation.map_height * simulation.map_width
        agents = simulation.num_agents
        lines = title.split("\n")[:2]
        self._first = 24 + 18 * len(lines)  # the middle of the first line below the title
        self._each = min((height - HEAD) // agents, TALLEST_AGENT)
        self._blank = Image.new("RGB", (STRIP_WIDTH, height), PAPER)
        draw = ImageDraw.Draw(self._blank)
        for (middle, size, colour), line in zip(((18, 14, INK), (37, 12, FAINT)), lines, strict=False):
            short = shorten(line, lambda text, size=size: text_mask(text, size).width <= STRIP_WIDTH - 2 * MARGIN)
            _write(draw, MARGIN, middle, short, size, colour)
        for agent in range(agents):
            plate = number_plate(agent, 12)
            self._blank.paste(plate, (MARGIN, self._top(agent) - 1), plate)
        if self._top(agents) + LEGEND <= height:
            self._draw_legend(draw, height - LEGEND)

    def draw(self, statuses: list[AgentStatus], cells_seen: int) -> Pixels:
        """uint8 [height, STRIP_WIDTH, 3]."""
        image = self._blank.copy()
        draw = ImageDraw.Draw(image)
        right = STRIP_WIDTH - MARGIN
        step, of = self._simulation.current_step, self._simulation.config.game.max_steps
        for row, (name, text) in enumerate(head_texts(step, of, statuses, cells_seen, self._cells)):
            _write(draw, MARGIN, self._first + 18 * row, name, 12, FAINT)
            _write(draw, right, self._first + 18 * row, text, 12, to_the_left=True)
        for status in statuses:
            top = self._top(status.number)
            _write(draw, MARGIN + 28, top + 8, status.gear_text, 12)
            _write(draw, right, top + 8, status.return_text, 12, to_the_left=True)
            for index, level in enumerate(status.levels):
                width = (STRIP_WIDTH - 2 * MARGIN - 6 * (len(status.levels) - 1)) // len(status.levels)
                _draw_level(draw, level, MARGIN + index * (width + 6), top + 18, width)
        return np.asarray(image)

    def _top(self, agent: int) -> int:
        return HEAD + agent * self._each

    def _draw_legend(self, draw: ImageDraw.ImageDraw, top: int) -> None:
        names = {IN_VIEW: "in view", SEEN: "seen before", NEVER_SEEN: "never seen"}
        for row, (light, name) in enumerate(names.items()):
            shade = tuple(round(BRIGHTNESS[light] * part) for part in FLOOR)
            y = top + 14 + 20 * row
            draw.rectangle((MARGIN, y - 6, MARGIN + 20, y + 6), fill=shade, outline=TROUGH)
            _write(draw, MARGIN + 30, y, name, 12, FAINT)


def _draw_level(draw: ImageDraw.ImageDraw, level: Level, left: int, top: int, width: int) -> None:
    draw.rectangle((left, top, left + width - 1, top + 12), fill=TROUGH)
    if level.share:
        draw.rectangle((left, top, left + round(level.share * (width - 1)), top + 12), fill=FILLINGS[level.name])
    _write(draw, left + 4, top + 6, level.name, 10)
    _write(draw, left + width - 4, top + 6, level.text, 10, to_the_left=True)


def _write(
    draw: ImageDraw.ImageDraw,
    x: int,
    middle: int,
    text: str,
    size: int,
    colour: tuple[int, int, int] = INK,
    to_the_left: bool = False,
) -> None:
    mask = text_mask(text, size)
    draw.bitmap((x - mask.width if to_the_left else x, middle - mask.height // 2), mask, fill=colour)


@functools.lru_cache(10_000)  # most texts come again, and FreeType would take a third of a film's time
def text_mask(text: str, size: int) -> Image.Image:
    """A text in the font that Pillow brings, whose letters are about `size` pixels high, as opacity."""
    font = ImageFont.load_default(size)
    mask = Image.new("L", (math.ceil(font.getlength(text)), 2 * (size // 2) + 7))
    ImageDraw.Draw(mask).text((0, mask.height // 2), text, fill=255, font=font, anchor="lm")
    return mask


def head_texts(
    step: int, max_steps: int, statuses: list[AgentStatus], cells_seen: int, cells: int
) -> list[tuple[str, str]]:
    """The lines about the whole team: what each is called and what it says."""
    mean_return = np.mean([status.total_return for status in statuses])
    return [
        ("step", f"{step:,} of {max_steps:,}"),
        ("return per agent", f"{mean_return:.2f}"),
        ("cells seen", f"{cells_seen:,} of {cells:,}"),
    ]


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """The end of a text that fits, since the end of a path tells more than its beginning; folders stay whole."""
    if fits(text):
        return text
    parts = text.split("/")
    for first in range(1, len(parts)):
        if fits(short := "/".join(["...", *parts[first:]])):
            return short
    last = parts[-1]
    return next((f"...{last[cut:]}" for cut in range(len(last)) if fits(f"...{last[cut:]}")), "...")


def _window(walls: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.nonzero(~walls)
    if not len(rows):
        return slice(0, walls.shape[0]), slice(0, walls.shape[1])
    return (
        slice(max(0, int(rows.min()) - 1), int(rows.max()) + 2),
        slice(max(0, int(columns.min()) - 1), int(columns.max()) + 2),
    )
