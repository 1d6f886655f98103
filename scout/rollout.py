"""Whole episodes, several side by side, and what happened in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation
from mettagrid.simulator.interface import SimulatorEventHandler
from numpy.typing import NDArray

from scout.device import seed_everything
from scout.environment import evaluation_map_seed, with_map_seed
from scout.policies import Policy
from scout.seen import SeenCells

ROLES = ("aligner", "miner", "scout", "scrambler")


@dataclass(frozen=True)
class Episode:
    """One whole episode that was played."""

    record: dict[str, Any]
    """What episodes.json says of it; means are over the team's agents."""
    visits: NDArray[np.int64]
    """Agent steps in each cell of its map, [height, width]."""


def play(
    policy: Policy,
    game: MettaGridConfig,
    seed: int,
    episodes: Sequence[int],
    on_step: Callable[[Simulation], None] | None = None,
    map_seed: Callable[[int, int], int] = evaluation_map_seed,
    event_handlers: Sequence[SimulatorEventHandler] = (),
) -> list[Episode]:
    """Plays the given episodes side by side, each from its first step to its last, on maps that training never saw.

    Episode e of seed s has always the same map, `map_seed(s, e)`, the same simulator seed and the same noise. `on_step`
    sees the first of them before its first and after each step, and so do mettagrid's `event_handlers`.
    """
    seed_everything(seed + episodes[0])  # for policies that draw from the global generators
    map_seeds = [map_seed(seed, episode) for episode in episodes]
    simulations = [
        Simulation(with_map_seed(game, map_seed), seed=episode, event_handlers=event_handlers if index == 0 else ())
        for index, (map_seed, episode) in enumerate(zip(map_seeds, episodes, strict=True))
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
    played = [
        Episode(_record(policy.name, episode, map_seed, simulation, cells), cells.visits)
        for episode, map_seed, simulation, cells in zip(episodes, map_seeds, simulations, seen, strict=True)
    ]
    for simulation in simulations:
        simulation.close()
    return played


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
        "moves": mean("action.move.success"),
        "failed_moves": mean("action.move.failed"),
        "cells_seen": seen.count,
    }
