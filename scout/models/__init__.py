"""Networks by name, and those of your own by `model.target`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.errors import ScoutError
from scout.model_config import ModelConfig
from scout.models.attention import Attention
from scout.models.cnn_lstm import CnnLstm
from scout.models.conv import Conv
from scout.models.recurrence import FastModule
from scout.targets import load_target

MODELS: dict[str, type[nn.Module]] = {"cnn_lstm": CnnLstm, "conv": Conv, "attention": Attention}


class RecurrentPolicy(Protocol):
    """What a network must offer to be trained and played.

    `forward` takes tokens uint8 [B, T, 3], or [B, S, T, 3] for S steps, and a state: a dict whose `lstm_h` and `lstm_c`
    are float32 [B, hidden_size] (or [B, 1, hidden_size]), replaced in place by the new ones; None is the zero state. It
    returns logits [B x S, actions] and values [B x S, 1]. `forward_eval` is the same for one step.
    """

    hidden_size: int

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]: ...

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]: ...


def make_model(config: ModelConfig, env_info: PolicyEnvInterface) -> nn.Module:
    """The network that the config names, with its sizes. Raises ScoutError when a network of one's own does not fit."""
    if config.target is None:
        return MODELS[config.name](env_info, config)
    network = load_target("model.target", config.target)(env_info, config)
    missing = [name for name in ("forward_eval", "hidden_size") if not hasattr(network, name)]
    lacks = f", missing {' and '.join(missing)}" if missing else ""
    if not isinstance(network, nn.Module) or missing:
        raise ScoutError(
            f"model.target={config.target} made a {type(network).__name__} that cannot be trained: expected a "
            f"torch.nn.Module with forward, forward_eval and hidden_size{lacks}"
        )
    return cast("nn.Module", network)


def set_fast_layers(network: nn.Module, fast: bool) -> None:
    """Whether the network's parts take this project's own layers on a CPU, as they do from the start, or torch's."""
    for module in network.modules():
        if isinstance(module, FastModule):
            module.fast = fast


def fix_weights(network: nn.Module, fixed: bool = True) -> None:
    """While they are fixed, the network keeps what it computes from its weights, without gradients."""
    for module in network.modules():
        if isinstance(module, FastModule):
            module.kept = {} if fixed else None


@contextmanager
def fixed_weights(network: nn.Module) -> Iterator[None]:
    """Within it nothing changes the weights."""
    fix_weights(network)
    try:
        yield
    finally:
        fix_weights(network, fixed=False)
