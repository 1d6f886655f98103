"""Recurrent layers behind one interface, and how their layers begin."""

from typing import cast

import torch
from torch import Tensor, nn

from scout.model_config import MemoryKind

RELU_GAIN = 2**0.5


class RecurrentLayer(nn.Module):
    """An LSTM, a GRU, or, as an ablation, a layer without memory in their place."""

    def __init__(self, kind: MemoryKind, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.kind: MemoryKind = kind
        self._hidden_size = hidden_size
        self.layer: nn.Module
        match kind:
            case "lstm":
                self.layer = nn.LSTM(inputs, hidden_size, batch_first=True)
            case "gru":
                self.layer = nn.GRU(inputs, hidden_size, batch_first=True)
            case "none":
                self.layer = orthogonal(nn.Linear(inputs, hidden_size), RELU_GAIN)
        if kind != "none":
            initialize_recurrent(self.layer, hidden_size)

    def forward(self, features: Tensor, state: dict | None) -> Tensor:
        """Features float32 [B, S, inputs] -> float32 [B, S, hidden_size].

        The state is a dict with `lstm_h` and `lstm_c`, [B, hidden_size] or [B, 1, hidden_size]; a missing one, or None,
        is zero. When the keys are there, the last step's state [B, hidden_size] takes their place. A GRU leaves
        `lstm_c` alone, no memory both.
        """
        h, c = (layer_first(state, key) for key in ("lstm_h", "lstm_c"))
        match self.kind:
            case "lstm":
                h, c = (part if part is not None else self._zeros(features) for part in (h, c))
                hidden, (h, c) = self.layer(features, (h, c))
                if state is not None and "lstm_h" in state:
                    state["lstm_h"], state["lstm_c"] = h[0], c[0]
            case "gru":
                hidden, h = self.layer(features, h)
                if state is not None and "lstm_h" in state:
                    state["lstm_h"] = h[0]
            case "none":
                hidden = torch.relu(self.layer(features))
        return hidden

    def _zeros(self, features: Tensor) -> Tensor:
        return torch.zeros(1, len(features), self._hidden_size, device=features.device)


def orthogonal[Layer: nn.Linear | nn.Conv2d](layer: Layer, gain: float) -> Layer:
    """The same layer with an orthogonal weight of that gain, and a bias of zero.

    Source: Saxe et al., 2014, "Exact solutions to the nonlinear dynamics of learning"; the gains (sqrt 2 before a relu,
    0.01 for the action head, 1 for the value head) are those of Andrychowicz et al., 2021, "What matters in on-policy
    reinforcement learning", and of most PPO codes since.
    """
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def initialize_recurrent(layer: nn.Module, hidden_size: int) -> None:
    """Orthogonal weights gate by gate, and biases of zero, but 1 for an LSTM's forget gate.

    Source of the last: Jozefowicz et al., 2015, "An empirical exploration of recurrent network architectures".
    """
    for name, parameter in layer.named_parameters():
        if name.startswith("weight"):
            for gate in parameter.data.split(hidden_size):
                nn.init.orthogonal_(gate)
        else:
            nn.init.zeros_(parameter)
    if isinstance(layer, nn.LSTM):  # its gates: input, forget, cell, output
        cast("Tensor", layer.bias_ih_l0).data[hidden_size : 2 * hidden_size] = 1


def layer_first(state: dict | None, key: str) -> Tensor | None:
    """A state as torch's layers want it, [1, B, hidden_size]; None for zeros."""
    part = None if state is None else state.get(key)
    return None if part is None else part.flatten(1).unsqueeze(0).contiguous()
