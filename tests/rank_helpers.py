"""Jobs of several processes, as torchrun starts them, and what this file does itself as one of those processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch
from conftest import ROOT, merge, tiny_experiment
from torch import Tensor

from scout.build import build
from scout.config import Experiment
from scout.mission import make_game
from scout.ppo import PPO
from scout.rank_link import joined
from scout.ranks import ALONE, Ranks

RANKS, UPDATES, HORIZON = 2, 5, 16
LARGE_REWARDS: dict[str, Any] = {"mission": {"rewards": {"cell_visited": 1.0}}}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]


class Job:
    """A job of two processes that torchrun starts."""

    def __init__(self, *command: str, restarts: int = 0, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*TORCHRUN, f"--max-restarts={restarts}", *command],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank, which must have begun."""
        for process in psutil.Process(self.process.pid).children():
            if process.environ().get("RANK") == str(number):
                return process
        raise AssertionError(f"rank {number} is not there")

    def end(self, timeout: float = 90) -> tuple[int, str]:
        """Waits for its end: exit code, and what it printed to stderr."""
        try:
            _, shown = self.process.communicate(timeout=timeout)
        finally:
            self.kill()
        return self.process.returncode, shown

    def kill(self) -> None:
        """Ends what is left of it."""
        if self.process.poll() is None:
            for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                process.kill()
            self.process.communicate()


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "workers in batches": {"vecenv": {"name": "multiprocessing", "num_workers": 2, "batch_size": 2}},
    "prioritized, with a limit": {"trainer": {"prioritized_replay": True, "target_kl": 1e-5}},
    "parts of minibatches, muon": {"trainer": {"max_minibatch_size": 64}, "optimizer": {"name": "muon"}},
    "consecutive maps, no scale": {"vecenv": {"map_seeds": "consecutive"}, "trainer": {"normalize_rewards": False}},
    "conv in bfloat16": {"model": {"name": "conv", "hidden_size": 8}, "device": {"precision": "bfloat16"}},
}
"""What else two ranks are to agree on."""


def experiment_of(ranks: int, **changes: Any) -> Experiment:
    """One that is the same for one process and for several: the sizes are those of each process.

    Two rollout segments an agent, two epochs of four minibatches, excursions, and episodes that end within.
    """
    sizes = {"batch_size": 1024 // ranks, "minibatch_size": 256 // ranks, "update_epochs": 2, "bptt_horizon": HORIZON}
    base = {
        "total_timesteps": UPDATES * 1024,
        **LARGE_REWARDS,
        "trainer": {**sizes, "excursion_share": 0.3, "excursion_length": 5},
        "vecenv": {"num_envs": 8 // ranks},
    }
    return tiny_experiment(**merge(base, changes))


def updates(ranks: Ranks, experiment: Experiment) -> list[dict[str, Any]]:
    """What a trainer has after each of some updates, as this rank of a job."""
    trainer = build(experiment, make_game(experiment.mission), "cpu", ranks=ranks)
    assert isinstance(trainer, PPO)
    if ranks.size == 1:
        take_the_segments_of_both(trainer)
    found = []
    for _ in range(UPDATES):
        trainer.evaluate()
        trainer.train()
        found.append(
            {
                "parameters": {name: p.detach().clone() for name, p in trainer.uncompiled_policy.named_parameters()},
                "losses": dict(trainer.losses),
                "agent_steps": trainer.global_step,
                "generator": torch.get_rng_state(),
                "actions": trainer.actions.clone(),
                "excursion": trainer.excursion.clone(),
                "ended": trainer.ended.clone(),
                "reward_scale": trainer.reward_scale.divisors[0],
                "episodes": len(trainer.episodes.get("attributes/steps", [])),
                "first_observations": trainer.observations[:, 0].clone(),
            }
        )
    trainer.close()
    return found


def take_the_segments_of_both(trainer: PPO) -> None:
    """Lets one process draw the minibatches that two ranks draw together: the same segments of either's agents."""
    agents, each = trainer.total_agents, trainer.total_agents // RANKS
    segments, size = trainer.segments // RANKS, trainer.config["minibatch_size"] // HORIZON // RANKS
    order: Tensor

    def draw(minibatch: int, advantages: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal order
        begin = minibatch * size % segments
        if begin == 0:
            order = torch.randperm(segments)
        own = order[begin : begin + size]
        rows = torch.cat([own // each * agents + rank * each + own % each for rank in range(RANKS)])
        return rows, torch.ones(len(rows), 1)

    trainer._draw = draw


if __name__ == "__main__":
    with joined(Ranks.from_environment(), None, lambda _: False) as (ranks, _):
        assert ranks != ALONE
        found = updates(ranks, experiment_of(ranks.size, **VARIANTS[sys.argv[2]]))
        torch.save(found, Path(sys.argv[1]) / f"{ranks.rank}.pt")
