"""Sizes and choices that must fit together: each misfit is answered with what would fit."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from config_helpers import nested, refusal
from conftest import TINY, merge, tiny_experiment

from scout.config import Experiment, MissionConfig
from scout.config_checks import check_machine
from scout.errors import ScoutError
from scout.evaluation_config import EvaluationConfig
from scout.sizes import LIBRARIES, estimate
from scout.validation import validate

# -- sizes that must fit together --------------------------------------------------------------------------------------

MINIBATCH = (
    "trainer.minibatch_size={minibatch} must be a multiple of trainer.bptt_horizon=16 and divide the batch of {batch} "
    "agent steps; above trainer.max_minibatch_size={largest} it must be a multiple of that; nearest: {nearest}"
)

# What is wrong with the small experiment (4 environments x 4 agents x 16 steps = 256, in minibatches of 128), the whole
# message, and the key and values that it proposes.
MISFITS: list[Any] = [
    pytest.param(
        {"trainer": {"batch_size": 384}},
        "trainer.batch_size=384 must be a multiple of 256, which is 4 environments x 4 agents x "
        "trainer.bptt_horizon=16 steps; nearest: 256 or 512; null is one such rollout",
        ("trainer.batch_size", [256, 512, None]),
        id="batch between two rollouts",
    ),
    pytest.param(
        {"trainer": {"batch_size": 128}},
        "trainer.batch_size=128 must be a multiple of 256, which is 4 environments x 4 agents x "
        "trainer.bptt_horizon=16 steps; nearest: 256; null is one such rollout",
        ("trainer.batch_size", [256, None]),
        id="batch below one rollout",
    ),
    pytest.param(
        {"mission": {"variants": ["multi_team"], "spawn_count": 4}},
        "trainer.batch_size=256 must be a multiple of 512, which is 4 environments x 8 agents x "
        "trainer.bptt_horizon=16 steps; nearest: 512; null is one such rollout",
        ("trainer.batch_size", [512, None]),
        id="batch of two teams",
    ),
    pytest.param(
        {"trainer": {"minibatch_size": 24}},
        MINIBATCH.format(minibatch=24, batch=256, largest=32768, nearest="16 or 32"),
        ("trainer.minibatch_size", [16, 32]),
        id="minibatch of broken segments",
    ),
    pytest.param(
        {"trainer": {"minibatch_size": 96}},
        MINIBATCH.format(minibatch=96, batch=256, largest=32768, nearest="64 or 128"),
        ("trainer.minibatch_size", [64, 128]),
        id="minibatch that does not divide the batch",
    ),
    pytest.param(
        {"trainer": {"minibatch_size": 512}},
        MINIBATCH.format(minibatch=512, batch=256, largest=32768, nearest="256"),
        ("trainer.minibatch_size", [256]),
        id="minibatch above the batch",
    ),
    pytest.param(
        {"total_timesteps": 1536, "trainer": {"batch_size": 1536, "minibatch_size": 192, "max_minibatch_size": 128}},
        MINIBATCH.format(minibatch=192, batch=1536, largest=128, nearest="128 or 256"),
        ("trainer.minibatch_size", [128, 256]),
        id="minibatch that cannot be accumulated",
    ),
    pytest.param(
        {"trainer": {"minibatch_size": 256, "max_minibatch_size": 8}},
        "trainer.max_minibatch_size=8 must be a multiple of trainer.bptt_horizon=16; nearest: 16",
        ("trainer.max_minibatch_size", [16]),
        id="accumulation in broken segments",
    ),
    pytest.param(
        {"total_timesteps": 100},
        "total_timesteps=100 is below one batch of 256 agent steps: set total_timesteps=256 or more",
        ("total_timesteps", [256, 257]),
        id="less than one batch",
    ),
    pytest.param(
        {"vecenv": {"num_workers": 2}},
        "vecenv.num_workers=2 must be 1 with vecenv=serial",
        ("vecenv.num_workers", [1]),
        id="workers of serial environments",
    ),
    pytest.param(
        {"vecenv": {"batch_size": 2}},
        "vecenv.batch_size=2 must be null or vecenv.num_envs=4 with vecenv=serial",
        ("vecenv.batch_size", [None, 4]),
        id="part of the serial environments",
    ),
    pytest.param(
        {
            "total_timesteps": 3840,
            "trainer": {"batch_size": 3840},
            "vecenv": {"name": "multiprocessing", "num_envs": 5, "num_workers": 2},
        },
        "vecenv.num_envs=5 must be a multiple of vecenv.num_workers=2; nearest: 4 or 6",
        ("vecenv.num_envs", [4, 6]),
        id="workers with different numbers of environments",
    ),
    pytest.param(
        {"vecenv": {"name": "multiprocessing", "num_workers": 2, "batch_size": 3}},
        "vecenv.batch_size=3 must divide vecenv.num_envs=4 and be a multiple of the 2 environments of a worker; "
        "valid: 2, 4",
        ("vecenv.batch_size", [2, 4]),
        id="part of a worker's environments",
    ),
    pytest.param(
        {"trainer": {"name": "pufferl"}, "optimizer": {"name": "muon"}},
        "optimizer=muon is not in trainer=pufferl: take optimizer=adam, or trainer=ppo",
        ("optimizer.name", ["adam"]),
        id="muon in pufferl",
    ),
    pytest.param(
        {"trainer": {"name": "pufferl"}, "optimizer": {"name": "adamw", "weight_decay": 0.1}},
        "optimizer=adamw is not in trainer=pufferl: take optimizer=adam, or trainer=ppo",
        ("trainer.name", ["ppo"]),
        id="adamw in pufferl",
    ),
    pytest.param(
        {"trainer": {"name": "pufferl"}, "optimizer": {"min_lr_ratio": 0.1}},
        "optimizer.min_lr_ratio=0.1 is never read by trainer=pufferl: set it to 0, or take trainer=ppo",
        ("optimizer.min_lr_ratio", [0]),
        id="min_lr_ratio in pufferl",
    ),
    pytest.param(
        {"trainer": {"name": "pufferl"}, "device": {"precision": "bfloat16"}},
        "device.precision=bfloat16 under trainer=pufferl acts for ever with the weights of the first update: "
        "take device.precision=float32, or trainer=ppo",
        ("device.precision", ["float32"]),
        id="bfloat16 in pufferl",
    ),
    pytest.param(
        {"optimizer": {"anneal_lr": False, "min_lr_ratio": 0.1}},
        "optimizer.min_lr_ratio=0.1 has no effect with optimizer.anneal_lr=false: set it to 0",
        ("optimizer.min_lr_ratio", [0]),
        id="end of a cosine that there is not",
    ),
    pytest.param(
        {"optimizer": {"weight_decay": 0.1}},
        "optimizer.weight_decay=0.1 is not for adam: take optimizer=adamw",
        ("optimizer.name", ["adamw"]),
        id="weight decay in adam",
    ),
    pytest.param(
        {"model": {"kernel_size": 4}},
        "model.kernel_size=4 must be odd: take 5",
        ("model.kernel_size", [5]),
        id="even kernel",
    ),
    pytest.param(
        {"model": {"options": {"depth": 2}}},
        "model.options={'depth': 2} is only for a network of your own: set model.target",
        ("model.target", ["my_module.Net"]),
        id="options without a network of one's own",
    ),
    pytest.param(
        {"mission": {"spawn_count": 3}},
        "mission.num_agents=4 does not fit mission.spawn_count=3: the map needs a place for each agent; "
        "set mission.spawn_count=4 or more",
        ("mission.spawn_count", [4, 5]),
        id="more agents than places",
    ),
]


MISFITS += [
    pytest.param(
        {"mission": {"variants": ["multi_team"]}, "vecenv": {"num_envs": 2}},
        "mission.spawn_count=20 does not fit the variant multi_team, which fills places at random with either team: "
        "set mission.spawn_count=4, the agents of a team",
        ("mission.spawn_count", [4]),
        id="places of two teams",
    ),
    pytest.param(
        {"mission": {"variants": ["scout", "miner", "scout"]}},
        "mission.variants=['scout', 'miner', 'scout'] has scout more than once: once is enough",
        ("mission.variants", [["scout", "miner"]]),
        id="a variant twice",
    ),
    pytest.param(
        {
            "mission": {"variants": ["multi_team"], "spawn_count": 4},
            "vecenv": {"num_envs": 2, "map_seeds": "consecutive"},
        },
        "vecenv.map_seeds=consecutive would play one map for ever with the variant multi_team: "
        "take vecenv.map_seeds=spread",
        ("vecenv.map_seeds", ["spread"]),
        id="consecutive maps of two teams",
    ),
]


@pytest.mark.parametrize("key", ["compile", "cpu_offload"])
def test_an_evaluation_refuses_what_only_training_does(key: str) -> None:
    """Keys of the device that an evaluation would ignore are told so."""
    message = refusal(EvaluationConfig, policy="noop", device={key: True})
    assert message == f"device.{key}=true has no effect in an evaluation: leave it out"


@pytest.mark.parametrize(("changes", "message", "mends"), MISFITS)
def test_what_does_not_fit_is_answered_with_what_would(
    changes: dict[str, Any], message: str, mends: tuple[str, list[Any]]
) -> None:
    """The message has the key, all the numbers involved and the nearest values that fit, and nothing else is wrong."""
    assert refusal(**merge(TINY, changes)) == message


@pytest.mark.parametrize(("changes", "message", "mends"), MISFITS)
def test_what_a_message_proposes_does_fit(changes: dict[str, Any], message: str, mends: tuple[str, list[Any]]) -> None:
    """Each proposed value, put in the place of the wrong one, passes every check."""
    key, values = mends
    for value in values:
        validate(Experiment, merge(merge(TINY, changes), nested(key, value)))


@pytest.mark.parametrize("max_minibatch_size", [96, 32768])
def test_every_proposed_minibatch_fits(max_minibatch_size: int) -> None:
    """Whatever the minibatch size, the ones proposed instead pass every check at once."""
    refused = []
    for minibatch_size in range(1, 1600):
        trainer = {"batch_size": 1536, "minibatch_size": minibatch_size, "max_minibatch_size": max_minibatch_size}
        values = merge(TINY, {"total_timesteps": 1536, "trainer": trainer})
        try:
            validate(Experiment, values)
        except ScoutError as error:
            lines = [line for line in str(error).splitlines() if line.startswith("trainer.minibatch_size")]
            proposed = [int(size) for line in lines for size in re.findall(r"\d+", line.partition("nearest: ")[2])]
            for size in proposed:
                try:
                    validate(Experiment, merge(values, nested("trainer.minibatch_size", size)))
                except ScoutError:
                    refused.append((minibatch_size, size))
    assert refused == []


def test_more_workers_than_cores_are_refused() -> None:
    """The message has the machine's number of cores, and that many workers are accepted."""
    cores = os.cpu_count() or 1

    def with_workers(number: int) -> Experiment:
        vecenv = {"name": "multiprocessing", "num_workers": number, "num_envs": number}
        return tiny_experiment(total_timesteps=10**6, trainer={"batch_size": None, "minibatch_size": 64}, vecenv=vecenv)

    with pytest.raises(ScoutError) as error:
        check_machine(with_workers(cores + 1))
    assert str(error.value) == (
        f"vecenv.num_workers={cores + 1} is more than this machine's {cores} cores: take {cores} or fewer"
    )
    check_machine(with_workers(cores))


def test_a_config_of_a_larger_machine_is_valid() -> None:
    """A run folder's config can be read on a machine with fewer cores than the run had workers."""
    batch = 1024 * 4 * 16
    vecenv = {"name": "multiprocessing", "num_envs": 1024, "num_workers": 1024}
    experiment = validate(
        Experiment, merge(TINY, {"total_timesteps": batch, "trainer": {"batch_size": None}, "vecenv": vecenv})
    )
    assert experiment.vecenv.num_workers == 1024


def test_every_misfit_is_named_in_one_message() -> None:
    """Checks across groups do not stop at the first one."""
    message = refusal(
        **merge(TINY, {"total_timesteps": 1, "vecenv": {"num_workers": 3}, "trainer": {"minibatch_size": 100}})
    )
    assert [line.split("=")[0] for line in message.splitlines()] == [
        "trainer.minibatch_size",
        "total_timesteps",
        "vecenv.num_workers",
    ]


def test_a_batch_of_null_is_one_segment_of_every_agent() -> None:
    """4 environments x 4 agents x 16 steps are 256, and with 3 environments of 8 agents 384."""
    one = validate(Experiment, merge(TINY, {"trainer": {"batch_size": None}}))
    changes = {"mission": {"num_agents": 8}, "vecenv": {"num_envs": 3}, "trainer": {"batch_size": None}}
    assert (one.batch_size, validate(Experiment, merge(TINY, changes)).batch_size) == (256, 384)


def test_accumulated_minibatches_are_accepted() -> None:
    """A minibatch of two parts that each hold whole segments fits."""
    validate(Experiment, merge(TINY, {"trainer": {"minibatch_size": 256, "max_minibatch_size": 128}}))


def test_the_agents_of_a_run_are_counted() -> None:
    """3 environments of two teams of 5 agents are 30 agents."""
    mission = MissionConfig(num_agents=5, spawn_count=5, variants=["multi_team"])
    assert mission.agents_per_env == 10
    trainer = {"batch_size": 480, "minibatch_size": 480, "bptt_horizon": 16}
    values = {"mission": mission.model_dump(), "vecenv": {"num_envs": 3}, "trainer": trainer}
    assert validate(Experiment, values).total_agents == 30


def test_a_run_that_does_not_fit_into_memory_is_refused_with_the_estimate() -> None:
    """A rollout of 2**31 agent steps of 640 bytes is 1,374.4 GB: the message says so, and which key to lower."""
    with pytest.raises(ScoutError) as error:
        check_machine(tiny_experiment(total_timesteps=2**40, trainer={"batch_size": 2**31}))
    assert "rollout 1,374.4 GB" in str(error.value)
    assert "lower trainer.batch_size, trainer.bptt_horizon or vecenv.num_envs" in str(error.value)


def test_the_estimate_is_near_what_a_run_takes(finished_run: Path) -> None:
    """The peak memory that the small run recorded is between half of its estimate and one and a half of it."""
    peak = max(json.loads(line)["performance/peak_memory_mb"] for line in (finished_run / "metrics.jsonl").open())
    needed = (sum(estimate(tiny_experiment()).values()) + LIBRARIES) / 2**20
    assert 0.5 * needed < peak < 1.5 * needed
