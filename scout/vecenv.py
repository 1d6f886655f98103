"""The vectorised environments of a run: their states can be rebuilt, and their worker processes are watched.

The simulator cannot store its state, but the same seeds and actions give the same trajectory: what an environment
needs to be rebuilt is which episode it is in, and the actions of that episode so far.
"""

import logging
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing import Pipe, Process
from typing import Any, NamedTuple, override

import numpy as np
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from pufferlib import vector
from torch import Tensor
from torch.nn.functional import pad

from scout.config import VecenvConfig
from scout.environment import ALWAYS_THE_FIRST, START_METHOD, EnvFactory, Start, Turns
from scout.errors import ScoutError
from scout.ranks import ALONE, Ranks

log = logging.getLogger(__name__)


class WorkerFailure(ScoutError):
    """A worker process died or hangs; the environments it had can be rebuilt."""


class Record:
    """Which episode each environment is in, from 0, and the actions [steps, agents] of it so far."""

    def __init__(
        self, environments: int, agents: int, stale_first_action: bool, turns: Turns = ALWAYS_THE_FIRST, first: int = 0
    ) -> None:
        """`first` is the index in the run of the first environment."""
        self._stale_first_action, self._turns, self._first = stale_first_action, turns, first
        self._episodes, self._steps = (np.zeros(environments, dtype=np.int64) for _ in range(2))
        self._over = np.zeros(environments, dtype=bool)
        self._actions = np.zeros((environments, 64, agents), dtype=np.uint8)

    def send(self, which: slice, actions: np.ndarray) -> None:
        """Takes in the actions [environments, agents] that some environments are about to play."""
        over, steps = self._over[which], self._steps[which]
        self._episodes[which] += over
        steps[over] = 0
        plays = ~over | self._stale_first_action  # else the call only begins the next episode
        if steps.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[which][plays, steps[plays]] = actions[plays]
        steps += plays
        over[:] = False

    def arrive(self, which: slice, terminals: np.ndarray, truncations: np.ndarray) -> None:
        """Takes in what [environments, agents] some environments have answered: which episodes are over."""
        self._over[which] = terminals.all(axis=1) | truncations.all(axis=1)

    def missions(self, ended: Tensor) -> Tensor:
        """The mission that each agent played at each of its latest steps: int64 [agents, steps].

        `ended` [agents, steps] is 1 where an observation was an episode's last; the last step awaits its action.
        """
        begun_since = pad(ended[:, :-1].flip(1).cumsum(1).flip(1), (0, 1)).long()
        environments = torch.arange(len(ended), device=ended.device) // self._actions.shape[2]
        episodes = torch.from_numpy(self._episodes).to(ended.device)[environments].unsqueeze(1) - begun_since
        return self._turns.mission(self._first + environments.unsqueeze(1), episodes)

    def starts(self) -> list[Start]:
        """From where each environment goes on."""
        return [
            Start(int(episode), actions[:steps].copy())
            for episode, steps, actions in zip(self._episodes, self._steps, self._actions, strict=True)
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint: episodes and steps int64 [N], actions uint8 [N, steps, agents] of N environments."""
        arrays = self._episodes, self._steps, self._actions[:, : max(self._steps.max(), 1)]
        return dict(zip(("episodes", "steps", "actions"), (torch.from_numpy(a.copy()) for a in arrays), strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state_dict` gave. Raises ValueError when that is of other environments."""
        environments, _, agents = self._actions.shape
        shapes = [tuple(state[name].shape) for name in ("episodes", "steps", "actions")]
        if shapes[:2] != [(environments,)] * 2 or (shapes[2][0], shapes[2][-1]) != (environments, agents):
            raise ValueError(f"its environments are {shapes}, expected {environments} with {agents} agents each")
        self._episodes, self._steps, self._actions = (
            state[name].numpy().copy() for name in ("episodes", "steps", "actions")
        )


_Vecenv: Any = object  # PufferLib's Serial and Multiprocessing have no class in common


class Recorded(_Vecenv):
    """Keeps the record of a vectorised environment's episodes, and rebuilds its state from one."""

    num_agents: int
    record: Record

    def __init__(self, factories: Any, *arguments: Any, record: Record, **options: Any) -> None:
        self.record = record
        super().__init__(factories, *arguments, **options)
        self._agents = self.num_agents // len(factories)

    def recv(self) -> Any:
        """As PufferLib's."""
        arrived = super().recv()
        _, _, terminals, truncations, *_, agent_ids, _ = arrived
        which = slice(int(agent_ids[0]) // self._agents, int(agent_ids[-1]) // self._agents + 1)
        self.record.arrive(which, *(ended.reshape(-1, self._agents) for ended in (terminals, truncations)))
        return arrived

    def send(self, actions: np.ndarray) -> None:
        """As PufferLib's."""
        self.record.send(self._addressed(), actions.reshape(-1, self._agents))
        super().send(actions)

    def _addressed(self) -> slice:
        """The environments that the next actions are for."""
        return slice(None)


class Serial(Recorded, vector.Serial):
    """All environments in this process."""


# Many times what it takes here: 14 ms for a map, 30 us for a step that is played again, seconds for the imports.
BUILD_SECONDS, REPLAY_SECONDS, START_SECONDS = 0.2, 1e-3, 60.0


class Options(NamedTuple):
    """How worker processes are watched."""

    timeout: float
    restart: bool


class Multiprocessing(Recorded, vector.Multiprocessing):
    """Environments in worker processes. PufferLib waits for ever for one that died; this class notices, and acts."""

    def __init__(
        self, factories: Any, arguments: Any, keywords: Any, *rest: Any, watch: Options, **options: Any
    ) -> None:
        self._watch, self._made_of = watch, (factories, arguments, keywords)
        self._answered: set[int] = set()  # workers that have answered since their process began
        try:
            super().__init__(factories, arguments, keywords, *rest, **options)
        except BaseException:  # else those that have begun would be waited for, at the process's end
            for process in getattr(self, "processes", []):
                process.kill()
            raise
        self.send_pipes, self.recv_pipes = list(self.send_pipes), list(self.recv_pipes)

    @override
    def _addressed(self) -> slice:
        workers: Any = self.w_slice
        first, stop = (workers, workers + 1) if isinstance(workers, int) else (workers.start, workers.stop)
        return slice(first * self.envs_per_worker, stop * self.envs_per_worker)

    @override
    def recv(self) -> Any:
        for worker in self.waiting_workers[: self.workers_per_batch]:
            self._wait_for(worker)
        return super().recv()

    def _wait_for(self, worker: int) -> None:
        """Returns when the worker has answered, or one in its place.

        Raises WorkerFailure when it cannot and is not to be started anew.
        """
        waited, looked, patience = 0.0, time.monotonic(), self._patience(worker)
        while not self._has_answered(worker):
            now = time.monotonic()
            if now - looked < 0.05:
                continue
            waited, looked = waited + min(now - looked, 0.1), now  # while this process itself is stopped nobody waits
            process = self.processes[worker]
            if process.exitcode is not None:
                reason = f"died with exit code {process.exitcode}"
                if process.exitcode < 0:
                    reason += f" (signal {-process.exitcode})"
            elif waited > patience:
                reason = f"has not answered for {patience:g} seconds (vecenv.worker_timeout)"
            else:
                continue
            first = worker * self.envs_per_worker
            name = (
                f"worker {worker} (process {process.pid}, environments {first} to {first + self.envs_per_worker - 1})"
            )
            if not self._watch.restart:
                raise WorkerFailure(
                    f"{name} {reason}. Go on from the last checkpoint with resume=RUN_DIR, "
                    "or let vecenv.on_worker_failure=restart start it anew"
                )
            if worker not in self._answered:
                raise WorkerFailure(f"{name} {reason}, before its environments had begun: starting it anew is no use")
            log.warning("%s %s: it is started anew, and its environments are rebuilt", name, reason)
            self._restart(worker)
            waited, patience = 0.0, self._patience(worker)
        self._answered.add(worker)

    def _patience(self, worker: int) -> float:
        """Seconds that an answer may take: each environment may have to build a map, and at first more than that."""
        seconds = self._watch.timeout + self.envs_per_worker * BUILD_SECONDS
        if worker in self._answered:
            return seconds
        first = worker * self.envs_per_worker
        again = sum(len(start.actions) for start in self.record.starts()[first : first + self.envs_per_worker])
        return seconds + START_SECONDS + self.envs_per_worker + again * REPLAY_SECONDS

    def _has_answered(self, worker: int) -> bool:
        answer = self.buf["semaphores"][worker]
        if answer == vector.INFO:  # it may have died before it had sent what it announces
            return self.processes[worker].exitcode is None and self.recv_pipes[worker].poll()
        return answer >= vector.MAIN

    def _restart(self, worker: int) -> None:
        """Replaces a worker's process; its environments play again what they had played."""
        self.processes[worker].kill()
        self.processes[worker].join()
        self._answered.discard(worker)
        first = worker * self.envs_per_worker
        mine = slice(first, first + self.envs_per_worker)
        factories, arguments, keywords = (made[mine] for made in self._made_of)
        keywords = [{**kw, "start": start} for kw, start in zip(keywords, self.record.starts()[mine], strict=True)]
        self.send_pipes[worker], their_end = Pipe()
        their_other_end, self.recv_pipes[worker] = Pipe()
        observations, actions = self.single_observation_space, self.single_action_space
        process = Process(
            target=vector._worker_process,
            args=(
                *(factories, arguments, keywords),
                *(observations.shape, observations.dtype, actions.shape, self.actions.dtype),
                *(self.envs_per_worker, self._agents, self.num_workers, worker),
                *(their_other_end, their_end, self.shm, True, worker),
            ),
        )
        self.buf["semaphores"][worker] = vector.RESET
        process.start()
        self.processes[worker] = process
        self.send_pipes[worker].send(self._seed + worker)

    @override
    def async_reset(self, seed: int = 0) -> None:
        self._seed = seed
        super().async_reset(seed)

    @override
    def close(self) -> None:
        self.driver_env.close()
        for process in self.processes:
            process.kill()  # workers leave every milder signal to the trainer
        for process in self.processes:
            process.join()


def make_vecenv(
    config: VecenvConfig,
    games: Sequence[MettaGridConfig],
    run_seed: int,
    state: dict[str, Tensor] | None = None,
    ranks: Ranks = ALONE,
    turns: Turns = ALWAYS_THE_FIRST,
) -> Any:
    """The vectorised environments of a run, or a rank's part of them: [num_envs x agents] acting as one batch.

    Several `games`, which have as many agents each, are played by `turns`.

    `state` is a record's: environments then go on from there once they are reset. Under `consecutive` the early resets
    are drawn from numpy's global generator: seed it before.
    """
    first = ranks.rank * config.num_envs
    factory = EnvFactory(
        tuple(games), run_seed, config.map_seeds, config.early_reset, config.stale_first_action, first, turns
    )
    record = Record(config.num_envs, games[0].game.num_agents, config.stale_first_action, turns, first)
    starts: list[Start | None] = [None] * config.num_envs
    if state is not None:
        record.load_state_dict(state)
        starts = [*record.starts()]
    arguments: Any = ([factory] * config.num_envs, [[]] * config.num_envs, [{"start": start} for start in starts])
    try:
        if config.name == "serial":
            return Serial(*arguments, config.num_envs, record=record)
        if multiprocessing.get_start_method() == "loky":  # of joblib, whose processes cannot share memory with theirs
            multiprocessing.set_start_method(START_METHOD, force=True)
        return Multiprocessing(
            *arguments,
            config.num_envs,
            config.num_workers,
            config.batch_size or config.num_envs,
            overwork=True,  # the config's check counts logical cores, PufferLib's own only physical ones
            record=record,
            watch=Options(config.worker_timeout, config.on_worker_failure == "restart"),
        )
    except (TypeError, OverflowError) as error:  # what the simulator raises for numbers that do not fit its own
        reason = str(error).splitlines()[-1]
        raise ScoutError(
            f"the simulator refuses this mission ({reason}): look for a value in mission that is too large"
        ) from error
