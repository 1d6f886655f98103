"""The schema: what it refuses, and that each message names the key, its value and what would be right."""

from typing import Any

import pytest
from config_helpers import nested, refusal
from conftest import TINY, merge
from pydantic import ValidationError

from scout.config import Experiment
from scout.evaluation_config import EvaluationConfig
from scout.group import Group
from scout.validation import unknown_key, validate

# -- keys and values of their own --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "start"),
    [
        ("sed", 2, "sed=2 is not a key at the top level; did you mean seed? valid: checkpoint, curriculum, device, "),
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
    ("schema", "key", "value", "start"),
    [
        (Experiment, "mission.rewards", "{hearts: 2}", "mission.rewards={hearts: 2} is not in the composed config; "),
        (EvaluationConfig, "mission.team.wealth", "0", "mission.team.wealth=0 is not in the composed config; "),
        (Experiment, "trainer.gamma.x", "1", "trainer.gamma.x=1 is not a key: trainer.gamma is a single value"),
        (Experiment, "vecenv.worker.timeout", "1", "vecenv.worker is not a key in vecenv; "),
        (Experiment, "optimiser.learning_rate", "1", "optimiser is not a key at the top level; did you mean opt"),
    ],
)
def test_an_override_that_hydra_refuses_is_answered_where_it_goes_wrong(
    schema: type[Group], key: str, value: str, start: str
) -> None:
    """Several free keys at once, a key of a group that is not chosen, and a key below one that does not exist."""
    assert unknown_key(schema, key, value).startswith(start)


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
        ("mission.name", 3, "a text; a number needs quotes of its own: 'mission.name=\"3\"'"),
        ("mission.variants", "scout_rewards", "a valid list"),
        ("vecenv.early_reset", 1, "a valid boolean"),
        ("device.name", "gpu", "one of 'auto', 'cpu', 'cuda' or 'mps'"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, f"less than {2**32}"),
        ("optimizer.learning_rate", 0, "greater than 0"),
        ("optimizer.adam_beta1", 1.0, "less than 1"),
        ("trainer.gamma", 1.01, "less than or equal to 1"),
        ("trainer.bptt_horizon", 1, "greater than or equal to 2"),
        ("vecenv.num_envs", 8193, "an integer from 1 to 8192, or auto"),
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


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "checkpoint=None policy=None policies=[]"),
        ({"checkpoint": "outputs/run", "policy": "noop"}, "checkpoint=outputs/run policy=noop policies=[]"),
        ({"policy": "noop", "policies": ["random"]}, "checkpoint=None policy=noop policies=['random']"),
    ],
)
def test_an_evaluation_judges_exactly_one_thing(given: dict[str, Any], shown: str) -> None:
    """Neither a checkpoint nor a policy nor policies, or two of them, are refused with an example of what to give."""
    assert refusal(EvaluationConfig, **given) == (
        f"{shown}: exactly one of them says what to judge, for instance checkpoint=RUN_DIR, policy=random or "
        "policies=[RUN_DIR,random]"
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
