"""The seed's network: the same keys, shapes, outputs and states as cogames' TutorialPolicyNet."""

from typing import Any

import pytest
import torch
from cogames.policy.tutorial_policy import TutorialPolicyNet
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from scout.config import MissionConfig
from scout.mission import make_game
from scout.model_config import CnnLstmConfig
from scout.models import set_fast_layers
from scout.models.cnn_lstm import CnnLstm
from scout.observation import feature_scales, tokens_to_grid

GAME = make_game(MissionConfig())
ENV_INFO = PolicyEnvInterface.from_mg_cfg(GAME)


def networks(into: str) -> tuple[CnnLstm, TutorialPolicyNet]:
    """Ours and cogames' network, with the weights of one loaded into the other."""
    torch.manual_seed(0)
    ours, theirs = CnnLstm(ENV_INFO, CnnLstmConfig()), TutorialPolicyNet(ENV_INFO)
    set_fast_layers(ours, False)
    if into == "ours":
        ours.load_state_dict(theirs.state_dict())
    else:
        theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_the_state_dict_has_the_keys_and_shapes_of_cogames_tutorial_policy() -> None:
    """17 entries and 2,538,566 parameters, each of the same name and shape as TutorialPolicyNet's."""
    ours, theirs = networks("ours")
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert len(shapes) == 17
    assert sum(parameter.numel() for parameter in ours.parameters()) == 2_538_566


def state_of(kind: str) -> dict[str, Any] | None:
    generator = torch.Generator().manual_seed(3)
    h, c = torch.randn(2, 4, 1, 512, generator=generator)
    return {
        "none": None,
        "empty": {"lstm_h": None, "lstm_c": None},
        "flat": {"lstm_h": h[:, 0], "lstm_c": c[:, 0]},
        "with_layer": {"lstm_h": h, "lstm_c": c},
    }[kind]


@pytest.mark.parametrize("into", ["ours", "theirs"])
@pytest.mark.parametrize("segments", [False, True], ids=["one_step", "segments"])
@pytest.mark.parametrize("kind", ["none", "empty", "flat", "with_layer"])
def test_outputs_and_states_equal_cogames_tutorial_policy(
    into: str, segments: bool, kind: str, observations: torch.Tensor
) -> None:
    """Logits, values and LSTM states are equal on real observations [B, T, 3] and [B, S, T, 3], state or none."""
    ours, theirs = networks(into)
    given = observations if segments else observations[:, 7]
    our_state, their_state = state_of(kind), state_of(kind)
    with torch.no_grad():
        our_logits, our_values = ours(given, our_state)
        their_logits, their_values = theirs(given, their_state)
    assert torch.equal(our_logits, their_logits)
    assert torch.equal(our_values, their_values)
    assert (our_state is None) == (their_state is None)
    if our_state is not None and their_state is not None:
        assert our_state["lstm_h"].shape == (4, 1, 512)
        assert torch.equal(our_state["lstm_h"], their_state["lstm_h"])
        assert torch.equal(our_state["lstm_c"], their_state["lstm_c"])


def test_steps_one_by_one_equal_a_segment(observations: torch.Tensor) -> None:
    """Carrying the state from step to step gives what the whole segment gives, to 1e-5."""
    network = CnnLstm(ENV_INFO, CnnLstmConfig())
    state: dict[str, Any] = {"lstm_h": torch.zeros(4, 512), "lstm_c": torch.zeros(4, 512)}
    with torch.no_grad():
        whole, _ = network(observations)
        stepwise = torch.stack([network.forward_eval(observations[:, step], state)[0] for step in range(12)], dim=1)
    torch.testing.assert_close(stepwise.flatten(0, 1), whole, rtol=0, atol=1e-5)


def test_sizes_are_config_keys(observations: torch.Tensor) -> None:
    """Every size of the config is the size of a layer."""
    config = CnnLstmConfig(
        conv_channels=[3, 5], kernel_size=5, stride=1, cnn_features=7, self_features=11, hidden_size=13
    )
    network = CnnLstm(ENV_INFO, config)
    assert network._cnn[0].weight.shape == (3, 78, 5, 5)
    assert network._cnn[2].weight.shape == (5, 3, 5, 5)
    assert network._cnn_fc.weight.shape == (7, 5 * 11 * 11)
    assert network._self_encoder.weight.shape == (11, 78)
    assert network._rnn.weight_ih_l0.shape == (4 * 13, 7 + 11)
    assert network(observations)[0].shape == (4 * 12, 5)


def test_the_grid_by_hand() -> None:
    """Values are scaled and summed by place and feature, 0xFE falls into the corner, padding is left out."""
    scales = torch.ones(256)
    scales[7] = 10.0
    tokens = torch.tensor(
        [[[0x21, 7, 30], [0x21, 7, 20], [0xFE, 2, 4], [0x00, 300 - 256, 1], [0xFF, 0xFF, 0xFF]]], dtype=torch.uint8
    )
    expected = torch.zeros(1, 45, 11, 11)
    expected[0, 7, 2, 1] = 30 / (10 + 1e-6) + 20 / (10 + 1e-6)  # y = 2, x = 1
    expected[0, 2, 10, 10] = 4 / (1 + 1e-6)
    expected[0, 44, 0, 0] = 1 / (1 + 1e-6)
    torch.testing.assert_close(tokens_to_grid(tokens, scales, 45, 11, 11), expected)


def test_feature_scales_are_at_least_one() -> None:
    """Each feature's normalisation, never below 1, and 1 for ids that no feature has."""
    scales = feature_scales(ENV_INFO)
    by_name = {feature.name: int(feature.id) for feature in ENV_INFO.obs_features}
    assert scales.shape == (256,)
    assert scales[by_name["tag"]] == 10
    assert scales[by_name["inv:energy"]] == 256
    assert scales[by_name["agent:frozen"]] == 1
    assert scales[255] == 1
