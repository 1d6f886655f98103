"""Environments and their seeds: the configs of one mission, or of several that are played in turn -> environment.

Three disjoint ranges of map seeds: whatever training does, its maps come from TRAINING_MAP_SEEDS; those on which a run
is judged while it trains, and its best checkpoint chosen, from HELD_OUT_MAP_SEEDS; and evaluate.py's, so that such a
choice does not flatter, from EVALUATION_MAP_SEEDS.

The simulator adds the number of maps that an environment has built so far to its seed.
"""

import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, override

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.envs.early_reset_handler import EarlyResetHandler
from mettagrid.mapgen.mapgen import MapGen
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulation
from pufferlib.pufferlib import set_buffers

from scout.lean_env import LeanEnv, Start

if TYPE_CHECKING:  # worker processes do without torch
    from torch import Tensor

logging.getLogger("mettagrid.simulator.simulator").setLevel(
    logging.CRITICAL
)  # it logs what it raises, with a traceback

TRAINING_MAP_SEEDS = range(2**61)
HELD_OUT_MAP_SEEDS = range(2**61, 2**62)
EVALUATION_MAP_SEEDS = range(2**62, 2**63)

# Spread training seeds are (run seed: 32 bits, environment: 13 bits, map: 16 bits), so they never meet below 2**61.
_ENV_BITS, _MAP_BITS = 13, 16
# Evaluation seeds are (evaluation seed: 30 bits, episode: 32 bits) above 2**62.
_EPISODE_BITS = 32


def training_map_seed(run_seed: int, env_index: int) -> int:
    """The first map seed of an environment when maps are spread; its following maps count up from here."""
    return (run_seed << _ENV_BITS | env_index) << _MAP_BITS


def evaluation_map_seed(evaluation_seed: int, episode: int) -> int:
    """The map seed of an evaluation's episode."""
    return EVALUATION_MAP_SEEDS.start + (evaluation_seed << _EPISODE_BITS | episode)


def held_out_map_seed(_: int, episode: int) -> int:
    """The map seed of an episode while a run trains: the same for all runs and all seeds."""
    return HELD_OUT_MAP_SEEDS.start + episode


def with_map_seed(game: MettaGridConfig, map_seed: int) -> MettaGridConfig:
    """The config with a map builder of its own, for the maps of `map_seed`; a fixed map stays as it is.

    Everything else is shared, since it is the same for all environments of a run.
    """
    builder = game.game.map_builder.model_copy(deep=True)
    game = game.model_copy(update={"game": game.game.model_copy(update={"map_builder": builder})})
    set_map_seed(game, map_seed)
    return game


def set_map_seed(game: MettaGridConfig, map_seed: int) -> None:
    """Seeds a config's map, and the map within it that the variant multi_team lays out once for each team."""
    builder = game.game.map_builder
    while isinstance(builder, MapGen.Config):
        builder.seed = map_seed
        builder = builder.instance


# A forked process has everything already, and starts at once. Elsewhere it is sent there, and Python starts anew:
# Windows cannot fork, and macOS's own libraries do not bear it.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"


class SeededEarlyReset(EarlyResetHandler):
    """Ends the first episode at a step drawn from a generator of its own.

    Upstream draws from numpy's global one, which forked workers share and nobody seeds.
    """

    def __init__(self, seed: tuple[int, int]) -> None:
        super().__init__()
        self._generator = np.random.default_rng(seed)

    @override
    def on_episode_start(self) -> None:
        if self._should_early_reset:
            self._should_early_reset = False
            self._early_reset_step = int(self._generator.integers(1, self._sim.config.game.max_steps + 1))


@dataclass(frozen=True)
class Turns:
    """Which of several missions an environment plays in an episode: `CurriculumConfig`."""

    missions: int
    episodes: int
    stagger: bool

    def mission[Number: (int, Tensor)](self, environment: Number, episode: Number) -> Number:
        """The mission's number, from 0, in an environment's episode, counted from 0 as well; of tensors of each."""
        return (self.stagger * environment + episode // self.episodes) % self.missions


ALWAYS_THE_FIRST = Turns(missions=1, episodes=1, stagger=True)


class SeededEnv(LeanEnv):
    """Keeps the seed that it was made with, and plays its missions in turn.

    The vectorised resets hand out seed + worker + environment, which gives several environments the same one.
    """

    def __init__(self, games: Sequence[MettaGridConfig], mission_of: Callable[[int], int], *arguments: Any) -> None:
        """`mission_of` tells for each episode, counted from 0, which of the `games` is played."""
        self._games, self._mission_of = games, mission_of
        self._infos = [PolicyEnvInterface.from_mg_cfg(game) for game in games]  # their vibes may differ
        self._episode = -2  # the constructor builds a world that no episode is played in
        super().__init__(games[0], *arguments)

    @override
    def _init_simulation(self) -> Simulation:
        self._episode += 1
        self._mission = self._mission_of(max(self._episode, 0))
        self._current_cfg, self._policy_env_info = self._games[self._mission], self._infos[self._mission]
        builder = self._current_cfg.game.map_builder
        if isinstance(builder, MapGen.Config) and isinstance(builder.instance, MapGen.Config):
            # The simulator counts on from the outer map's seed alone; the map within would stay the same.
            assert builder.seed is not None
            builder.instance.seed = builder.seed + self._simulator._map_seed_offset
        return super()._init_simulation()

    @override
    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        if self._start is not None:
            self._episode += self._start.episode
        return super().reset(None)

    @override
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        arrived = super().step(actions)
        infos = arrived[-1]
        if infos:  # its rewards by label are those of all its missions so far
            infos |= {"mission": self._mission, "return": float(np.mean(self.get_episode_rewards()))}
        return arrived


@functools.cache
def serve_the_parent(process: int) -> None:  # once in each process: forked ones inherit the cache
    """Makes this worker process end when its parent does, however it ended, and leave signals to it until then.

    A terminal's Ctrl-C and a scheduler's signals reach workers too, which the trainer ends in order.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@dataclass(frozen=True)
class EnvFactory:
    """Makes the environments of one run; it can be pickled, as worker processes that are spawned need."""

    games: tuple[MettaGridConfig, ...]
    run_seed: int
    map_seeds: str
    early_reset: bool
    stale_first_action: bool = False
    first_environment: int = 0
    """The index in the run of a rank's first one."""
    turns: Turns = ALWAYS_THE_FIRST
    trainer_process: int = field(default_factory=os.getpid)

    def __call__(self, buf: Any = None, seed: int | None = None, start: Start | None = None) -> LeanEnv:
        """One environment. `seed` is its index in its rank; PufferLib makes one more without, to read its spaces."""
        if os.getpid() != self.trainer_process:
            serve_the_parent(os.getpid())
        index = self.first_environment + (seed or 0)
        early_reset: EarlyResetHandler | None = None
        if self.map_seeds == "consecutive":  # as in the seed notebook
            game = with_map_seed(self.games[0], self.run_seed + index)
            early_reset = EarlyResetHandler() if self.early_reset else None
            env = LeanEnv(game, index, early_reset, self.stale_first_action, buf, start)
        else:
            games = [with_map_seed(game, training_map_seed(self.run_seed, index)) for game in self.games]
            env_seed = (self.run_seed + index) % 2**31  # the simulator's own generator takes 31 bits
            early_reset = SeededEarlyReset((self.run_seed, index)) if self.early_reset else None
            mission_of = functools.partial(self.turns.mission, index)
            env = SeededEnv(games, mission_of, env_seed, early_reset, self.stale_first_action, buf, start)
        set_buffers(env, buf)
        return env
