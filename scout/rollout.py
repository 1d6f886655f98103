"""Whole episodes, several side by side, and what happened in them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation

from scout.device import seed_everything
from scout.environment import evaluation_map_seed, with_map_seed
from scout.observation import NO_CELL
from scout.policies import Policy

ROLES = ("aligner", "miner", "scout", "scrambler")


class SeenCells:
    """Which cells of the map a team has seen: those inside its agents' windows so far.

    An agent's place is where it started plus the offset that it observes itself (`lp:east` and so on), which is far
    faster than asking the simulator for its objects.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._observations = simulation._c_sim.observations()
        self._seen = np.zeros((simulation.map_height, simulation.map_width), dtype=bool)
        self._reach = simulation.config.game.obs.height // 2, simulation.config.game.obs.width // 2
        ids = {feature.name: feature.id for feature in simulation.features}
        self._offsets = [ids[f"lp:{side}"] for side in ("north", "south", "west", "east")]
        self._know_their_place = simulation.config.game.obs.global_obs.local_position
        agents = [thing for thing in simulation.grid_objects(ignore_types=["wall"]).values() if "agent_id" in thing]
        agents.sort(key=lambda thing: thing["agent_id"])
        self._starts = np.array([(thing["r"], thing["c"]) for thing in agents])

    @property
    def count(self) -> int | None:
        """Distinct cells seen; None where agents do not observe their own place."""
        return int(self._seen.sum()) if self._know_their_place else None

    def look(self) -> None:
        """Adds what the agents see now."""
        if not self._know_their_place:
            return
        place, feature, value = np.moveaxis(self._observations, -1, 0)
        of_no_cell = place == NO_CELL
        north, south, west, east = (
            np.where(of_no_cell & (feature == offset), value, 0).sum(axis=1, dtype=int) for offset in self._offsets
        )
        rows, columns = self._starts[:, 0] + south - north, self._starts[:, 1] + east - west
        for row, column in zip(rows, columns, strict=True):
            top, left = max(row - self._reach[0], 0), max(column - self._reach[1], 0)
            self._seen[top : row + self._reach[0] + 1, left : column + self._reach[1] + 1] = True


def play(
    policy: Policy,
    game: MettaGridConfig,
    seed: int,
    episodes: Sequence[int],
    on_step: Callable[[Simulation], None] | None = None,
) -> list[dict[str, Any]]:
    """Plays the given episodes side by side, each from its first step to its last, on evaluation's maps.

    Episode e of seed s has always the same map, the same simulator seed and the same noise. Returns one dictionary per
    episode; means are over the team's agents. `on_step` sees the first episode before its first and after each step.
    """
    seed_everything(seed + episodes[0])  # for policies that draw from the global generators
    map_seeds = [evaluation_map_seed(seed, episode) for episode in episodes]
    simulations = [
        Simulation(with_map_seed(game, map_seed), seed=episode)
        for map_seed, episode in zip(map_seeds, episodes, strict=True)
    ]
    seen = [SeenCells(simulation) for simulation in simulations]
    policy.begin(simulations, [np.random.default_rng((seed, episode)) for episode in episodes])
    while not simulations[0].is_done():
        for cells in seen:
            cells.look()
        if on_step is not None:
            on_step(simulations[0])
        policy.act()
        for simulation in simulations:
            simulation.step()
    if on_step is not None:
        on_step(simulations[0])
    for cells in seen:
        cells.look()
    records = [
        _record(policy.name, episode, map_seed, simulation, cells)
        for episode, map_seed, simulation, cells in zip(episodes, map_seeds, simulations, seen, strict=True)
    ]
    for simulation in simulations:
        simulation.close()
    return records


def _record(policy: str, episode: int, map_seed: int, simulation: Simulation, seen: SeenCells) -> dict[str, Any]:
    agents = simulation.episode_stats["agent"]
    returns = [float(value) for value in simulation.episode_rewards]

    def mean(*names: str) -> float:
        return float(sum(agent.get(name, 0.0) for agent in agents for name in names) / len(agents))

    return {
        "policy": policy,
        "episode": episode,
        "map_seed": map_seed,
        "steps": simulation.current_step,
        "return": float(np.mean(returns)),
        "agent_returns": returns,
        "cell_visited": mean("cell.visited"),
        "gear": mean(*(f"{role}.gained" for role in ROLES)),
        "deaths": mean("death"),
        "cells_seen": seen.count,
    }
