"""What one can tell of a team by watching its episode: where its agents are, what they see and how they fare."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mettagrid.simulator import Simulation
from numpy.typing import NDArray

from scout.rollout import ROLES
from scout.seen import SeenCells

NEVER_SEEN, SEEN, IN_VIEW = range(3)
HEADINGS = {(-1, 0): "n", (1, 0): "s", (0, -1): "w", (0, 1): "e"}

# Ten colours that stay apart on brown ground and, by their lightness, mostly in grey too; the numbers tell the rest.
AGENT_COLOURS = (
    (90, 190, 255),
    (255, 150, 30),
    (70, 220, 110),
    (255, 235, 70),
    (255, 120, 200),
    (255, 96, 84),
    (240, 240, 240),
    (170, 130, 255),
    (70, 225, 215),
    (190, 235, 60),
)


def agent_colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of an agent; from the eleventh on they repeat."""
    return AGENT_COLOURS[number % len(AGENT_COLOURS)]


@dataclass(frozen=True)
class Level:
    """How much an agent has of something that it can run out of."""

    name: str
    amount: int
    limit: int

    @property
    def share(self) -> float:
        """Of the limit, 0 to 1; an agent may begin with more than its limit."""
        return min(1.0, self.amount / self.limit) if self.limit else 0.0

    @property
    def text(self) -> str:
        return f"{self.amount}/{self.limit}"


@dataclass(frozen=True)
class AgentStatus:
    """How an agent fares."""

    number: int
    gear: str
    """aligner, miner, scout or scrambler; empty without any."""
    levels: tuple[Level, ...]
    """Energy and HP, as far as the mission knows them."""
    total_return: float
    """Sum of its rewards so far."""

    @property
    def gear_text(self) -> str:
        return self.gear or "no gear"

    @property
    def return_text(self) -> str:
        return f"return {self.total_return:.2f}"


class TeamView:
    """Follows the agents of one episode; `look` is to be called before its first step and after each."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._seen = SeenCells(simulation)
        self._know_their_place = self._seen.count is not None
        self._reach = simulation.config.game.obs.height // 2, simulation.config.game.obs.width // 2
        self.light = np.zeros((simulation.map_height, simulation.map_width), dtype=np.uint8)
        """NEVER_SEEN, SEEN or IN_VIEW, uint8 [height, width]: by any agent of any team."""
        self.places: NDArray[np.int64] = self._seen.places.copy()
        """Row and column of each agent, int [agents, 2]."""
        self.headings = ["s"] * len(self.places)
        """n, e, s or w: where each agent moved last."""

    def look(self) -> None:
        """Takes in the episode as it is now."""
        before, self.places = self.places, self._where()
        for agent, move in enumerate(np.sign(self.places - before)):
            self.headings[agent] = HEADINGS.get((int(move[0]), int(move[1])), self.headings[agent])
        np.minimum(self.light, SEEN, out=self.light)
        for row, column in self.places:
            top, left = max(row - self._reach[0], 0), max(column - self._reach[1], 0)
            self.light[top : row + self._reach[0] + 1, left : column + self._reach[1] + 1] = IN_VIEW

    def _where(self) -> NDArray[np.int64]:
        if self._know_their_place:
            self._seen.look()
            return self._seen.places.copy()
        agents = [thing for thing in self.things() if "agent_id" in thing]
        return np.array([(thing["r"], thing["c"]) for thing in sorted(agents, key=lambda thing: thing["agent_id"])])

    def things(self) -> list[dict[str, Any]]:
        """Everything on the map but walls, as the simulator describes it."""
        return list(self._simulation.grid_objects(ignore_types=["wall"]).values())

    def statuses(self, things: list[dict[str, Any]]) -> list[AgentStatus]:
        """The agents among `things`, by number."""
        resources = {name: index for index, name in enumerate(self._simulation.resource_names)}
        returns = self._simulation.episode_rewards

        def status(thing: dict[str, Any]) -> AgentStatus:
            held, limits = thing["inventory"], thing["inventory_capacities"]
            return AgentStatus(
                number=thing["agent_id"],
                gear=next((role for role in ROLES if held.get(resources.get(role))), ""),
                levels=tuple(
                    Level(label, held.get(resources[name], 0), limits.get(resources[name], 0))
                    for name, label in (("energy", "energy"), ("hp", "HP"))
                    if name in resources
                ),
                total_return=float(returns[thing["agent_id"]]),
            )

        return sorted((status(thing) for thing in things if "agent_id" in thing), key=lambda agent: agent.number)
