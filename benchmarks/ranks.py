"""One run on one and on two processes, and what the cost of an update is made of: `python benchmarks/ranks.py`.

The default run takes turns on one process with one thread, on one with two, and on two with one thread each, which
torchrun starts. Then the two processes share numbers of several sizes, which gives the time that an exchange takes. What
was found is kept in benchmarks/ranks.json; the model of cost in it (`predicted`) is fitted to the first alone and
compared with the others in docs/scaling.md, whose tables this writes. `--report` writes these anew and measures nothing.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from results_page import DOCS
from turns import Clock

HERE = Path(__file__).resolve().parent
RECORD, PAGE = HERE / "ranks.json", DOCS / "scaling.md"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENTS, HORIZON, AGENTS, EPOCHS, MINIBATCH = 16, 64, 4, 3, 1024  # the default's
POINTS: dict[str, tuple[list[str], int]] = {
    "1 process, 1 thread": ([], 1),
    "1 process, 2 threads": ([], 2),
    "2 processes, 1 thread each": (TORCHRUN, 1),
}
SIZES = [2**exponent for exponent in range(4, 24, 3)]  # float32 numbers of an exchange
PARTS = ("env", "forward", "update", "exchange")


# -- one turn, in each of its processes --------------------------------------------------------------------------------


def measure(threads: int, updates: int) -> None:
    """The first process prints steps per second, and milliseconds of 1,000 agent steps of one process by part."""
    import torch
    from torch import distributed

    from scout.build import build
    from scout.cli import compose_experiment
    from scout.device import make_device
    from scout.mission import make_game
    from scout.rank_link import joined
    from scout.ranks import Ranks

    experiment = compose_experiment("device=cpu", f"device.threads={threads}", "wandb=disabled")
    with joined(Ranks.from_environment(), None, lambda _: False) as (ranks, _):
        trainer = build(experiment, make_game(experiment.mission), make_device(experiment.device), None, ranks)
        clock = Clock()
        for method in ("send", "recv"):
            clock.around(trainer.vecenv, method)
        for method in ("evaluate", "train"):
            clock.around(trainer, method)
        clock.around(distributed, "all_reduce")

        def update() -> None:
            trainer.evaluate()
            trainer.train()

        update()
        clock.seconds.clear()
        start, first = time.perf_counter(), trainer.global_step
        for _ in range(updates):
            update()
        elapsed, steps = time.perf_counter() - start, trainer.global_step - first
        spent, mine = clock.seconds, steps / ranks.size / 1000
        env, exchange = spent["send"] + spent["recv"], spent["all_reduce"]
        parts = (env, spent["evaluate"] - env, spent["train"] - exchange, exchange)
        if ranks.first:
            found = {part: 1000 * value / mine for part, value in zip(PARTS, parts, strict=True)}
            parameters = sum(parameter.numel() for parameter in trainer.uncompiled_policy.parameters())
            print(json.dumps({"steps_per_second": steps / elapsed, **found, "parameters": parameters}), flush=True)
        torch.set_num_threads(1)
        trainer.close()


def measure_exchange(times: int) -> None:
    """The first process prints the median seconds of an exchange of each size."""
    import torch
    from torch import distributed

    from scout.rank_link import joined
    from scout.ranks import Ranks

    torch.set_num_threads(1)
    with joined(Ranks.from_environment(), None, lambda _: False) as (ranks, _):
        found = {}
        for size in SIZES:
            numbers, seconds = torch.ones(size), []
            for _ in range(times):
                distributed.barrier()
                start = time.perf_counter()
                distributed.all_reduce(numbers)
                seconds.append(time.perf_counter() - start)
            found[str(size)] = statistics.median(seconds)
        if ranks.first:
            print(json.dumps(found), flush=True)


def run(launch: list[str], *arguments: str) -> dict[str, float]:
    """What the first process of this file, started with these arguments, printed last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if launch else dict(os.environ)
    command = [sys.executable, *launch, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -- the model of cost -------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """What a process needs: seconds."""

    env: float
    """Of an agent step in the simulator."""
    forward: float
    """Of an agent step in the rollout's network."""
    update: float
    """Of an agent step in one epoch of training."""
    latency: float
    """Of an exchange between two processes, however small."""
    per_number: float
    """Of each float32 number of an exchange between two."""


def fitted(record: dict[str, Any]) -> Cost:
    """The costs, of one process with one thread and of the exchanges alone."""
    alone = record["medians"]["1 process, 1 thread"]
    sizes = np.array([int(size) for size in record["exchange"]], dtype=float)
    seconds = np.array(list(record["exchange"].values()))
    latency = float(np.mean(seconds[:2]))
    per_number = float(np.polyfit(sizes[-3:], seconds[-3:], 1)[0])
    env, forward, update = (alone[part] / 1e6 for part in PARTS[:3])
    return Cost(env, forward, update / EPOCHS, latency, per_number)


def predicted(
    cost: Cost, processes: int, parameters: float, environments: int = ENVIRONMENTS, minibatch: int = MINIBATCH
) -> tuple[float, float]:
    """Agent steps per second of all processes, and the part of the time that goes into exchanges.

    A ring's exchange among P sends 2 (P - 1) / P of its numbers over each link, in 2 (P - 1) steps: of two processes
    one number each way in two steps. Source: Patarasuk and Yuan, 2009, "Bandwidth optimal all-reduce algorithms".
    """
    steps = environments * AGENTS * HORIZON
    work = steps * (cost.env + cost.forward + EPOCHS * cost.update)
    hops = 2 * (processes - 1)
    exchange = hops / 2 * cost.latency + hops / processes * parameters * cost.per_number
    statistics_exchange = hops / 2 * cost.latency
    exchanges = EPOCHS * steps / minibatch * (exchange + 2 * statistics_exchange)
    return processes * steps / (work + exchanges), exchanges / (work + exchanges)
