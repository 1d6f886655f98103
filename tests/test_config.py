"""The schema: what it refuses, and that each message names the key, its value and what would be right."""

import os
import re
from typing import Any

import pytest
from conftest import TINY, merge
from pydantic import ValidationError

from scout.config import EvaluationConfig, Experiment, Group, MissionConfig, VecenvConfig
from scout.config_checks import check_machine
from scout.errors import ScoutError
from scout.validation import unknown_key, validate


def refusal(schema: type[Group] = Experiment, **values: Any) -> str:
    """The message with which a config is refused."""
    with pytest.raises(ScoutError) as error:
        validate(schema, values)
    return str(error.value)


def nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key and its value, as groups within groups: ("a.b", 1) -> {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


# -- keys and values of their own --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "start"),
    [
        ("sed", 2, "sed=2 is not a key at the top level; did you mean seed? valid: checkpoint, device, experiment, "),
        (
            "optimizer.learnig_rate",
            0.1,
            "optimizer.learnig_rate=0.1 is not a key in optimizer; did you mean learning_rate? valid: adam_beta1, ",
        ),
        (
            "mission.team.welth",
            2,
            "mission.team.welth=2 is not a key in mission.team; did you mean wealth? valid: initial_hearts, wealth",
        ),
        ("vecenv.qqq", None, "vecenv.qqq is not a key in vecenv; valid: batch_size, early_reset, map_seeds, name, "),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(key: str, value: Any, start: str) -> None:
    """The message names the key, its value, the closest spelling where there is one, and the keys beside it."""
    message = refusal(**nested(key, value))
    assert message.startswith(start)
    assert "\n" not in message


def test_a_free_key_that_is_not_there_is_answered_with_how_to_add_it() -> None:
    """Rewards are free names, of which Hydra takes a new one only with +: the message has the override to type."""
    message = unknown_key(Experiment, "mission.rewards.heart_gained")
    assert message.startswith("mission.rewards.heart_gained is not ")
    assert "+mission.rewards.heart_gained=VALUE" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("total_timesteps", "7", "a valid integer"),
        ("total_timesteps", 1.5, "a valid integer"),
        ("total_timesteps", True, "a valid integer"),
        ("total_timesteps", float("nan"), "a valid integer"),
        ("total_timesteps", float("inf"), "a valid integer"),
        ("total_timesteps", None, "a valid integer"),
        ("optimizer.learning_rate", "0.1", "a valid number"),
        ("optimizer.learning_rate", True, "a valid number"),
        ("optimizer.learning_rate", float("nan"), "a finite number"),
        ("optimizer.learning_rate", float("inf"), "a finite number"),
        ("mission.rewards.cell_visited", float("nan"), "a finite number"),
        ("mission.rewards.cell_visited", "much", "a valid number"),
        ("mission.name", 3, "a valid string"),
        ("mission.variants", "scout_rewards", "a valid list"),
        ("vecenv.early_reset", 1, "a valid boolean"),
        ("device.name", "gpu", "one of 'auto', 'cpu', 'cuda' or 'mps'"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, f"less than {2**32}"),
        ("optimizer.learning_rate", 0, "greater than 0"),
        ("optimizer.adam_beta1", 1.0, "less than 1"),
        ("trainer.gamma", 1.01, "less than or equal to 1"),
        ("trainer.bptt_horizon", 1, "greater than or equal to 2"),
        ("vecenv.num_envs", 8193, "less than or equal to 8192"),
        ("mission.num_agents", 0, "greater than or equal to 1"),
        ("log_interval", -0.5, "greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_expected(key: str, value: Any, expected: str) -> None:
    """Wrong types, numbers out of range, nan and inf, and unknown choices are refused, and the message is complete."""
    assert refusal(**nested(key, value)) == f"{key}={value} is not valid: expected {expected}"


def test_an_item_of_a_list_is_named_by_its_place() -> None:
    """Of two channels the wrong one, the second, is answered as item 1."""
    message = refusal(model={"conv_channels": [8, 16.5]})
    assert message == "model.conv_channels.1=16.5 is not valid: expected a valid integer"


def test_a_whole_number_may_be_written_as_a_float() -> None:
    """1e6, which is how people and YAML write a million, is the integer 1,000,000."""
    total_timesteps = validate(Experiment, {"total_timesteps": 1e6}).total_timesteps
    assert total_timesteps == 1_000_000
    assert isinstance(total_timesteps, int)


def test_an_integer_is_a_number() -> None:
    """A key that takes any number takes 1 as well as 1.0."""
    assert validate(Experiment, {"optimizer": {"learning_rate": 1}}).optimizer.learning_rate == 1.0


def test_every_mistake_is_named_in_one_message() -> None:
    """Three wrong keys of three groups make one message of three lines."""
    message = refusal(seed="x", device={"nme": "cpu"}, trainer={"gamma": 2.0})
    assert [line.split("=")[0] for line in message.splitlines()] == ["seed", "trainer.gamma", "device.nme"]


def test_a_group_must_be_a_group() -> None:
    """A bare value in the place of a group is refused under the group's name."""
    assert refusal(checkpoint=5).startswith("checkpoint=5 is not valid: expected ")


@pytest.mark.parametrize("group", ["", "mission", "mission.team", "optimizer", "device"])
def test_nothing_changes_after_validation(group: str) -> None:
    """A validated config refuses assignment, at the top and in its groups."""
    target = Experiment()
    for part in group.split(".") if group else []:
        target = getattr(target, part)
    name = next(iter(type(target).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, name, getattr(target, name))


def test_two_experiments_share_no_default() -> None:
    """A list or dictionary of defaults belongs to one experiment alone."""
    first, second = Experiment(), Experiment()
    first.mission.rewards["scout_gained"] = 99.0
    first.mission.variants.append("credit")
    assert second == Experiment()
    assert second.mission != first.mission


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
    with pytest.raises(ScoutError) as error:
        check_machine(VecenvConfig(name="multiprocessing", num_workers=cores + 1))
    assert str(error.value) == (
        f"vecenv.num_workers={cores + 1} is more than this machine's {cores} cores: take {cores} or fewer"
    )
    check_machine(VecenvConfig(name="multiprocessing", num_workers=cores))


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


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "checkpoint=None policy=None"),
        ({"checkpoint": "outputs/run", "policy": "noop"}, "checkpoint=outputs/run policy=noop"),
    ],
)
def test_an_evaluation_judges_exactly_one_thing(given: dict[str, str], shown: str) -> None:
    """Neither a checkpoint nor a policy, or both, are refused with an example of what to give."""
    assert refusal(EvaluationConfig, **given) == (
        f"{shown}: exactly one of them says what to judge, for instance checkpoint=RUN_DIR or policy=random"
    )


@pytest.mark.parametrize("given", [{"checkpoint": "outputs/run"}, {"policy": "noop"}])
def test_an_evaluation_of_one_thing_is_accepted(given: dict[str, str]) -> None:
    """A checkpoint alone and a policy alone are each enough."""
    assert validate(EvaluationConfig, given).model_dump(include=set(given)) == given


def test_an_unknown_key_of_an_optional_group_is_answered_with_the_nearest_one() -> None:
    """The evaluation's model, which is null unless it is chosen, has valid keys of its own to name."""
    message = refusal(EvaluationConfig, policy="random", model={"hidden_sise": 64})
    assert message.startswith("model.hidden_sise=64 is not a key in model; did you mean hidden_size? valid: ")


def test_pufferl_refuses_observations_on_the_cpu() -> None:
    """PuffeRL as shipped looks them up by indices on the GPU, which fails; ppo takes the key."""
    device = {"cpu_offload": True}
    assert refusal(**merge(TINY, {"trainer": {"name": "pufferl"}, "device": device})).startswith(
        "device.cpu_offload=true fails on a GPU with trainer=pufferl"
    )
    assert validate(Experiment, merge(TINY, {"device": device})).device.cpu_offload
