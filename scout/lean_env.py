"""MettaGridPufferEnv with nothing in a step but the simulator's own step and the bookkeeping of episodes.

Upstream's step takes about twice as long as the simulator's: a stopwatch around every part, event handlers asked at
every step, and range checks of the actions. None of it changes what happens; a test holds both equal, step by step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, override

import mettagrid.config.mettagrid_c_config as c_config
import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.envs.early_reset_handler import EarlyResetHandler
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.envs.stats_tracker import StatsTracker
from mettagrid.simulator import Simulation, Simulator
from mettagrid.util.stats_writer import NoopStatsWriter


class EpisodeStatistics(StatsTracker):
    """Upstream's statistics of an ended episode, without its timings, which the lean step does not take."""

    def __init__(self) -> None:
        super().__init__(NoopStatsWriter())

    @override
    def _add_timing_info(self) -> None:
        pass


class Start(NamedTuple):
    """From where an environment goes on: its episode, counted from 0, and the actions [steps, agents] in it so far."""

    episode: int
    actions: np.ndarray


class LeanEnv(MettaGridPufferEnv):
    """One environment whose `step` takes the actions [agents] of a policy: int32, each below the number of actions.

    `stale_first_action` chooses how an episode begins after the one before it has ended. False: the step shows the new
    episode's first observation, with reward 0, and its actions, which were chosen for the old one, are ignored. True is
    upstream's way: those actions are played, and the first observation is never shown. With a `start`, the first
    `reset` plays those actions again and ends where they led.
    """

    def __init__(
        self,
        game: MettaGridConfig,
        seed: int,
        early_reset: EarlyResetHandler | None = None,
        stale_first_action: bool = False,
        buf: Any = None,
        start: Start | None = None,
    ) -> None:
        self._early_reset, self._stale_first_action, self._start = early_reset, stale_first_action, start
        self._statistics = EpisodeStatistics()
        self._converted: dict[int, Any] = {}  # by the config's identity, for an environment that has several
        simulator = Simulator()
        simulator.add_event_handler(self._statistics)
        if early_reset is not None:
            simulator.add_event_handler(early_reset)
        super().__init__(simulator, game, buf=buf, seed=seed)

    @override
    def _init_simulation(self) -> Simulation:
        with self._convert_once():
            simulation = super()._init_simulation()
        self._play = simulation._c_sim.step
        # Where the simulator reads and writes: the buffers may have been exchanged since the last episode.
        buffers = self._buffers
        self._chosen, self._terminated, self._truncated = buffers.actions, buffers.terminals, buffers.truncations
        assert buffers.vibe_actions is not None
        buffers.vibe_actions.fill(0)
        self._steps, self._over = 0, False
        self._cut = -1 if self._early_reset is None else self._early_reset._early_reset_step or -1
        return simulation

    @contextmanager
    def _convert_once(self) -> Iterator[None]:
        """Lets an environment turn a config into the simulator's own but once: its episodes differ by their map alone.

        The simulator copies what it is given, so it can be given again.
        """
        convert = c_config.convert_to_cpp_game_config

        def converted(config: Any) -> Any:
            key = id(self._current_cfg)
            if key not in self._converted:
                self._converted[key] = convert(config)
            return self._converted[key]

        c_config.convert_to_cpp_game_config = converted
        try:
            yield
        finally:
            c_config.convert_to_cpp_game_config = convert

    @override
    def set_mg_config(self, config: MettaGridConfig) -> None:
        self._converted.clear()
        super().set_mg_config(config)

    @override
    def reset(self, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        start, self._start = self._start, None
        if start is None:
            return super().reset(seed)
        self._simulator._map_seed_offset += start.episode
        if start.episode > 0 and self._early_reset is not None:
            self._early_reset._early_reset_step = None  # it has cut the first episode already
        observations, infos = super().reset(seed)
        for actions in start.actions:
            *_, infos = self.step(actions)
        return observations, infos

    @override
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        buffers = self._buffers
        if self._over:
            self._new_sim()
            if not self._stale_first_action:
                return buffers.observations, buffers.rewards, buffers.terminals, buffers.truncations, {}
        self._chosen[:] = actions
        self._play()
        self._steps += 1
        if self._steps == self._cut:
            self._truncated.fill(True)
            assert self._early_reset is not None
            self._early_reset._early_reset_step = None  # as the handler itself does
        infos: dict[str, Any] = {}
        # A flag that is not set is a byte of 0; this is the fastest way to ask whether all are.
        if b"\0" not in self._terminated.tobytes() or b"\0" not in self._truncated.tobytes():
            self._over = True
            self._statistics.on_episode_end()
            infos = dict(self.current_simulation._context["infos"])
        return buffers.observations, buffers.rewards, buffers.terminals, buffers.truncations, infos
