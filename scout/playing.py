"""An evaluation's episodes, played by as many processes as the machine has cores."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation

from scout.environment import START_METHOD, serve_the_parent
from scout.errors import ScoutError
from scout.policies import NetworkPolicy, Policy
from scout.rollout import Episode, play

POLL_SECONDS = 0.1
CONTEXT: Any = multiprocessing.get_context(START_METHOD)


def play_all(
    policy: Policy,
    game: MettaGridConfig,
    seed: int,
    episodes: int,
    parallel: int = 8,
    processes: int | None = None,
    on_steps: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Episodes 0 .. `episodes` - 1 of an evaluation seed, in their order; each is the same however they are spread.

    Each process plays up to `parallel` at a time. `processes` None is one for each core, and a single one for a network
    on a GPU. `on_steps` is told now and then how many steps were played since, of all episodes together.

    Raises ScoutError when a process dies and for several of them on a GPU, and whatever the policy raises.
    """
    on_gpu = isinstance(policy, NetworkPolicy) and policy.device != "cpu"
    if on_gpu and processes not in (None, 1):
        raise ScoutError(f"processes={processes} is for a CPU, and {policy.name} plays on a GPU: leave it out")
    processes = min(processes or (1 if on_gpu else _cores()), episodes)
    each = -(-episodes // (-(-episodes // (parallel * processes)) * processes))  # waves of even size, for all processes
    waves = [range(start, min(start + each, episodes)) for start in range(0, episodes, each)]
    on_steps = on_steps or (lambda steps: None)
    if processes == 1:
        return _play_waves(policy, game, seed, waves, on_steps)
    return _spread(policy, game, seed, [waves[first::processes] for first in range(processes)], on_steps)


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _play_waves(
    policy: Policy, game: MettaGridConfig, seed: int, waves: Sequence[range], on_steps: Callable[[int], None]
) -> list[Episode]:
    found = []
    for wave in waves:

        def advance(simulation: Simulation, size: int = len(wave)) -> None:
            if simulation.current_step:
                on_steps(size)

        found += play(policy, game, seed, wave, on_step=advance)
    return found


def _spread(
    policy: Policy,
    game: MettaGridConfig,
    seed: int,
    shares: Sequence[Sequence[range]],
    on_steps: Callable[[int], None],
) -> list[Episode]:
    played = CONTEXT.Value("q", 0)
    workers, pipes = [], {}
    found: list[Episode] = []
    seen = 0
    try:
        for share in filter(None, shares):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            worker = CONTEXT.Process(target=_work, args=(theirs, played, policy, game, seed, share), daemon=True)
            worker.start()
            theirs.close()
            workers.append(worker)
            pipes[ours] = worker
        while pipes:
            for pipe in wait(list(pipes), POLL_SECONDS):
                assert isinstance(pipe, Connection)
                found += _received(pipe, pipes[pipe])
                del pipes[pipe]
            on_steps(played.value - seen)
            seen = played.value
    finally:
        for worker in workers:
            worker.kill()  # they ignore a mere request, which a terminal sends them too
            worker.join()
    return sorted(found, key=lambda episode: episode.record["episode"])


def _received(pipe: Connection, worker: Any) -> list[Episode]:
    try:
        result = pipe.recv()
    except EOFError:
        worker.join()
        raise ScoutError(
            f"a process that played episodes ended with exit code {worker.exitcode}, which a lack of memory does too: "
            "nothing was written. Try again with processes=1 or a smaller parallel"
        ) from None
    if isinstance(result, BaseException):
        raise result
    return result


def _work(pipe: Connection, played: Any, policy: Policy, game: MettaGridConfig, seed: int, waves: list[range]) -> None:
    """What a process does. One thread each: the processes have the cores between them."""
    serve_the_parent(os.getpid())
    torch.set_num_threads(1)

    def advance(steps: int) -> None:
        with played.get_lock():
            played.value += steps

    try:
        pipe.send(_play_waves(policy, game, seed, waves, advance))
    except Exception as error:
        try:
            pipe.send(error)
        except Exception:  # it cannot be pickled
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
