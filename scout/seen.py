"""Where a team has been in an episode, and what it has seen of the map."""

import numpy as np
from mettagrid.simulator import Simulation

from scout.observation import NO_CELL


class SeenCells:
    """Which cells of the map a team has seen, those inside its agents' windows so far, and where its agents were.

    An agent's place is where it started plus the offset that it observes itself (`lp:east` and so on), which is far
    faster than asking the simulator for its objects.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._observations = simulation._c_sim.observations()
        self.cells = np.zeros((simulation.map_height, simulation.map_width), dtype=bool)
        """Seen so far, bool [height, width]."""
        self.visits = np.zeros(self.cells.shape, dtype=np.int64)
        """Steps that agents stood in each cell, int64 [height, width]."""
        self._reach = simulation.config.game.obs.height // 2, simulation.config.game.obs.width // 2
        ids = {feature.name: feature.id for feature in simulation.features}
        # What the token of an offset adds to an agent's row and column: -1, 0 or 1 times its value, by feature.
        self._row_signs, self._column_signs = np.zeros((2, 256), dtype=np.int64)
        for side, sign in (("north", -1), ("south", 1)):
            self._row_signs[ids[f"lp:{side}"]] = sign
        for side, sign in (("west", -1), ("east", 1)):
            self._column_signs[ids[f"lp:{side}"]] = sign
        self._know_their_place = simulation.config.game.obs.global_obs.local_position
        agents = [thing for thing in simulation.grid_objects(ignore_types=["wall"]).values() if "agent_id" in thing]
        agents.sort(key=lambda thing: thing["agent_id"])
        self._starts = np.array([(thing["r"], thing["c"]) for thing in agents])
        self.places = self._starts.copy()
        """Row and column of each agent, int [agents, 2]."""

    @property
    def count(self) -> int | None:
        """Distinct cells seen; None where agents do not observe their own place."""
        return int(self.cells.sum()) if self._know_their_place else None

    def look(self) -> None:
        """Adds what the agents see now."""
        if not self._know_their_place:
            return
        place, feature, value = self._observations[..., 0], self._observations[..., 1], self._observations[..., 2]
        of_no_cell = np.where(place == NO_CELL, value, 0)
        self.places[:, 0] = self._starts[:, 0] + (self._row_signs[feature] * of_no_cell).sum(axis=1)
        self.places[:, 1] = self._starts[:, 1] + (self._column_signs[feature] * of_no_cell).sum(axis=1)
        for row, column in self.places:
            top, left = max(row - self._reach[0], 0), max(column - self._reach[1], 0)
            self.cells[top : row + self._reach[0] + 1, left : column + self._reach[1] + 1] = True
            self.visits[row, column] += 1
