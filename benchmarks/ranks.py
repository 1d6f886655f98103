"""One run on one and on two processes, and what the cost of an update is made of: `python benchmarks/ranks.py`.

The default run takes turns on one process with one thread, on one with two, and on two with one thread each, which
torchrun starts. Then the two processes share numbers of several sizes, which gives the time that an exchange takes.
What was found is kept in benchmarks/ranks.json. The model of cost below is fitted to the first of them and to the
exchanges alone; docs/scaling.md, whose tables this writes, compares it with the others. `--report` measures nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from results_page import DOCS, markdown, put_table
from turns import Clock, machine, medians, write_record

HERE = Path(__file__).resolve().parent
RECORD, PAGE = HERE / "ranks.json", DOCS / "scaling.md"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
POINTS: dict[str, tuple[list[str], int]] = {
    "1 process, 1 thread": ([], 1),
    "1 process, 2 threads": ([], 2),
    "2 processes, 1 thread each": (TORCHRUN, 1),
}
SIZES = [2**exponent for exponent in range(4, 24, 3)]  # float32 numbers of an exchange
PARTS = ("env", "forward", "update", "exchange")
CPU_STEPS = 16 * 4 * 64  # of an update of the default: environments, agents, steps of a segment


# -- one turn, in each of its processes --------------------------------------------------------------------------------


class Exchanges:
    """Counts and times every sum over processes, the waiting for the others included."""

    def __init__(self, distributed: Any) -> None:
        self.clear()
        share = distributed.all_reduce

        def timed(numbers: Any, *arguments: Any) -> Any:
            start = time.perf_counter()
            result = share(numbers, *arguments)
            self.seconds += time.perf_counter() - start
            self.calls, self.numbers = self.calls + 1, self.numbers + numbers.numel()
            return result

        distributed.all_reduce = timed

    def clear(self) -> None:
        """Begins anew."""
        self.seconds, self.calls, self.numbers = 0.0, 0, 0


def measure(threads: int, updates: int) -> None:
    """The first process prints steps per second, microseconds of an agent step of its own by part, and exchanges."""
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
        exchanges = Exchanges(distributed)

        def update() -> None:
            trainer.evaluate()
            trainer.train()

        update()
        clock.seconds.clear()
        exchanges.clear()
        start, first = time.perf_counter(), trainer.global_step
        for _ in range(updates):
            update()
        elapsed, steps = time.perf_counter() - start, trainer.global_step - first
        spent, mine = clock.seconds, steps / ranks.size
        env = spent["send"] + spent["recv"]
        parts = (env, spent["evaluate"] - env, spent["train"] - exchanges.seconds, exchanges.seconds)
        if ranks.first:
            found = {part: 1e6 * value / mine for part, value in zip(PARTS, parts, strict=True)}
            shared = {"exchanges": exchanges.calls / updates, "numbers": exchanges.numbers / updates}
            print(json.dumps({"steps_per_second": steps / elapsed, **found, **shared}), flush=True)
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
            for _ in range(times + 10):  # the first ones do not count
                distributed.barrier()
                start = time.perf_counter()
                distributed.all_reduce(numbers)
                seconds.append(time.perf_counter() - start)
            found[str(size)] = statistics.median(seconds[10:])
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


# -- the model of cost ---------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Seconds."""

    env: float
    """Of an agent step in the simulator."""
    forward: float
    """Of an agent step in the rollout's network."""
    update: float
    """Of an agent step in the training of an update, all epochs."""
    latency: float
    """Of an exchange between two processes, however small."""
    number: float
    """Of each number of an exchange between two: float32."""

    def update_seconds(self, processes: int, steps: int, exchanges: float, numbers: float) -> tuple[float, float]:
        """Of an update with so many agent steps in each process: without the exchanges, and of these.

        A ring of P processes sums in 2 (P - 1) steps, in each of which a P-th of the numbers goes to the next one; of
        two processes the latency is that of 2 such steps. Source: Patarasuk and Yuan, 2009, "Bandwidth optimal
        all-reduce algorithms for clusters of workstations".
        """
        hops = processes - 1
        shared = hops * exchanges * self.latency + 2 * hops / processes * numbers * self.number
        return steps * (self.env + self.forward + self.update), shared


def fitted(record: dict[str, Any]) -> Cost:
    """The costs of one process with one thread, and of the exchanges alone."""
    alone = record["medians"]["1 process, 1 thread"]
    sizes = np.array([int(size) for size in record["exchange"]], dtype=float)
    seconds = np.array(list(record["exchange"].values()))
    number, _ = np.polyfit(sizes[-3:], seconds[-3:], 1)
    env, forward, update = (alone[part] / 1e6 for part in PARTS[:3])
    return Cost(env, forward, update, float(np.median(seconds[:4])), float(number))


# -- the page ----------------------------------------------------------------------------------------------------------


def measured_table(record: dict[str, Any]) -> str:
    """Speeds, and where the time of an agent step goes in each process."""
    reference, rows = record["medians"]["1 process, 1 thread"]["steps_per_second"], []
    for name, turns in record["turns"].items():
        middle, speeds = record["medians"][name], [turn["steps_per_second"] for turn in turns]
        parts = [f"{middle[part]:.0f}" for part in PARTS]
        speed = middle["steps_per_second"]
        rows.append(
            [name, f"{speed:,.0f}", f"{min(speeds):,.0f} to {max(speeds):,.0f}", f"{speed / reference:.2f}", *parts]
        )
    return markdown(["", "agent steps/s, median", "slowest to fastest", "ratio", *PARTS], rows)


def exchange_table(record: dict[str, Any]) -> str:
    """The time of an exchange between two processes by its size, and what the model says of it."""
    cost, rows = fitted(record), []
    for size, seconds in record["exchange"].items():
        model = cost.latency + int(size) * cost.number
        rows.append([f"{int(size):,}", f"{1e3 * seconds:.2f}", f"{1e3 * model:.2f}"])
    return markdown(["float32 numbers", "measured, ms", "model, ms"], rows)


# Of one process with an H200, 64 environments in 8 workers and minibatches of 4,096: docs/performance.md, On a GPU.
GPU_STEPS, GPU_ROLLOUT, GPU_TRAINING = 64 * 4 * 64, 0.54, 0.73
# Guesses, and nothing measured: links of 100 GB/s within a machine, of 25 GB/s between machines, 4 bytes a number.
WITHIN, BETWEEN = (20e-6, 4 / 100e9), (30e-6, 4 / 25e9)


def predictions(record: dict[str, Any]) -> list[tuple[str, int, float, float]]:
    """What is predicted: name, agent steps of an update, agent steps per second, part of the time in exchanges."""
    cpu, middle = fitted(record), record["medians"]["2 processes, 1 thread each"]
    exchanges, numbers = middle["exchanges"], middle["numbers"]
    gpu = Cost(0.0, GPU_ROLLOUT / GPU_STEPS, GPU_TRAINING / GPU_STEPS, *WITHIN)
    far = gpu._replace(latency=BETWEEN[0], number=BETWEEN[1])
    cases = [
        ("2 cores: 2 processes", 2, CPU_STEPS, cpu),
        ("16 cores: 16 processes", 16, CPU_STEPS, cpu),
        ("16 cores and 1 GPU: 1 process", 1, GPU_STEPS, gpu),
        ("8 GPUs, 64 cores: 8 processes", 8, GPU_STEPS, gpu),
        ("64 such nodes: 512 processes", 512, GPU_STEPS, far),
    ]
    found = []
    for name, processes, steps, cost in cases:
        work, shared = cost.update_seconds(processes, steps, exchanges, numbers)
        batch, seconds = processes * steps, work + shared
        found.append((name, batch, batch / seconds, shared / seconds))
    return found


def predicted_table(record: dict[str, Any]) -> str:
    """What the model predicts, what is left of it if all lose what two processes lost, and what was measured."""
    two = record["medians"]["2 processes, 1 thread each"]["steps_per_second"]
    measured = {"2 cores: 2 processes": two, "16 cores and 1 GPU: 1 process": 13_367.0}
    found = predictions(record)
    kept = two / found[0][2]
    rows = [
        [
            *(
                name,
                f"{batch:,}",
                f"{speed:,.0f}",
                f"{part:.1%}",
                "" if name in measured else f"{kept * speed:,.0f}",
            ),
            f"{measured[name]:,.0f}" if name in measured else "",
        ]
        for name, batch, speed, part in found
    ]
    head = ["", "agent steps of an update", "agent steps/s, model", "in exchanges", f"x {kept:.2f}", "measured"]
    return markdown(head, rows)


def report(record: dict[str, Any]) -> None:
    """The tables, on the terminal and the page."""
    tables = {"measured": measured_table, "exchange": exchange_table, "predicted": predicted_table}
    for name, table in tables.items():
        put_table(name, table(record), PAGE)
        print(table(record), end="\n\n")
    print(f"Fitted: {fitted(record)}")


def main() -> None:
    """Measures, and writes the record and the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="the tables of what was measured before")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--updates", type=int, default=10, help="of a turn, after one that does not count")
    parser.add_argument("--turn", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--exchange", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.turn:
        measure(given.turn, given.updates)
    elif given.exchange:
        measure_exchange(given.exchange)
    else:
        if not given.report:
            turns: dict[str, list[Any]] = {name: [] for name in POINTS}
            for number in range(given.turns):
                for name, (launch, threads) in POINTS.items():
                    turns[name].append(run(launch, "--turn", str(threads), "--updates", str(given.updates)))
                    speed = turns[name][-1]["steps_per_second"]
                    print(f"turn {number + 1} of {given.turns}: {name:28} {speed:7,.0f} steps/s", file=sys.stderr)
            middles = {name: medians(found) for name, found in turns.items()}
            exchange = run(TORCHRUN, "--exchange", "100")
            write_record(RECORD, {"machine": machine(), "turns": turns, "medians": middles, "exchange": exchange})
        report(json.loads(RECORD.read_text()))


if __name__ == "__main__":
    main()
