"""Microseconds of one environment's step, and memory of one environment: `python benchmarks/env_step.py`.

Upstream's MettaGridPufferEnv, this project's LeanEnv, and the simulator's own step alone play the same worlds with the
same actions in one process, in short turns; at the end their observations must be equal. No episode ends meanwhile.
Prints a table and writes benchmarks/env_step.json and a table of docs/performance.md.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from results_page import PERFORMANCE, markdown, put_table
from turns import machine, write_record

RECORD = Path(__file__).resolve().parent / "env_step.json"
NUM_ENVS = (4, 8, 16, 32, 64, 128, 256)
KINDS = ("upstream", "lean", "simulator")
SEED, WARMUP_STEPS = 1, 40
TURNS, STEPS = 60, 15  # with the steps before them less than an episode


def upstream_env(game: Any, index: int) -> Any:
    """MettaGridPufferEnv as `cogames train` makes it, in the world that EnvFactory gives this index."""
    from mettagrid.envs.early_reset_handler import EarlyResetHandler
    from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
    from mettagrid.envs.stats_tracker import StatsTracker
    from mettagrid.simulator import Simulator
    from mettagrid.util.stats_writer import NoopStatsWriter
    from pufferlib.pufferlib import set_buffers

    from scout.environment import set_map_seed, training_map_seed

    config = game.model_copy(deep=True)
    set_map_seed(config, training_map_seed(SEED, index))
    early_reset = EarlyResetHandler()
    early_reset._should_early_reset = False  # it is asked at every step, but ends nothing
    simulator = Simulator()
    simulator.add_event_handler(StatsTracker(NoopStatsWriter()))
    simulator.add_event_handler(early_reset)
    env = MettaGridPufferEnv(simulator, config, seed=SEED + index)
    set_buffers(env)
    return env


def stepper(kind: str, env: Any) -> Callable[[np.ndarray], Any]:
    """What plays one step of an environment, given the actions of its agents."""
    if kind != "simulator":
        return env.step
    chosen, play = env._buffers.actions, env.current_simulation._c_sim.step

    def step(actions: np.ndarray) -> None:
        chosen[:] = actions
        play()

    return step


def resident_mb() -> float:
    """Memory of this process, now."""
    import psutil

    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def measure(num_envs: int) -> dict[str, Any]:
    """Microseconds of a step in each turn, and MB of an environment, for each kind."""
    from scout.cli import compose_experiment
    from scout.environment import EnvFactory
    from scout.mission import make_game

    experiment = compose_experiment()
    game = make_game(experiment.mission)
    assert game.game.max_steps > WARMUP_STEPS + TURNS * STEPS
    factory = EnvFactory((game,), SEED, "spread", early_reset=False)
    makers: dict[str, Callable[[int], Any]] = {
        "upstream": lambda index: upstream_env(game, index),
        "lean": lambda index: factory(seed=index),
        "simulator": lambda index: upstream_env(game, index),
    }
    spare = [make(num_envs) for make in makers.values()]  # what a first one loads is no environment's
    envs, memory = {}, {}
    for kind, make in makers.items():
        before = resident_mb()
        envs[kind] = [make(index) for index in range(num_envs)]
        for env in envs[kind]:
            env.reset()  # the buffers were exchanged
        memory[kind] = (resident_mb() - before) / num_envs
    del memory["simulator"]  # it was made as upstream's
    for env in spare:  # not before, or the first kind would grow into its memory
        env.close()

    first = envs["lean"][0]
    shape = (WARMUP_STEPS + TURNS * STEPS, num_envs, first.num_agents)
    actions = np.random.default_rng(SEED).integers(int(first.single_action_space.n), size=shape, dtype=np.int32)
    steppers = {kind: [stepper(kind, env) for env in envs[kind]] for kind in KINDS}

    def play(kind: str, chosen: np.ndarray) -> float:
        start = time.perf_counter()
        for step_actions in chosen:
            for step, agents_actions in zip(steppers[kind], step_actions, strict=True):
                step(agents_actions)
        return (time.perf_counter() - start) / (len(chosen) * num_envs) * 1e6

    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        play(kind, actions[:WARMUP_STEPS])
    for turn in range(TURNS):
        begin = WARMUP_STEPS + turn * STEPS
        for offset in range(len(KINDS)):
            kind = KINDS[(turn + offset) % len(KINDS)]
            found[kind].append(play(kind, actions[begin : begin + STEPS]))
    for same in zip(*envs.values(), strict=True):
        observations = [env._buffers.observations for env in same]
        assert all(np.array_equal(observations[0], other) for other in observations[1:]), "the worlds have parted"
    return {"microseconds": found, "memory_mb_per_env": memory}


def table(medians: dict[str, Any]) -> str:
    """Markdown: one row a number of environments."""
    rows = []
    for num_envs, middle in medians.items():
        upstream, lean, simulator = (middle[kind] for kind in KINDS)
        memory = middle["memory_mb_per_env"]
        rows.append(
            [
                num_envs,
                *(f"{value:.1f}" for value in (upstream, lean, simulator)),
                f"{upstream / lean:.2f}",
                *(f"{memory[kind]:.2f} MB" for kind in ("upstream", "lean")),
            ]
        )
    head = ["environments", "MettaGridPufferEnv, µs", "LeanEnv, µs", "simulator alone, µs", "LeanEnv is faster by"]
    return markdown([*head, "memory of a MettaGridPufferEnv", "memory of a LeanEnv"], rows)


def main() -> None:
    """Each number of environments in a process of its own, so that none grows into memory that another has left."""
    found = {}
    for num_envs in NUM_ENVS:
        command = [sys.executable, __file__, "--one", str(num_envs)]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[str(num_envs)] = json.loads(printed.splitlines()[-1])
        print(f"{num_envs} environments measured", file=sys.stderr, flush=True)
    medians = {
        num_envs: {
            **{kind: statistics.median(turns) for kind, turns in point["microseconds"].items()},
            "memory_mb_per_env": point["memory_mb_per_env"],
        }
        for num_envs, point in found.items()
    }
    write_record(RECORD, {"machine": machine(), "points": found, "medians": medians})
    put_table("env step", table(medians), PERFORMANCE)
    print(table(medians))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))), flush=True)
    else:
        main()
