"""Checks across the groups of an experiment: sizes that must fit, and what a trainer cannot do."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scout.config import Experiment, VecenvConfig


def problems(experiment: "Experiment") -> list[str]:
    """Everything that does not fit together, one message each; empty when all is well."""
    return [*batch_problems(experiment), *vecenv_problems(experiment.vecenv), *pufferl_problems(experiment)]


def batch_problems(experiment: "Experiment") -> list[str]:
    """Sizes that must divide each other, each problem with the numbers and the nearest ones that fit."""
    trainer, agents = experiment.trainer, experiment.total_agents
    horizon, batch, minibatch = trainer.bptt_horizon, trainer.batch_size, trainer.minibatch_size
    problems = []
    rollout = agents * horizon
    if batch % rollout:
        problems.append(
            f"trainer.batch_size={batch} must be a multiple of {rollout}, which is {experiment.vecenv.num_envs} "
            f"environments x {experiment.mission.agents_per_env} agents x trainer.bptt_horizon={horizon} steps; "
            f"nearest: {_nearest_multiples(batch, rollout)}"
        )
    if minibatch % horizon:
        problems.append(
            f"trainer.minibatch_size={minibatch} must be a multiple of trainer.bptt_horizon={horizon}; "
            f"nearest: {_nearest_multiples(minibatch, horizon)}"
        )
    elif minibatch > batch or batch % minibatch:
        fitting = [size for size in range(horizon, batch + 1, horizon) if batch % size == 0]
        near = sorted(sorted(fitting, key=lambda size: abs(size - minibatch))[:2])
        problems.append(
            f"trainer.minibatch_size={minibatch} must divide trainer.batch_size={batch}"
            + (f"; nearest: {' or '.join(map(str, near))}" if near else "")
        )
    if minibatch > trainer.max_minibatch_size and minibatch % trainer.max_minibatch_size:
        problems.append(
            f"trainer.minibatch_size={minibatch} is above trainer.max_minibatch_size={trainer.max_minibatch_size} and "
            f"must be a multiple of it; nearest: {_nearest_multiples(minibatch, trainer.max_minibatch_size)}"
        )
    if minibatch > trainer.max_minibatch_size and trainer.max_minibatch_size % horizon:
        problems.append(
            f"trainer.max_minibatch_size={trainer.max_minibatch_size} must be a multiple of "
            f"trainer.bptt_horizon={horizon}; nearest: {_nearest_multiples(trainer.max_minibatch_size, horizon)}"
        )
    if experiment.total_timesteps < batch:
        problems.append(
            f"total_timesteps={experiment.total_timesteps} is below one batch, trainer.batch_size={batch}: "
            f"set total_timesteps={batch} or more"
        )
    return problems


def vecenv_problems(vecenv: "VecenvConfig") -> list[str]:
    """Workers and batches of environments that do not fit."""
    if vecenv.name == "serial":
        problems = []
        if vecenv.num_workers != 1:
            problems.append(f"vecenv.num_workers={vecenv.num_workers} must be 1 with vecenv=serial")
        if vecenv.batch_size not in (None, vecenv.num_envs):
            problems.append(
                f"vecenv.batch_size={vecenv.batch_size} must be null or "
                f"vecenv.num_envs={vecenv.num_envs} with vecenv=serial"
            )
        return problems
    cores = os.cpu_count() or 1
    if vecenv.num_workers > cores:
        return [
            f"vecenv.num_workers={vecenv.num_workers} is more than this machine's {cores} cores: take {cores} or fewer"
        ]
    if vecenv.num_envs % vecenv.num_workers:
        return [
            f"vecenv.num_envs={vecenv.num_envs} must be a multiple of vecenv.num_workers={vecenv.num_workers}; "
            f"nearest: {_nearest_multiples(vecenv.num_envs, vecenv.num_workers)}"
        ]
    per_worker = vecenv.num_envs // vecenv.num_workers
    batch = vecenv.batch_size
    if batch is not None and (batch % per_worker or vecenv.num_envs % batch):
        fitting = [size for size in range(per_worker, vecenv.num_envs + 1, per_worker) if vecenv.num_envs % size == 0]
        return [
            f"vecenv.batch_size={batch} must divide vecenv.num_envs={vecenv.num_envs} and be a multiple of the "
            f"{per_worker} environments of a worker; valid: {', '.join(map(str, fitting))}"
        ]
    return []


def pufferl_problems(experiment: "Experiment") -> list[str]:
    """What PuffeRL as shipped cannot do, it refuses here instead of ignoring it."""
    if experiment.trainer.name != "pufferl":
        return []
    problems = []
    optimizer = experiment.optimizer
    if optimizer.name != "adam":
        problems.append(f"optimizer={optimizer.name} is not in trainer=pufferl: take optimizer=adam, or trainer=ppo")
    if optimizer.min_lr_ratio > 0:
        problems.append(
            f"optimizer.min_lr_ratio={optimizer.min_lr_ratio} is never read by trainer=pufferl: "
            "set it to 0, or take trainer=ppo"
        )
    if experiment.device.precision != "float32":
        problems.append(
            f"device.precision={experiment.device.precision} under trainer=pufferl acts for ever with the "
            "weights of the first update: take device.precision=float32, or trainer=ppo"
        )
    return problems


def _nearest_multiples(value: int, unit: int) -> str:
    below = value // unit * unit
    return " or ".join(str(multiple) for multiple in (below, below + unit) if multiple > 0)
