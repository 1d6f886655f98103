"""A scripted scout that knows the map: the line that a trained one has to beat.

It plays scout_tutorial's reward: at each step an object (mostly a wall) inside an agent's window pays the steps since
its team last saw it. So each agent

1. fetches the scout gear, with which it can carry more energy and HP, as long as its team's stock pays for it;
2. plans a walk every few steps. Of all shortest paths, straight from where it is or by way of the hub's area, where
   energy and HP are refilled, it takes the one that is worth most per step, rests for energy included. What its
   teammates' walks are going to see is worth nothing, so they share out the map;
3. ends a walk only where its HP take it home again or last to the episode's end: without HP it would lose its gear;
4. plans anew around whatever it runs into.

The map is read at the start. From then on an agent knows what it observes of itself: its place, energy, HP and gear.
It knows nothing of clips, whose junctions cost HP.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mettagrid.simulator import Simulation
from numba import njit
from numpy.typing import NDArray

from scout.errors import ScoutError
from scout.observation import NO_CELL

MOVES = {(-1, 0): "move_north", (1, 0): "move_south", (0, -1): "move_west", (0, 1): "move_east"}
PLAN_EVERY = 10  # steps; agents that plan at each one earn 0.3 less on scout_tutorial and take 3 times as long
NIGHT = 1.0  # energy of a step by night; 3 by day: cogames.cogs_vs_clips.cog and weather
SPARE_HP = 12  # steps: more than PLAN_EVERY, since a plan cannot know when it will be night
FAR = 2**20
NOWHERE = np.zeros((0, 2), dtype=np.int64)
_STEPS = np.array(list(MOVES))


class Walker(NamedTuple):
    """An agent's window and energy, as plans need them."""

    reach: tuple[int, int]  # rows and columns that the window shows to each side
    cost: float  # energy of a move
    sun: float  # energy that a step brings
    capacity: float  # energy that the agent can carry


class Paths(NamedTuple):
    """The worthiest of the shortest paths from one cell to every other; all arrays are [height, width]."""

    worth: NDArray[np.float64]  # of what the windows on the way show, without the first
    steps: NDArray[np.float64]  # how long it takes, rests included; infinite where no path leads
    energy: NDArray[np.float64]  # what is left at its end
    move: NDArray[np.int64]  # its last move's index in MOVES; -1 at the start and where no path leads


@njit(cache=True)
def find_paths(
    free: Any, home: Any, worth: Any, walker: Walker, start: Any, at_start: tuple[float, float, float]
) -> Paths:
    """Breadth-first search through the `free` cells, which of paths of one length keeps the worthiest.

    `free` and `home`, where energy is full, are bool [height, width]; `worth`, what it is worth to see a cell, is
    float64 [height, width]; `at_start` is the worth and the steps so far and the energy in the cell `start`.
    """
    height, width = free.shape
    # A move shows one new row or column of the window. Running sums give its worth without adding it up.
    along_row, along_column = np.zeros((height, width + 1)), np.zeros((height + 1, width))
    for row in range(height):
        for column in range(width):
            along_row[row, column + 1] = along_row[row, column] + worth[row, column]
            along_column[row + 1, column] = along_column[row, column] + worth[row, column]
    paths = Paths(
        np.full((height, width), -1.0),
        np.full((height, width), np.inf),
        np.zeros((height, width)),
        np.full((height, width), -1),
    )
    length = np.full((height, width), FAR)
    paths.worth[start], paths.steps[start], paths.energy[start] = at_start
    length[start] = 0
    queue = [start]
    for here in queue:
        rest = max(np.ceil((walker.cost - paths.energy[here]) / walker.sun), 0.0)
        energy = min(paths.energy[here] + (rest + 1) * walker.sun - walker.cost, walker.capacity)
        for move in range(4):
            down, right = _STEPS[move]
            row, column = here[0] + down, here[1] + right
            if not (0 <= row < height and 0 <= column < width and free[row, column]):
                continue
            if length[row, column] == FAR:
                length[row, column] = length[here] + 1
                queue.append((row, column))
            elif length[row, column] <= length[here]:
                continue
            gain = paths.worth[here]
            new_row, new_column = row + down * walker.reach[0], column + right * walker.reach[1]
            if down != 0 and 0 <= new_row < height:
                left, end = max(column - walker.reach[1], 0), min(column + walker.reach[1] + 1, width)
                gain += along_row[new_row, end] - along_row[new_row, left]
            if right != 0 and 0 <= new_column < width:
                top, end = max(row - walker.reach[0], 0), min(row + walker.reach[0] + 1, height)
                gain += along_column[end, new_column] - along_column[top, new_column]
            if gain > paths.worth[row, column]:
                paths.worth[row, column] = gain
                paths.steps[row, column] = paths.steps[here] + rest + 1
                paths.energy[row, column] = walker.capacity if home[row, column] else energy
                paths.move[row, column] = move
    return paths


@njit(cache=True)
def path_to(paths: Paths, cell: tuple[int, int]) -> Any:
    """The cells of the path to a cell, int64 [length, 2]: its start left out, its end included."""
    backwards = [cell]
    while paths.move[cell] >= 0:
        down, right = _STEPS[paths.move[cell]]
        cell = (cell[0] - down, cell[1] - right)
        backwards.append(cell)
    return np.array(backwards)[-2::-1]


@njit(cache=True)
def best_end(paths: Paths, home: Any, cost: float, hp: float, remaining: float) -> tuple[float, tuple[int, int]]:
    """The highest worth per step of a path, and the path's end; -1 and any cell where no path will do.

    It ends before the episode, which goes on for `remaining` steps, and where HP last for the way home, even by night.
    `home` is what moves_home returns.
    """
    best, end = -1.0, (0, 0)
    height, width = home.shape
    for row in range(height):
        for column in range(width):
            steps, moves = paths.steps[row, column], home[row, column]
            back = max(moves, (moves * cost - paths.energy[row, column]) / NIGHT)
            in_time = steps <= remaining and (hp >= remaining or hp >= steps + back + SPARE_HP)
            if paths.move[row, column] >= 0 and in_time and paths.worth[row, column] > best * steps:
                best, end = paths.worth[row, column] / steps, (row, column)
    return best, end


@njit(cache=True)
def fill_windows(array: Any, places: Any, reach: tuple[int, int], value: float) -> None:
    """Sets what the windows around some places, int64 [places, 2], show of an array [height, width]."""
    for row, column in places:
        top, left = max(row - reach[0], 0), max(column - reach[1], 0)
        array[top : row + reach[0] + 1, left : column + reach[1] + 1] = value


def moves_home(free: NDArray[np.bool_], home: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Moves from each cell to the nearest one at home, int64 [height, width]; FAR where no path leads there."""
    moves = np.where(free & home, 0, FAR)
    while True:
        around = np.pad(moves, 1, constant_values=FAR)
        sides = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
        closer = np.where(free, np.minimum(moves, np.minimum.reduce(sides) + 1), FAR)
        if (closer == moves).all():
            return moves
        moves = closer


class WalkerPolicy:
    """Knows the map, fetches scout gear and walks to what was longest unseen."""

    name = "walker"

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        """Reads the maps; nothing is random. Raises ScoutError where agents do not observe their own place."""
        self._teams: list[Team] = []
        for simulation in simulations:
            if not simulation.config.game.obs.global_obs.local_position:
                raise ScoutError(
                    "policy=walker finds its way by the place that agents observe, and this mission's do not: its "
                    "game.obs.global_obs.local_position is false, expected true; set it, or take another policy"
                )
            things = list(simulation.grid_objects().values())
            collectives = dict.fromkeys(thing.get("collective_id") for thing in things if "agent_id" in thing)
            self._teams += [Team(simulation, things, collective) for collective in collectives]

    def act(self) -> None:
        """Sets the action of every agent of every episode."""
        for team in self._teams:
            team.act()


class Team:
    """The agents of one team in one episode, who know what the others have seen and are going to see."""

    def __init__(self, simulation: Simulation, things: Sequence[dict[str, Any]], collective: int | None) -> None:
        """`things` are the simulator's objects at the start."""
        self._simulation, game = simulation, simulation.config.game
        self._features = {feature.name: feature.id for feature in simulation.features}
        self._reach = game.obs.height // 2, game.obs.width // 2
        self._cost = game.actions.move.consumed_resources.get("energy", 0)

        own = [thing for thing in things if thing.get("collective_id") == collective]
        agents = sorted((thing for thing in own if "agent_id" in thing), key=lambda agent: agent["agent_id"])
        self._ids = [agent["agent_id"] for agent in agents]
        self._starts = np.array([(agent["r"], agent["c"]) for agent in agents])
        self._limits = game.agents[self._ids[0]].inventory.limits

        shape = simulation.map_height, simulation.map_width
        self._objects, self._home = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for thing in things:
            self._objects[thing["r"], thing["c"]] |= "agent_id" not in thing
        stations = [(thing["r"], thing["c"]) for thing in own if thing["type_name"].endswith(":scout")]
        self._station = stations[0] if stations else None
        rows, columns = np.indices(shape)
        for hub in (thing for thing in own if thing["type_name"].endswith(":hub")):
            for area in game.objects[hub["type_name"]].aoes.values():
                self._home |= (rows - hub["r"]) ** 2 + (columns - hub["c"]) ** 2 <= area.radius**2
        self._moves_home = moves_home(~self._objects, self._home)

        self._seen = np.zeros(shape)
        """Step at which each cell was last seen."""
        self._paths = [NOWHERE] * len(agents)
        self._ages = [0] * len(agents)
        """Steps since each path was planned."""
        self._moving = [False] * len(agents)
        self._refused = [False] * len(agents)
        """Whether the station gave an agent nothing, since its team's stock is spent."""
        self._sun = 0.0
        """Energy that the steps so far have brought an agent."""

    def act(self) -> None:
        """Sets the action of every agent of the team."""
        self._look()
        actions, ids = self._simulation._c_sim.actions(), self._simulation.action_ids
        for agent, agent_id in enumerate(self._ids):
            path, obstacle = self._paths[agent], None
            if self._moving[agent]:
                if (self._places[agent] == path[0]).all():
                    path = path[1:]
                else:
                    obstacle, path = (int(path[0, 0]), int(path[0, 1])), NOWHERE
            self._ages[agent] += 1
            if len(path) == 0 or self._ages[agent] >= PLAN_EVERY:
                path, self._ages[agent] = self._plan(agent, obstacle), 0
            self._paths[agent] = path
            self._moving[agent] = len(path) > 0 and self._energy[agent] >= self._cost
            move = MOVES[tuple(path[0] - self._places[agent])] if self._moving[agent] else "noop"
            actions[agent_id] = ids[move]

    def _look(self) -> None:
        """Reads what the agents observe of themselves."""
        place, feature, value = np.moveaxis(self._simulation._c_sim.observations()[self._ids], -1, 0)
        of_no_cell, own_cell = place == NO_CELL, place == (self._reach[0] << 4 | self._reach[1])

        def total(where: NDArray[np.bool_], name: str) -> NDArray[np.int64]:
            return np.where(where & (feature == self._features.get(name, -1)), value, 0).sum(axis=1, dtype=np.int64)

        def carried(name: str) -> NDArray[np.int64]:
            base = self._simulation.config.game.obs.token_value_base
            return total(own_cell, f"inv:{name}") + base * total(own_cell, f"inv:{name}:p1")

        south, north, east, west = (total(of_no_cell, f"lp:{side}") for side in ("south", "north", "east", "west"))
        self._places = self._starts + np.stack([south - north, east - west], axis=1)
        self._energy, self._hp, self._gear = carried("energy"), carried("hp"), carried("scout")
        self._sun += float(carried("solar").mean())
        fill_windows(self._seen, self._places, self._reach, self._simulation.current_step)

    def _limit(self, name: str, gear: int) -> int:
        """How much an agent can carry, by the formula of mettagrid's ResourceLimitsConfig."""
        limit = self._limits.get(name)
        return FAR if limit is None else max(limit.min, limit.modifiers.get("scout", 0) * gear)

    def _plan(self, agent: int, obstacle: tuple[int, int] | None) -> NDArray[np.int64]:
        """The cells that an agent is to walk through, int64 [length, 2]; it has just run into `obstacle`."""
        step = self._simulation.current_step
        remaining = self._simulation.config.game.max_steps - step
        start: tuple[int, int] = tuple(self._places[agent].tolist())
        gear = int(self._gear[agent])
        sun = max(self._sun / (step + 1), 0.1)  # the mean of days and nights; above 0, where there is no sun
        walker = Walker(self._reach, float(self._cost), sun, float(self._limit("energy", gear)))
        free = ~self._objects
        if obstacle is not None:
            free[obstacle] = False
            self._refused[agent] |= obstacle == self._station and not gear
        worth = self._objects * (step + 1 - self._seen)  # at the next step, the earliest to see it
        for mate, path in enumerate(self._paths):
            if mate != agent:
                fill_windows(worth, path, self._reach, 0)

        def best(paths: Paths, hp: float) -> tuple[float, tuple[int, int]]:
            needs_hp = gear and self._home.any()
            return best_end(paths, self._moves_home, walker.cost, float(hp if needs_hp else FAR), float(remaining))

        station = None if gear or self._refused[agent] else self._station
        if station is not None:
            free[station] = True
        paths = find_paths(free, self._home, worth, walker, start, (0.0, 0.0, float(self._energy[agent])))
        if station is not None and paths.steps[station] <= remaining:
            return path_to(paths, station)
        rate, end = best(paths, self._hp[agent])
        until_home = np.where(self._home, paths.steps, np.inf)
        door: tuple[int, int] = divmod(int(until_home.argmin()), until_home.shape[1])
        if not self._home[start] and np.isfinite(until_home[door]):
            way_home = path_to(paths, door)
            fill_windows(worth, way_home, self._reach, 0)
            at_door = (float(paths.worth[door]), float(paths.steps[door]), walker.capacity)
            beyond = find_paths(free, self._home, worth, walker, door, at_door)
            rate_beyond, end_beyond = best(beyond, paths.steps[door] + self._limit("hp", gear))
            if rate_beyond > rate:
                return np.concatenate([way_home, path_to(beyond, end_beyond)])
        return path_to(paths, end) if rate >= 0 else NOWHERE
