"""Checks across the groups of an experiment: sizes that must fit, and what a trainer cannot do."""

import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scout.errors import ScoutError, SharedError
from scout.ranks import ALONE, Ranks
from scout.sizes import check_memory

if TYPE_CHECKING:
    from scout.config import Experiment, VecenvConfig


MOST_ENVIRONMENTS = 8192  # whose maps never meet: environment.py


def problems(experiment: "Experiment") -> list[str]:
    """Everything that does not fit together, one message each; empty when all is well."""
    found = pufferl_problems(experiment)
    if experiment.vecenv.num_envs:  # else the sizes are checked when it is chosen
        found = [*batch_problems(experiment), *vecenv_problems(experiment.vecenv), *found]
    if experiment.vecenv.map_seeds == "consecutive" and "multi_team" in experiment.mission.variants:
        found.append(
            "vecenv.map_seeds=consecutive would play one map for ever with the variant multi_team: "
            "take vecenv.map_seeds=spread"
        )
    return [*found, *curriculum_problems(experiment)]


def curriculum_problems(experiment: "Experiment") -> list[str]:
    """Missions that cannot be played in turn with the first."""
    first, found = experiment.mission, []
    for name, mission in experiment.curriculum.missions.items():
        key = f"curriculum.missions.{name}"
        if name == first.name:
            found.append(f"mission={name} is in the curriculum, which has {key}, too: take it out with ~{key}")
        if mission.agents_per_env != first.agents_per_env:
            found.append(
                f"{key}.num_agents={mission.num_agents} makes {mission.agents_per_env} agents of an environment, and "
                f"mission.num_agents={first.num_agents} makes {first.agents_per_env}: all must have as many"
            )
        if mission.max_steps != first.max_steps:
            found.append(
                f"{key}.max_steps={mission.max_steps} must be mission.max_steps={first.max_steps}: "
                "episodes of all missions are of one length"
            )
    if experiment.curriculum.missions and experiment.vecenv.map_seeds == "consecutive":
        found.append("vecenv.map_seeds=consecutive is the seed's way, for one mission: take vecenv.map_seeds=spread")
    return found


def batch_problems(experiment: "Experiment") -> list[str]:
    """Sizes that must divide each other, each problem with the numbers and the nearest ones that fit."""
    trainer, horizon, batch = experiment.trainer, experiment.trainer.bptt_horizon, experiment.batch_size
    rollout = experiment.total_agents * horizon
    if batch % rollout:
        return [
            f"trainer.batch_size={batch} must be a multiple of {rollout}, which is {experiment.vecenv.num_envs} "
            f"environments x {experiment.mission.agents_per_env} agents x trainer.bptt_horizon={horizon} steps; "
            f"nearest: {_nearest_multiple(batch, rollout)}; null is one such rollout"
        ]
    problems = []
    minibatch, largest = trainer.minibatch_size, trainer.max_minibatch_size
    fitting = [
        size
        for size in (horizon * segments for segments in _divisors(batch // horizon))
        if size <= largest or size % largest == 0
    ]
    if minibatch > largest and largest % horizon:
        problems.append(
            f"trainer.max_minibatch_size={largest} must be a multiple of trainer.bptt_horizon={horizon}; "
            f"nearest: {_nearest_multiple(largest, horizon)}"
        )
    elif minibatch not in fitting:
        problems.append(
            f"trainer.minibatch_size={minibatch} must be a multiple of trainer.bptt_horizon={horizon} and divide the "
            f"batch of {batch} agent steps; above trainer.max_minibatch_size={largest} it must be a multiple of that; "
            f"nearest: {_nearest(minibatch, fitting)}"
        )
    if experiment.total_timesteps < batch:
        problems.append(
            f"total_timesteps={experiment.total_timesteps} is below one batch of {batch} agent steps: "
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
    workers = vecenv.num_workers
    if vecenv.num_envs % workers:
        return [
            f"vecenv.num_envs={vecenv.num_envs} must be a multiple of vecenv.num_workers={workers}; "
            f"nearest: {_nearest_multiple(vecenv.num_envs, workers)}"
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
    trainer = experiment.trainer
    for key in (
        "target_kl",
        "reward_clip",
        "normalize_rewards",
        "excursion_share",
        "carry_state",
        "prioritized_replay",
    ):
        value, only = getattr(trainer, key), type(trainer).model_fields[key].default
        if value != only:
            problems.append(
                f"trainer.{key}={_written(value)} is not in trainer=pufferl, which knows only {_written(only)}: "
                f"take trainer.{key}={_written(only)}, or trainer=ppo"
            )
    if trainer.vf_clip_coef is None:
        problems.append("trainer.vf_clip_coef=null is not in trainer=pufferl: set a number, or take trainer=ppo")
    if experiment.device.cpu_offload:
        problems.append(
            "device.cpu_offload=true fails on a GPU with trainer=pufferl, which looks up observations on the CPU by "
            "indices on the GPU: set it to false, or take trainer=ppo"
        )
    if experiment.device.precision == "bfloat16":
        problems.append(
            f"device.precision={experiment.device.precision} under trainer=pufferl acts for ever with the "
            "weights of the first update: take device.precision=float32, or trainer=ppo"
        )
    return problems


def check_ranks(experiment: "Experiment", ranks: Ranks) -> None:
    """Raises ScoutError for what one run on several processes cannot be. Apart from the schema, which knows of none."""
    if ranks.size == 1:
        return
    found = []
    environments, batch = experiment.vecenv.num_envs * ranks.size, experiment.batch_size * ranks.size
    if experiment.trainer.name == "pufferl":
        found.append(f"trainer=pufferl trains in one process, not in {ranks.size}: take trainer=ppo")
    if environments == 0:
        found.append("vecenv.num_envs=auto is measured in one process: set how many environments each process has")
    elif environments > MOST_ENVIRONMENTS:
        found.append(
            f"vecenv.num_envs={experiment.vecenv.num_envs} in each of {ranks.size} processes is more than the "
            f"{MOST_ENVIRONMENTS} environments of a run: take {MOST_ENVIRONMENTS // ranks.size} or fewer"
        )
    elif experiment.total_timesteps < batch:
        found.append(
            f"total_timesteps={experiment.total_timesteps} is below one batch of {experiment.batch_size} agent steps "
            f"in each of {ranks.size} processes: set total_timesteps={batch} or more"
        )
    if found:
        raise SharedError("\n".join(found))


def check_machine(experiment: "Experiment", ranks: Ranks = ALONE) -> None:
    """Raises ScoutError for more worker processes or threads than this machine has cores, and for too little memory.

    All processes of a job that this machine has want as much. Apart from the schema, because a run folder may come
    from a larger machine.
    """
    cores = max((os.cpu_count() or 1) // ranks.local_size, 1)
    share = "" if ranks.local_size == 1 else f" for each of {ranks.local_size} processes"
    for key, value in (
        ("vecenv.num_workers", experiment.vecenv.num_workers),
        ("device.threads", experiment.device.threads or 1),
    ):
        if value > cores:
            raise ScoutError(f"{key}={value} is more than this machine's {cores} cores{share}: take {cores} or fewer")
    check_memory(experiment, ranks.local_size)


def _written(value: object) -> str:
    """As one writes it in YAML."""
    return json.dumps(value)


def _divisors(number: int) -> list[int]:
    """All numbers that divide it, in their order; as fast for a thousand million as for ten."""
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})


def _nearest_multiple(value: int, unit: int) -> str:
    """The multiples of a unit below and above, as far as they are positive."""
    below = value // unit * unit
    return " or ".join(str(size) for size in (below, below + unit) if size > 0)


def _nearest(value: int, fitting: Sequence[int]) -> str:
    """The largest fitting value below and the smallest above, as far as there are such."""
    below, above = [size for size in fitting if size < value], [size for size in fitting if size > value]
    return " or ".join(str(size) for size in (*below[-1:], *above[:1]))
