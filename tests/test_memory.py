"""The recurrent layers: torch's cells behind one interface, their states, and how their weights begin."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scout.model_config import MemoryKind
from scout.models.memory import RecurrentLayer, orthogonal

KINDS: list[MemoryKind] = ["lstm", "gru", "none"]
BATCH, STEPS, INPUTS, HIDDEN = 3, 6, 5, 7


def layer_of(kind: MemoryKind) -> RecurrentLayer:
    """A layer whose every weight and bias has an effect: those of zero, with which it begins, would hide some."""
    torch.manual_seed(0)
    layer = RecurrentLayer(kind, INPUTS, HIDDEN)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    return layer


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_state() -> dict[str, Tensor]:
    return {"lstm_h": random(BATCH, HIDDEN, seed=2), "lstm_c": random(BATCH, HIDDEN, seed=3)}


# -- what comes out ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_gru_is_torchs_cell_stepped_by_hand() -> None:
    """From a state that is not zero, every step's output and the state afterwards are nn.GRUCell's, to 1e-6."""
    layer, features, state = layer_of("gru"), random(BATCH, STEPS, INPUTS), random_state()
    cell = nn.GRUCell(INPUTS, HIDDEN)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in layer.layer.state_dict().items()})
    h, expected = state["lstm_h"], []
    for step in range(STEPS):
        h = cell(features[:, step], h)
        expected.append(h)
    torch.testing.assert_close(layer(features, state), torch.stack(expected, dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(state["lstm_h"], h, rtol=0, atol=1e-6)


@torch.no_grad()
def test_an_lstm_is_torchs_cell_stepped_by_hand() -> None:
    """From a state that is not zero, every step's output and both states afterwards are nn.LSTMCell's, to 1e-6."""
    layer, features, state = layer_of("lstm"), random(BATCH, STEPS, INPUTS), random_state()
    cell = nn.LSTMCell(INPUTS, HIDDEN)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in layer.layer.state_dict().items()})
    h, c, expected = state["lstm_h"], state["lstm_c"], []
    for step in range(STEPS):
        h, c = cell(features[:, step], (h, c))
        expected.append(h)
    torch.testing.assert_close(layer(features, state), torch.stack(expected, dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(state["lstm_h"], h, rtol=0, atol=1e-6)
    torch.testing.assert_close(state["lstm_c"], c, rtol=0, atol=1e-6)


@torch.no_grad()
def test_no_memory_is_a_layer_and_a_relu() -> None:
    """Each step is max(0, W x + b), step by step and observation by observation."""
    layer, features = layer_of("none"), random(BATCH, STEPS, INPUTS)
    weight, bias = layer.layer.get_parameter("weight"), layer.layer.get_parameter("bias")
    expected = torch.zeros(BATCH, STEPS, HIDDEN)
    for row in range(BATCH):
        for step in range(STEPS):
            expected[row, step] = (weight @ features[row, step] + bias).clamp(min=0)
    torch.testing.assert_close(layer(features, None), expected, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_steps_one_by_one_equal_a_segment(kind: MemoryKind) -> None:
    """Carrying the state from step to step gives the outputs, and the last state, of the whole segment, to 1e-6."""
    layer, features, carried, whole = layer_of(kind), random(BATCH, STEPS, INPUTS), random_state(), random_state()
    stepwise = [layer(features[:, step : step + 1], carried) for step in range(STEPS)]
    torch.testing.assert_close(torch.cat(stepwise, dim=1), layer(features, whole), rtol=0, atol=1e-6)
    torch.testing.assert_close(carried, whole, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "remembers"), [("lstm", True), ("gru", True), ("none", False)])
def test_only_a_memory_remembers(kind: MemoryKind, remembers: bool) -> None:
    """Other first steps change what the last step gives, but not without memory."""
    layer, features = layer_of(kind), random(BATCH, STEPS, INPUTS)
    others = torch.cat([random(BATCH, STEPS - 1, INPUTS, seed=4), features[:, -1:]], dim=1)
    change = (layer(features, None) - layer(others, None))[:, -1].abs().max().item()
    assert change > 0.1 if remembers else change == 0


# -- the state ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [None, {}, {"lstm_h": None, "lstm_c": None}], ids=["none", "empty", "of_none"])
def test_no_state_is_a_state_of_zeros(kind: MemoryKind, given: dict[str, Any] | None) -> None:
    """No state, one without keys, and one of None each give what zeros give."""
    layer, features = layer_of(kind), random(BATCH, STEPS, INPUTS)
    zeros = {key: torch.zeros(BATCH, HIDDEN) for key in ("lstm_h", "lstm_c")}
    assert torch.equal(layer(features, None if given is None else dict(given)), layer(features, zeros))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_may_have_an_axis_for_its_layer(kind: MemoryKind) -> None:
    """A state [B, 1, H] gives the same outputs as [B, H], and leaves the same state."""
    layer, features, flat = layer_of(kind), random(BATCH, STEPS, INPUTS), random_state()
    with_layer = {key: part.unsqueeze(1) for key, part in flat.items()}
    assert torch.equal(layer(features, with_layer), layer(features, flat))
    for key, part in flat.items():
        assert torch.equal(with_layer[key].flatten(1), part)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "replaced"), [("lstm", ["lstm_h", "lstm_c"]), ("gru", ["lstm_h"]), ("none", [])])
@pytest.mark.parametrize("layer_axis", [False, True], ids=["flat", "with_layer"])
def test_the_last_steps_state_takes_the_place_of_the_given_one(
    kind: MemoryKind, replaced: list[str], layer_axis: bool
) -> None:
    """An LSTM puts both parts as [B, H] into the dictionary, a GRU h alone, and a layer without memory neither."""
    features, state = random(BATCH, STEPS, INPUTS), random_state()
    if layer_axis:
        state = {key: part.unsqueeze(1) for key, part in state.items()}
    given, copies = dict(state), {key: part.clone() for key, part in state.items()}
    hidden = layer_of(kind)(features, state)
    assert [key for key in state if state[key] is not given[key]] == replaced
    assert all(state[key].shape == (BATCH, HIDDEN) for key in replaced)
    assert all(torch.equal(given[key], copies[key]) for key in given)  # the tensors themselves are still the caller's
    if "lstm_h" in replaced:
        assert torch.equal(state["lstm_h"], hidden[:, -1])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_without_the_keys_stays_without_them(kind: MemoryKind) -> None:
    """Only a state that was asked for, by its keys, is left behind."""
    state: dict[str, Tensor] = {}
    layer_of(kind)(random(BATCH, STEPS, INPUTS), state)
    assert state == {}


# -- how it begins -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_recurrent_weights_begin_orthogonal_gate_by_gate(kind: MemoryKind, gates: int) -> None:
    """Each gate's H x H matrix times its transpose is 1; of the inputs' H x I matrices, narrower, the columns are."""
    layer = RecurrentLayer(kind, INPUTS, HIDDEN).layer
    for gate in layer.get_parameter("weight_hh_l0").view(gates, HIDDEN, HIDDEN):
        torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)
    for gate in layer.get_parameter("weight_ih_l0").view(gates, HIDDEN, INPUTS):
        torch.testing.assert_close(gate.T @ gate, torch.eye(INPUTS), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_biases_begin_at_zero_but_for_the_forget_gate(kind: MemoryKind) -> None:
    """Both biases together are 0, and 1 in the second of an LSTM's four gates."""
    layer = RecurrentLayer(kind, INPUTS, HIDDEN).layer
    both = layer.get_parameter("bias_ih_l0") + layer.get_parameter("bias_hh_l0")
    expected = [0, 1, 0, 0] if kind == "lstm" else [0, 0, 0]
    assert both.tolist() == [value for value in expected for _ in range(HIDDEN)]


@torch.no_grad()
def test_the_forget_gate_begins_open() -> None:
    """Without inputs and outputs so far, an LSTM keeps sigmoid(1) = 0.731 of its cell, as its second gate does."""
    layer, state = RecurrentLayer("lstm", INPUTS, HIDDEN), random_state() | {"lstm_h": torch.zeros(BATCH, HIDDEN)}
    before = state["lstm_c"]
    layer(torch.zeros(BATCH, 1, INPUTS), state)
    torch.testing.assert_close(state["lstm_c"], 0.7310586 * before, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_layer_without_memory_begins_with_the_gain_of_a_relu() -> None:
    """Its weight's columns are orthogonal and of length sqrt 2, and its bias is 0."""
    layer = RecurrentLayer("none", INPUTS, HIDDEN).layer
    weight = layer.get_parameter("weight")
    torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(INPUTS), rtol=0, atol=1e-5)
    assert not layer.get_parameter("bias").any()


@torch.no_grad()
@pytest.mark.parametrize("layer", [nn.Linear(9, 4), nn.Conv2d(3, 4, kernel_size=3)], ids=["linear", "convolution"])
def test_orthogonal_gives_outputs_of_the_same_gain(layer: nn.Linear | nn.Conv2d) -> None:
    """The weights of each two outputs are at right angles and have the gain as their length; biases are 0."""
    weight = orthogonal(layer, gain=0.5).weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, 0.25 * torch.eye(4), rtol=0, atol=1e-6)
    assert layer.bias is not None
    assert not layer.bias.any()
