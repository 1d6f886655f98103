"""Two tasks whose truth is known, of memory and of exploration: `trainer=ppo` against PuffeRL as shipped.

`python benchmarks/known_truth.py` trains both trainers on both tasks with three seeds, a core each, and writes the
table within docs/results.md. tests/test_known_truth.py demands the outcome of one seed.

Both trainers get the same network, settings, seed and agent steps. A segment has 4 steps, and in both tasks a reward
comes 4 steps or more after what must be remembered to earn it, as in MettaGrid, whose episodes have 1,000 steps against
segments of 64. PuffeRL begins each rollout and each segment without memory and loses a segment's last reward.

A trainer solves a task when two mean returns are close to the optimum: that of the last 1,000 episodes of its training,
as it plays them, with all their noise; and that of fresh episodes, which its network plays greedily, with a state that
begins at zero and is carried through the episode. The second gives PuffeRL's network the care that its own play lacks.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from known_tasks import Flags, KnownTask, NameTheCue, SmallNetwork, SweepTheCorridor
from numpy.typing import NDArray
from pufferlib import vector
from results_page import put_table

from scout.build import TRAINERS
from scout.config import Experiment
from scout.device import seed_everything

TASKS: list[type[KnownTask]] = [NameTheCue, SweepTheCorridor]
UPDATES, SEEDS = 150, (1, 2, 3)

# What both trainers get. PuffeRL's clip of 0.2 around old values is opened, since a return of 8 is far beyond it.
SETTINGS: dict[str, Any] = {
    "total_timesteps": UPDATES * 1024,
    "mission": {"num_agents": 16},  # of the mission and the environments nothing but the number of agents is read
    "vecenv": {"num_envs": 16},
    "trainer": {
        "bptt_horizon": 4,
        "minibatch_size": 256,
        "update_epochs": 2,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "vf_coef": 0.5,
        "vf_clip_coef": 10.0,
        "normalize_rewards": False,
        "excursion_share": 0.0,
        "ent_coef": 0.03,
    },
    "optimizer": {"learning_rate": 3e-3, "adam_beta1": 0.9},
    "device": {"name": "cpu", "precision": "float32"},
}

Player = Callable[[NDArray[np.uint8], Flags], NDArray[np.integer]]
"""Observations, and whose episode begins with them -> actions."""


class Result(NamedTuple):
    """Mean returns as parts of the optimum."""

    training: float
    fresh: float


def play(task: KnownTask, player: Player, steps: int) -> list[float]:
    """The returns of the whole episodes that end within so many steps of each agent."""
    task.reset(seed=12345)
    begins = np.ones(task.num_agents, dtype=bool)
    for _ in range(steps):
        actions = player(task.observations.copy(), begins)
        begins = task.over  # their actions are ignored, and the next step begins anew
        task.step(actions)
    return task.returns


def greedy(network: SmallNetwork) -> Player:
    """The most probable actions, with a state that begins at zero in each episode."""
    state: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def act(observations: NDArray[np.uint8], begins: Flags) -> NDArray[np.integer]:
        for key in ("lstm_h", "lstm_c"):
            before = state.get(key, torch.zeros(len(begins), network.hidden_size))
            state[key] = before * ~torch.from_numpy(begins)[:, None]
        logits, _ = network.forward_eval(torch.from_numpy(observations), state)
        return logits.argmax(dim=-1).numpy()

    return act


@cache
def trained(make_task: type[KnownTask], trainer_name: str, seed: int = 1) -> Result:
    """Trains a small network on a task, and judges it in both ways."""
    settings = {**SETTINGS, "seed": seed, "trainer": {"name": trainer_name, **SETTINGS["trainer"]}}
    experiment = Experiment.model_validate(settings)
    seed_everything(experiment.seed)

    def make_env(buf: Any = None, seed: int | None = None) -> KnownTask:
        return make_task(experiment.total_agents, buf)  # the trainer's reset brings the seed

    vecenv = vector.make(make_env, backend=vector.Serial, num_envs=1, num_workers=1, batch_size=1)
    task = vecenv.driver_env
    network = SmallNetwork(task)
    trainer = TRAINERS[trainer_name](experiment, "cpu", vecenv, network)
    try:
        for _ in range(trainer.total_updates):
            trainer.evaluate()
            trainer.train()
        training = float(np.mean(task.returns[-1000:])) / task.optimum
    finally:
        trainer.close()
    assert trainer.global_step == UPDATES * 1024
    return Result(training, float(np.mean(play(make_task(128), greedy(network), steps=130))) / task.optimum)


def measured(task: str, trainer_name: str, seed: int) -> tuple[str, str]:
    """`trained` in a process of its own, on one core, as it is written in the table."""
    command = [sys.executable, __file__, task, trainer_name, str(seed)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    training, fresh = done.stdout.splitlines()[-1].split()
    return training, fresh


def main() -> None:
    """Every task, trainer and seed, two at a time."""
    columns = [(trainer_name, seed) for trainer_name in ("ppo", "pufferl") for seed in SEEDS]
    lines = [
        "| | corrected, training | corrected, fresh episodes | as shipped, training | as shipped, fresh episodes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for task in TASKS:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda column, name=task.__name__: measured(name, *column), columns))
        parts = (found[: len(SEEDS)], found[len(SEEDS) :])
        cells = [", ".join(values) for part in parts for values in zip(*part, strict=True)]
        lines.append(f"| {task.__name__} | {' | '.join(cells)} |")
    put_table("known truth", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:]:
        task_name, trainer_name, seed = sys.argv[1:]
        result = trained(next(task for task in TASKS if task.__name__ == task_name), trainer_name, int(seed))
        print(f"{result.training:.3f} {result.fresh:.3f}")
    else:
        main()
