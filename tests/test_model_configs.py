"""The options of conf/model, the registry of all networks, and a run of each."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from config_helpers import refusal
from conftest import ROOT, TINY, merge
from evaluation_helpers import ENV_INFO
from ppo_helpers import trainer_of
from torch import Tensor

from scout.cli import compose_experiment
from scout.config import Experiment
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.model_config import AttentionConfig, CnnLstmConfig, ConvConfig
from scout.models import MODELS, make_model
from scout.training import train

OPTIONS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))

# -- config and registry -----------------------------------------------------------------------------------------------


SMALL_SIZES: dict[str, Any] = {"embedding_size": 3, "features": 7, "global_features": 9, "hidden_size": 11}
SIZES: list[tuple[ConvConfig | AttentionConfig, dict[str, tuple[int, ...]]]] = [
    (
        ConvConfig(conv_channels=[4, 5], kernel_size=5, stride=1, **SMALL_SIZES),
        {
            "convolutions.0.weight": (4, 3, 5, 5),
            "convolutions.2.weight": (5, 4, 5, 5),
            "surroundings.weight": (7, 5 * 11 * 11),
            "memory.layer.weight_ih_l0": (3 * 11, 7 + 9),
            "memory.layer.weight_hh_l0": (3 * 11, 11),
        },
    ),
    (
        AttentionConfig(memory="lstm", token_features=8, heads=2, **SMALL_SIZES),
        {
            "place.weight": (122, 3),
            "token.weight": (8, 3),
            "question.weight": (2, 8),
            "surroundings.weight": (7, 8),
            "memory.layer.weight_ih_l0": (4 * 11, 7 + 9),
            "memory.layer.weight_hh_l0": (4 * 11, 11),
        },
    ),
]


@pytest.mark.parametrize(("config", "own"), SIZES, ids=["conv", "attention"])
def test_sizes_are_config_keys(
    config: ConvConfig | AttentionConfig, own: dict[str, tuple[int, ...]], observations: Tensor
) -> None:
    """Every size of the group is the size of a layer, and the network runs with them."""
    network = make_model(config, ENV_INFO)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters() if "weight" in name}
    assert shapes == own | {"own.weight": (9, 2 * 3), "heads.action.weight": (5, 11), "heads.value.weight": (1, 11)}
    assert network.get_parameter("embedding.vectors").shape[1] == 3
    assert network(observations)[0].shape == (48, 5)


@torch.no_grad()
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_conf_builds_its_network(option: str, observations: Tensor) -> None:
    """`model=option` makes the class of its name, which reads real observations with a state of its hidden_size."""
    config = compose_experiment(f"model={option}").model
    network = make_model(config, ENV_INFO)
    assert type(network) is MODELS[config.name]
    state = {key: torch.zeros(4, config.hidden_size) for key in ("lstm_h", "lstm_c")}
    logits, values = network(observations[:, 0], state)
    assert (network.hidden_size, logits.shape, values.shape) == (config.hidden_size, (4, 5), (4, 1))
    assert state["lstm_h"].flatten(1).shape == (4, config.hidden_size)


def test_every_network_has_an_option_of_conf() -> None:
    """The registry's names are those of the files in conf/model, which may have variants beside them."""
    assert set(MODELS) <= set(OPTIONS)
    assert {compose_experiment(f"model={option}").model.name for option in OPTIONS} == set(MODELS)


@pytest.mark.parametrize("name", ["con", "lstm", 3])
def test_an_unknown_network_is_answered_with_the_right_ones(name: Any) -> None:
    """A wrong model.name is refused with the names there are, in training and in evaluation."""
    expected = f"model.name={name} is not valid: expected one of 'cnn_lstm', 'conv', 'attention'"
    assert refusal(model={"name": name}) == expected
    assert refusal(EvaluationConfig, checkpoint="weights.pt", model={"name": name}) == expected


REFUSED_KEYS = [
    (
        {"name": "conv", "cnn_features": 8},
        "model.cnn_features=8 is not a key in model; did you mean features? valid: conv_channels, embedding_size, "
        "features, global_features, hidden_size, kernel_size, memory, name, options, stride, target, "
        "turned_views",
    ),
    (
        {"name": "attention", "stride": 2},
        "model.stride=2 is not a key in model; valid: embedding_size, features, global_features, heads, hidden_size, "
        "memory, name, options, target, token_features, turned_views",
    ),
    (
        {"name": "cnn_lstm", "memory": "gru"},
        "model.memory=gru is not a key in model; valid: cnn_features, conv_channels, hidden_size, kernel_size, name, "
        "options, self_features, stride, target",
    ),
]


@pytest.mark.parametrize(("group", "message"), REFUSED_KEYS)
def test_a_key_of_another_network_is_refused(group: dict[str, Any], message: str) -> None:
    """A key that the chosen network does not read is answered with the ones that it does."""
    assert refusal(model=group) == message


@pytest.mark.parametrize(("token_features", "fitting"), [(130, 128), (127, 128), (12, 16), (9, 8), (3, 8)])
def test_heads_that_do_not_divide_the_features_are_refused_with_what_fits(token_features: int, fitting: int) -> None:
    """Of 8 heads each needs the same number of features: the message proposes a number near by, and it is accepted."""
    group = {"name": "attention", "heads": 8, "token_features": token_features}
    assert refusal(model=group) == (
        f"model.heads=8 must divide model.token_features={token_features}: take model.token_features={fitting}"
    )
    Experiment.model_validate({"model": group | {"token_features": fitting}})


@pytest.mark.parametrize("config", [ConvConfig(memory="lstm"), AttentionConfig(heads=4), CnnLstmConfig(hidden_size=8)])
def test_a_network_chosen_in_python_survives_a_round_trip(config: Any) -> None:
    """Experiment(model=...) dumped to plain values and validated again is the same, class and all."""
    experiment = Experiment(model=config)
    again = Experiment.model_validate(json.loads(json.dumps(experiment.model_dump())))
    assert again == experiment
    assert type(again.model) is type(config)
    assert again.model == config


# -- whole runs --------------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "conv_channels": [4, 8],
    "cnn_features": 8,
    "self_features": 8,
    "embedding_size": 6,
    "token_features": 12,
    "heads": 3,
    "features": 8,
    "global_features": 8,
    "hidden_size": 16,
}


def small_experiment(option: str, **changes: Any) -> Experiment:
    """The tests' small experiment with one of conf/model's options, its sizes made small."""
    group = compose_experiment(f"model={option}").model.model_dump()
    small = {key: SMALL.get(key, value) for key, value in group.items()}
    return Experiment.model_validate(merge(TINY, changes) | {"model": small})


@pytest.mark.parametrize("option", OPTIONS)
def test_a_run_folder_of_each_network_is_played_the_same_twice(option: str, tmp_path: Path) -> None:
    """Trained with large steps, then reloaded twice for a greedy episode, its network walks the same way both times."""
    train(small_experiment(option, optimizer={"learning_rate": 0.05}), tmp_path / "run")
    config = EvaluationConfig(checkpoint=str(tmp_path / "run"), episodes=1, greedy=True)
    first, again = (evaluate(config, tmp_path / name).episodes for name in ("first", "again"))
    assert first == again
    assert first[0]["steps"] == 25


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("trainer", ["ppo", "pufferl"])
def test_one_update_moves_every_parameter_of_each_network(option: str, trainer: str) -> None:
    """Under both trainers an update on real rollouts has finite losses and changes each weight and bias."""
    experiment = small_experiment(option, trainer={"name": trainer}, total_timesteps=256)
    runner = trainer_of(experiment)
    try:
        before = {name: value.clone() for name, value in runner.uncompiled_policy.named_parameters()}
        runner.evaluate()
        runner.train()
        after = dict(runner.uncompiled_policy.named_parameters())
    finally:
        runner.close()
    assert runner.global_step == 256
    assert all(math.isfinite(loss) for loss in runner.losses.values())
    assert [name for name, value in after.items() if value.equal(before[name])] == []
