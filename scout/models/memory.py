"""Recurrent layers behind one interface, and how their layers begin."""

from typing import cast

import torch
from torch import Tensor, nn

from scout.model_config import MemoryKind
from scout.models.recurrence import FastModule, Kept, gru, gru_step, lstm_step

RELU_GAIN = 2**0.5


class RecurrentLayer(FastModule):
    """An LSTM, a GRU, or, as an ablation, a layer without memory in their place."""

    def __init__(self, kind: MemoryKind, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.kind: MemoryKind = kind
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
        h, c = (state_of(state, key) for key in ("lstm_h", "lstm_c"))
        match self.kind:
            case "lstm":
                hidden, h, c = run_lstm(cast("nn.LSTM", self.layer), features, h, c, self.fast, self.kept)
            case "gru":
                hidden, h = run_gru(cast("nn.GRU", self.layer), features, h, self.fast, self.kept)
            case "none":
                hidden = torch.relu(self.layer(features))
        if state is not None and "lstm_h" in state:
            if self.kind != "none":
                state["lstm_h"] = h
            if self.kind == "lstm":
                state["lstm_c"] = c
        return hidden


def run_lstm(
    layer: nn.LSTM, features: Tensor, h: Tensor | None, c: Tensor | None, fast: bool = True, kept: Kept | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [B, S, inputs] and a state float32 [B, hidden] each, or None for 0 -> hidden [B, S, hidden], state."""
    h, c = (_zeros(features, layer) if part is None else part for part in (h, c))
    if fast and features.device.type == "cpu" and features.shape[1] == 1:
        h, c = lstm_step(layer, features[:, 0], h, c, kept)
        return h.unsqueeze(1), h, c
    hidden, (last_h, last_c) = layer(features, (h.unsqueeze(0), c.unsqueeze(0)))
    return hidden, last_h[0], last_c[0]


def run_gru(
    layer: nn.GRU, features: Tensor, h: Tensor | None, fast: bool = True, kept: Kept | None = None
) -> tuple[Tensor, Tensor]:
    """Features [B, S, inputs] and a state float32 [B, hidden], or None for 0 -> hidden [B, S, hidden], state."""
    h = _zeros(features, layer) if h is None else h
    if fast and features.device.type == "cpu":
        if features.shape[1] == 1:
            h = gru_step(layer, features[:, 0], h, kept)
            return h.unsqueeze(1), h
        hidden = gru(layer, features, h)
        return hidden, hidden[:, -1]
    hidden, last = layer(features, h.unsqueeze(0))
    return hidden, last[0]


def _zeros(features: Tensor, layer: nn.LSTM | nn.GRU) -> Tensor:
    return torch.zeros(len(features), layer.hidden_size, device=features.device)


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


def state_of(state: dict | None, key: str) -> Tensor | None:
    """A state as [B, hidden_size], of [B, hidden_size] or [B, 1, hidden_size]; None for zeros."""
    part = None if state is None else state.get(key)
    return None if part is None else part.flatten(1)
