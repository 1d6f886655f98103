"""The fast layers of the CPU against their plain twins: a grid, and torch's own recurrent layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from evaluation_helpers import ENV_INFO
from ppo_helpers import recorded_ppo
from torch import Tensor, nn

from scout import categorical
from scout.model_config import CnnLstmConfig, ConvConfig
from scout.models import fixed_weights, set_fast_layers
from scout.models.cnn_lstm import CnnLstm
from scout.models.conv import Conv
from scout.models.memory import run_gru, run_lstm
from scout.observation import NO_CELL, PADDING

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn_lstm": lambda: CnnLstm(ENV_INFO, CnnLstmConfig(conv_channels=[8, 8], hidden_size=16)),
    "cnn_lstm_wide_kernel": lambda: CnnLstm(ENV_INFO, CnnLstmConfig(conv_channels=[8, 8], kernel_size=5, stride=1)),
    "conv": lambda: Conv(ENV_INFO, ConvConfig(hidden_size=16)),
    "conv_lstm": lambda: Conv(ENV_INFO, ConvConfig(hidden_size=16, memory="lstm", kernel_size=5, stride=3)),
}


def loss_and_gradients(network: nn.Module, observations: Tensor, fast: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs [rows, 6] over two calls, the second from the first's state, and the gradients of a loss of both."""
    set_fast_layers(network, fast)
    network.zero_grad()
    hidden: Any = network.hidden_size
    state = {key: torch.zeros(len(observations), hidden) for key in ("lstm_h", "lstm_c")}
    outputs = [torch.cat(network(part, state), dim=1) for part in (observations[:, :7], observations[:, 7:])]
    both = torch.cat(outputs)
    (both * torch.linspace(-1, 1, both.numel()).view_as(both)).sum().backward()
    return both.detach(), {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", NETWORKS)
def test_outputs_and_gradients_equal_the_plain_networks(kind: str, observations: Tensor) -> None:
    """On real observations, and on bytes at random: outputs to 1e-5, gradients to 1e-5 of each one's largest."""
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    noise = torch.randint(0, 256, (4, 12, 200, 3), dtype=torch.uint8)
    noise[..., 0][torch.rand(4, 12, 200) < 0.2] = PADDING
    noise[..., 0][torch.rand(4, 12, 200) < 0.2] = NO_CELL
    noise[..., 1] %= len(ENV_INFO.obs_features)
    for given in (observations, noise):
        plain, fast = (loss_and_gradients(network, given, fast) for fast in (False, True))
        scale = max(1.0, plain[0].abs().max().item())
        torch.testing.assert_close(fast[0] / scale, plain[0] / scale, rtol=0, atol=1e-5)
        assert plain[1].keys() == fast[1].keys()
        for name, gradient in plain[1].items():
            largest = gradient.abs().max()
            assert largest > 0, name
            torch.testing.assert_close(fast[1][name] / largest, gradient / largest, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["cnn_lstm", "conv"])
def test_mixed_precision_is_as_close_to_float32_as_the_plain_network_is(kind: str, observations: Tensor) -> None:
    """Under bfloat16 the fast gradients are within a twentieth of float32's length, and off by no more than the plain.

    The fast first layer sums in float32, the plain one multiplies in bfloat16; a tenth is left for chance.
    """
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    _, exact = loss_and_gradients(network, observations, fast=False)
    off = {}
    for fast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            _, found = loss_and_gradients(network, observations, fast)
        errors = torch.cat([(found[name] - exact[name]).flatten() for name in exact])
        off[fast] = (errors.norm() / torch.cat([g.flatten() for g in exact.values()]).norm()).item()
    assert off[True] < 0.05
    assert off[True] < 1.1 * off[False]


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("steps", [1, 9])
def test_recurrent_layers_equal_torchs(kind: str, steps: int) -> None:
    """States and all gradients, those of the inputs and of the first state included, equal torch's layer to 1e-5."""
    torch.manual_seed(0)
    layer = (nn.GRU if kind == "gru" else nn.LSTM)(6, 5, batch_first=True)
    found = []
    for fast in (False, True):
        layer.zero_grad()
        x, h, c = (part.requires_grad_() for part in torch.randn(3, 3, steps, 6, generator=_generator()).unbind())
        h_first, c_first = h[:, 0, :5], c[:, 0, :5]
        if isinstance(layer, nn.GRU):
            hidden, last = run_gru(layer, x, h_first, fast)
            (hidden.square().sum() + last.sum()).backward()
        else:
            hidden, last, cell = run_lstm(layer, x, h_first, c_first, fast)
            (hidden.square().sum() + last.sum() + cell.sum()).backward()
        gradients = [leaf.grad for leaf in (x, h, c, *layer.parameters()) if leaf.grad is not None]
        found.append([hidden.detach(), *gradients])
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(own, plain, rtol=0, atol=1e-5)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_a_gru_in_bfloat16_remembers_small_changes() -> None:
    """A state that moves by 1/1000 of the way to 1 at each step gets there; kept in bfloat16 it would stand still.

    With z = 0.999 and n = 1 at every step the state after 2,000 steps is 1 - 0.999^2000 = 0.865. In bfloat16 it stops
    where a step is less than half the distance to the next number: at 1/5.
    """
    layer = nn.GRU(1, 1, batch_first=True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        # Reset, update and new: the sigmoid of the second is 0.999, the tanh of the third 1.
        layer.get_parameter("bias_ih_l0").copy_(torch.tensor([0.0, 6.9067548, 20.0]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden, last = run_gru(layer, torch.zeros(1, 2000, 1), torch.zeros(1, 1), fast=True)
    assert abs(last.item() - 0.865) < 0.02
    assert torch.equal(hidden[:, -1], last)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_policy_that_acts_is_the_one_that_was_trained(precision: str) -> None:
    """After updates that change the weights much, the rollout's log-probabilities are those of the replay.

    What the network keeps of its weights within a rollout (fixed_weights) must not outlive it; its optimizer changes
    weights without leaving a trace on them.
    """
    trainer, _, _ = recorded_ppo(
        model={"name": "conv", "hidden_size": 16}, optimizer={"learning_rate": 0.05}, device={"precision": precision}
    )
    for _ in range(3):
        trainer.evaluate()
        with torch.no_grad():
            logits, values = trainer._replay(torch.arange(trainer.segments))
        again, _ = categorical.look_back(logits, trainer.actions.flatten())
        counted, off = ~trainer.ended, 1e-5 if precision == "float32" else 0.1
        assert (again.view_as(trainer.logprobs) - trainer.logprobs)[counted].abs().max() < off
        assert (values - trainer.values)[counted].abs().max() < off * max(1, values.abs().max().item())
        trainer.train()
    trainer.close()


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_fixed_weights_change_nothing_that_a_network_says(kind: str, observations: Tensor) -> None:
    """Within it single steps say the same to 1e-6, call by call, and after it a changed weight changes them."""
    network = NETWORKS[kind]()
    hidden: Any = network.hidden_size

    def said() -> Tensor:
        state = {key: torch.ones(4, hidden) for key in ("lstm_h", "lstm_c")}
        return torch.cat([*network(observations[:, 0], state), state["lstm_h"].flatten(1)], dim=1)

    before = said()
    with fixed_weights(network):
        for _ in range(2):
            torch.testing.assert_close(said(), before, rtol=0, atol=1e-6)
    for parameter in network.parameters():
        parameter.mul_(1.5)
    assert (said() - before).abs().max() > 1e-3
    with fixed_weights(network):
        again = said()
    torch.testing.assert_close(again, said(), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["conv", "cnn_lstm"])
def test_a_compiled_network_acts_and_trains(kind: str) -> None:
    """With device.compile=true the rollout's log-probabilities are the replay's to 1e-5, before and after an update."""
    trainer, _, _ = recorded_ppo(
        model={"name": kind, "hidden_size": 16}, device={"precision": "float32", "compile": True}
    )
    for _ in range(2):
        trainer.evaluate()
        with torch.no_grad():
            logits, _ = trainer._replay(torch.arange(trainer.segments))
        again, _ = categorical.look_back(logits, trainer.actions.flatten())
        assert (again.view_as(trainer.logprobs) - trainer.logprobs)[~trainer.ended].abs().max() < 1e-5
        trainer.train()
    trainer.close()
