"""The networks of embedded tokens (conv, attention), their options in conf/model, and the registry of all networks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_helpers import ENV_INFO
from torch import Tensor, nn

from scout.model_config import AttentionConfig, CnnLstmConfig, ConvConfig
from scout.models import set_fast_layers
from scout.models.attention import Attention
from scout.models.cnn_lstm import CnnLstm
from scout.models.conv import Conv
from scout.observation import NO_CELL, PADDING

ID = {feature.name: int(feature.id) for feature in ENV_INFO.obs_features}
OWN_CELL, OWN_INDEX = 0x55, 5 * 11 + 5  # the centre of the 11 x 11 window

SIZES: dict[str, Any] = {"embedding_size": 6, "features": 20, "global_features": 18, "hidden_size": 16}
COMMON: dict[str, Any] = {**SIZES, "turned_views": False}
CONFIGS: dict[str, ConvConfig | AttentionConfig] = {
    "conv_gru": ConvConfig(memory="gru", conv_channels=[7, 8], **COMMON),
    "conv_lstm": ConvConfig(memory="lstm", conv_channels=[7, 8], **COMMON),
    "conv_none": ConvConfig(memory="none", conv_channels=[7, 8], **COMMON),
    "conv_turned": ConvConfig(memory="gru", conv_channels=[7, 8], **SIZES),
    "attention_gru": AttentionConfig(memory="gru", token_features=12, heads=3, **COMMON),
    "attention_lstm": AttentionConfig(memory="lstm", token_features=12, heads=3, **COMMON),
    "attention_none": AttentionConfig(memory="none", token_features=12, heads=3, **COMMON),
    "attention_turned": AttentionConfig(memory="gru", token_features=12, heads=3, **SIZES),
}
KINDS = [*CONFIGS]
EACH_NETWORK = ["conv_gru", "attention_gru"]  # where the memory does not matter


def network_of(kind: str, seed: int = 0) -> Conv | Attention:
    torch.manual_seed(seed)
    config = CONFIGS[kind]
    return Conv(ENV_INFO, config) if isinstance(config, ConvConfig) else Attention(ENV_INFO, config)


def outspoken_network_of(kind: str) -> Conv | Attention:
    """A network whose logits are as large as its values, and whose biases have an effect, as training makes them."""
    network = network_of(kind)
    with torch.no_grad():
        network.heads.action.weight.mul_(100)
        for name, parameter in network.named_parameters():
            if "bias" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def zero_state(rows: int) -> dict[str, Tensor]:
    return {key: torch.zeros(rows, COMMON["hidden_size"]) for key in ("lstm_h", "lstm_c")}


def both(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """Logits and values side by side, [rows, actions + 1]."""
    return torch.cat(outputs, dim=1)


def input_of(network: nn.Module, layer: str, observations: Tensor) -> Tensor:
    """What one layer is given while the network reads the observations, by torch's own layers."""
    set_fast_layers(network, False)
    given: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    network(observations)
    handle.remove()
    return given[0]


@pytest.fixture(scope="module")
def uneven(observations: Tensor) -> Tensor:
    """Observations uint8 [12, 200, 3] of very different numbers of tokens: 0, 1, 2 ... and what was really seen."""
    uneven = observations[:3, :4].flatten(0, 1).clone()
    for row, tokens in enumerate([0, 1, 2, 30]):
        uneven[3 * row, tokens:] = PADDING
    return uneven


# -- outputs -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [None, 12], ids=["one_step", "segment"])
def test_a_network_gives_logits_and_a_value_for_each_step(kind: str, steps: int | None, observations: Tensor) -> None:
    """[B, T, 3] and [B, S, T, 3] give float32 logits [B x S, 5] and values [B x S, 1], in forward and forward_eval."""
    network = network_of(kind)
    for forward in (network.forward, network.forward_eval):
        logits, values = forward(observations[:, 0] if steps is None else observations)
        assert (logits.shape, values.shape) == ((4 * (steps or 1), 5), (4 * (steps or 1), 1))
        assert logits.dtype == values.dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_steps_one_by_one_equal_a_segment(kind: str, observations: Tensor) -> None:
    """Carrying the state from step to step gives the outputs and the last state of the segment at once, to 1e-5."""
    network, carried, at_once = outspoken_network_of(kind), zero_state(4), zero_state(4)
    whole = both(network(observations, at_once)).view(4, 12, 6)
    stepwise = torch.stack([both(network.forward_eval(observations[:, s], carried)) for s in range(12)], dim=1)
    torch.testing.assert_close(stepwise, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(carried, at_once, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_only_a_memory_tells_equal_observations_apart(kind: str, observations: Tensor) -> None:
    """The last step's outputs depend on the steps before in networks with memory, and only in those."""
    network, others = outspoken_network_of(kind), observations.clone()
    others[:, :-1] = observations[:, :-1].flip(0)
    change = (both(network(observations)) - both(network(others))).view(4, 12, 6)[:, -1].abs().max().item()
    assert change < 1e-5 if kind.endswith("none") else change > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_an_observation_is_read_alone(kind: str, uneven: Tensor) -> None:
    """Each of 12 observations with 0 to 60 tokens gives in a batch what it gives by itself, to 1e-5."""
    network = outspoken_network_of(kind)
    alone = torch.cat([both(network(uneven[row : row + 1])) for row in range(12)])
    torch.testing.assert_close(both(network(uneven)), alone, rtol=0, atol=1e-5)
    assert (alone[1:] - alone[:-1]).abs().amax(dim=1).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_observations_without_any_token_give_finite_numbers(kind: str) -> None:
    """A batch of padding alone divides by no number of tokens: outputs and state are finite."""
    network, state = outspoken_network_of(kind), zero_state(2)
    outputs = both(network(torch.full((2, 3, 200, 3), PADDING, dtype=torch.uint8), state))
    assert outputs.isfinite().all()
    assert all(part.isfinite().all() for part in state.values())


@torch.no_grad()
@pytest.mark.parametrize("kind", EACH_NETWORK)
def test_the_order_of_the_tokens_does_not_matter(kind: str, observations: Tensor) -> None:
    """Tokens in a new order, padding among them, give the same outputs, to 1e-5."""
    network, generator = outspoken_network_of(kind), torch.Generator().manual_seed(0)
    tokens = observations.flatten(0, 1)
    shuffled = torch.stack([observation[torch.randperm(200, generator=generator)] for observation in tokens])
    torch.testing.assert_close(both(network(shuffled)), both(network(tokens)), rtol=0, atol=1e-5)


# -- what is read ------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", EACH_NETWORK)
def test_the_own_cell_and_what_belongs_to_no_cell_are_read_apart(kind: str, observations: Tensor) -> None:
    """The layer `own` is given the sum of the vectors of the centre's tokens, and that of tokens of no cell."""
    network, tokens = network_of(kind), observations.flatten(0, 1)
    sums = network.embedding.sums(tokens)
    expected = torch.cat([sums[:, OWN_INDEX], sums[:, 121]], dim=1)
    torch.testing.assert_close(input_of(network, "own", tokens), expected, rtol=0, atol=1e-5)
    own_ids = tokens[(tokens[..., 0] == OWN_CELL) & (tokens[..., 1] == ID["agent_id"])][:, 2]
    assert own_ids.tolist() == [agent for agent in range(4) for _ in range(12)]  # the centre is where the agent is


@torch.no_grad()
def test_the_convolutions_see_a_token_at_its_row_and_column() -> None:
    """A token at y = 2, x = 7 is its vector there, and zero at all other cells."""
    network = network_of("conv_gru")
    tokens = torch.tensor([[[0x27, ID["tag"], 13]]], dtype=torch.uint8)
    expected = torch.zeros(1, 6, 11, 11)
    expected[0, :, 2, 7] = network.embedding(tokens).embedding[0]
    assert torch.equal(input_of(network, "convolutions.0", tokens), expected)


@torch.no_grad()
@pytest.mark.parametrize("sharpness", [1, 30, 3000])
def test_attention_pools_with_a_softmax_over_each_observations_tokens(sharpness: int, uneven: Tensor) -> None:
    """Each head's part of the pooled features equals a loop's softmax and mean, however large the scores, to 1e-5."""
    network = network_of("attention_gru")
    assert isinstance(network, Attention)
    network.question.weight.mul_(sharpness)
    expected = torch.zeros(12, 12)
    for row, observation in enumerate(uneven):
        found = network.embedding(observation.unsqueeze(0))
        if len(found.place) == 0:
            continue
        token = torch.relu(network.token(found.embedding + network.place.weight[found.place]))
        for head, scores in enumerate(network.question(token).T):
            part = slice(4 * head, 4 * head + 4)
            expected[row, part] = torch.softmax(scores, dim=0) @ token[:, part]
    torch.testing.assert_close(input_of(network, "surroundings", uneven), expected, rtol=0, atol=1e-5)


def with_one_more(observations: Tensor, feature: str) -> tuple[Tensor, Tensor]:
    """The observations that have a token of no cell of a feature, and the same with 1 added to its value."""
    tokens = observations.flatten(0, 1)
    chosen = (tokens[..., 0] == NO_CELL) & (tokens[..., 1] == ID[feature])
    before = tokens[chosen.any(dim=1)]
    after = before.clone()
    after[..., 2] += chosen[chosen.any(dim=1)].to(torch.uint8)
    assert len(before) > 0
    return before, after


OF_NO_CELL = [
    "lp:east",
    "lp:north",
    "episode_completion_pct",
    "last_action",
    "last_action_move",
    "inv:collective:carbon",
]


@torch.no_grad()
@pytest.mark.parametrize("feature", OF_NO_CELL)
@pytest.mark.parametrize("kind", EACH_NETWORK)
def test_what_belongs_to_no_cell_reaches_the_outputs(kind: str, feature: str, observations: Tensor) -> None:
    """1 more of its offset, the time, the last action or the team's stock changes what a network says every time."""
    network = outspoken_network_of(kind)
    before, after = with_one_more(observations, feature)
    assert (both(network(after)) - both(network(before))).abs().amax(dim=1).min() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("feature", OF_NO_CELL)
def test_what_belongs_to_no_cell_is_not_in_the_own_cell_of_the_seeds_network(
    feature: str, observations: Tensor
) -> None:
    """The same change is no change to the input of the seed's self encoder, though its grid has it, in a corner."""
    network = CnnLstm(ENV_INFO, CnnLstmConfig(conv_channels=[2, 2], cnn_features=2, self_features=2, hidden_size=2))
    before, after = with_one_more(observations, feature)
    assert torch.equal(input_of(network, "_self_encoder", after), input_of(network, "_self_encoder", before))
    assert not torch.equal(input_of(network, "_cnn.0", after), input_of(network, "_cnn.0", before))


# -- learning ----------------------------------------------------------------------------------------------------------


def loss_of(outputs: tuple[Tensor, Tensor]) -> Tensor:
    """A loss of both heads, as PPO's: the log probability of an action, and a squared error of the value."""
    logits, values = outputs
    return -logits.float().log_softmax(dim=1)[:, 1].mean() + (values.float() - 1).square().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind: str, observations: Tensor) -> None:
    """A loss of both heads over real steps gives each weight and bias a gradient; nothing is beside the path."""
    network = outspoken_network_of(kind)
    loss_of(network(observations)).backward()
    small = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() < 1e-6
    ]
    assert small == []


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_is_close_to_float32(kind: str, observations: Tensor) -> None:
    """Under bfloat16 outputs and state are float32's to 0.05, and gradients to a fifth of their length."""
    measured: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
    for enabled in (False, True):
        network, state = outspoken_network_of(kind), zero_state(4)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled, cache_enabled=False):
            first = both(network(observations[:, :6], state))
            rest = network(observations[:, 6:], state)  # from a state as mixed precision leaves it
        loss_of(rest).backward()
        outputs = torch.cat([first, both(rest)]).float()
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        measured.append((outputs, state["lstm_h"].float(), gradients))
    (outputs, h, gradients), (mixed_outputs, mixed_h, mixed_gradients) = measured
    assert not torch.equal(outputs, mixed_outputs)
    torch.testing.assert_close(mixed_outputs, outputs, rtol=0, atol=0.05)
    torch.testing.assert_close(mixed_h, h, rtol=0, atol=0.05)
    for name, gradient in gradients.items():
        if gradient.norm() > 1e-3:
            assert (mixed_gradients[name] - gradient).norm() < 0.2 * gradient.norm(), name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_policy_is_nearly_uniform(kind: str, observations: Tensor) -> None:
    """On real observations no logit of a fresh network is above 0.05, though the actions do differ."""
    logits, _ = network_of(kind)(observations)
    assert logits.abs().max() < 0.05
    assert logits.std() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("kind", EACH_NETWORK)
def test_the_heads_begin_orthogonal_with_gains_of_001_and_1(kind: str) -> None:
    """The actions' weights are at right angles and 0.01 long, the value's is 1 long, and their biases are 0."""
    heads = network_of(kind).heads
    torch.testing.assert_close(heads.action.weight @ heads.action.weight.T, 0.01**2 * torch.eye(5), rtol=0, atol=1e-9)
    assert heads.value.weight.norm().item() == pytest.approx(1, abs=1e-5)
    assert not heads.action.bias.any()
    assert not heads.value.bias.any()


@torch.no_grad()
@pytest.mark.parametrize("kind", EACH_NETWORK)
def test_layers_before_a_relu_begin_with_its_gain(kind: str) -> None:
    """Every such layer's weight, as a matrix, has no singular value but sqrt 2, and its bias is 0."""
    network = network_of(kind)
    layers = ["surroundings", "own", *(["convolutions.0", "convolutions.2"] if kind == "conv_gru" else ["token"])]
    for name in layers:
        layer = network.get_submodule(name)
        values = torch.linalg.svdvals(layer.get_parameter("weight").flatten(1))
        torch.testing.assert_close(values, torch.full_like(values, math.sqrt(2)), rtol=0, atol=1e-5)
        assert not layer.get_parameter("bias").any(), name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_network_says_the_same_when_loaded(kind: str, observations: Tensor, tmp_path: Path) -> None:
    """A state_dict written, read and loaded into a network of other weights gives bit-equal outputs."""
    network, other = outspoken_network_of(kind), network_of(kind, seed=1)
    assert not torch.equal(both(other(observations)), both(network(observations)))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(both(other(observations)), both(network(observations)))


def test_the_memory_is_a_config_key() -> None:
    """The group's `memory` is the kind of the recurrent layer, of both networks."""
    assert [network_of(kind).memory.kind for kind in KINDS] == ["gru", "lstm", "none", "gru"] * 2
