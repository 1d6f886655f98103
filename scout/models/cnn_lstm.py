"""The seed notebook's network, with its sizes as config keys."""

from typing import Any, cast

import torch
from einops import rearrange
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.model_config import CnnLstmConfig
from scout.models.heads import in_float32, split_steps
from scout.models.memory import run_lstm, state_of
from scout.models.readers import BYTES, Reader, convolution_taps, places
from scout.models.recurrence import FastModule, linear
from scout.observation import SCALE_EPSILON, feature_scales, tokens_to_grid


class CnnLstm(FastModule):
    """Two convolutions over the grid and a layer on the agent's own cell, then an LSTM, then action and value heads.

    With the default sizes its state_dict is that of cogames' TutorialPolicyNet, key by key, so the weights can be
    exchanged; hence the underscored names.
    """

    _feature_scale: Tensor

    def __init__(self, env_info: PolicyEnvInterface, config: CnnLstmConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self._height, self._width = env_info.obs_height, env_info.obs_width
        self._num_features = 1 + max(int(feature.id) for feature in env_info.obs_features)
        self.register_buffer("_feature_scale", feature_scales(env_info))

        first, second = config.conv_channels
        conv: dict[str, Any] = {
            "kernel_size": config.kernel_size,
            "stride": config.stride,
            "padding": config.kernel_size // 2,
        }
        self._cnn = nn.Sequential(
            nn.Conv2d(self._num_features, first, **conv),
            nn.ReLU(),
            nn.Conv2d(first, second, **conv),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            first_grid = self._cnn[0](torch.zeros(1, self._num_features, self._height, self._width))
            cnn_size = self._cnn[1:](first_grid).shape[1]
        self._sides = first_grid.shape[2:]
        rows, factors = self._readings()
        taps = convolution_taps(self._height, self._width, config.kernel_size, config.stride, corner=True)
        self._surroundings = Reader(*taps, rows, factors)
        self._own = Reader(*places({self._height // 2 << 4 | self._width // 2: 0}), rows, factors)
        self._cnn_fc = nn.Linear(cnn_size, config.cnn_features)
        self._self_encoder = nn.Linear(self._num_features, config.self_features)
        self._rnn = nn.LSTM(config.cnn_features + config.self_features, config.hidden_size, batch_first=True)
        self._action_head = nn.Linear(config.hidden_size, len(env_info.action_names))
        self._value_head = nn.Linear(config.hidden_size, 1)

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> logits [B x S, actions], values [B x S, 1].

        The LSTM starts from `state["lstm_h"]` and `state["lstm_c"]`, [B, hidden] or [B, 1, hidden], or from zeros where
        they are missing or None; when the keys are there, the last step's state [B, 1, hidden] takes their place.
        """
        tokens, steps = split_steps(observations)
        first, own_cell = self._sparse(tokens) if self.fast and tokens.device.type == "cpu" else self._dense(tokens)
        flat = self._cnn[2:](first)
        kept = self.kept if self.fast else None
        surroundings = torch.relu(linear(kept, "convolutions", flat, self._cnn_fc.weight, self._cnn_fc.bias))
        features = rearrange(torch.cat([surroundings, own_cell], dim=-1), "(b s) f -> b s f", s=steps)

        h, c = (state_of(state, key) for key in ("lstm_h", "lstm_c"))
        hidden, h, c = run_lstm(self._rnn, features, h, c, self.fast, self.kept)
        if state is not None and "lstm_h" in state:
            state["lstm_h"], state["lstm_c"] = h.unsqueeze(1), c.unsqueeze(1)

        hidden = rearrange(hidden, "b s f -> (b s) f")
        return in_float32(self._action_head, hidden), in_float32(self._value_head, hidden)

    def _readings(self) -> tuple[Tensor, Tensor]:
        """For each feature and value, its row, which is the feature, and its factor, the scaled value: [F x 256, 1]."""
        feature = torch.arange(BYTES).repeat_interleave(BYTES)
        scaled = torch.arange(BYTES).repeat(BYTES) / (self._feature_scale[feature] + SCALE_EPSILON)
        return feature.clamp(max=self._num_features - 1).unsqueeze(1), scaled.unsqueeze(1)

    def _dense(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first convolution [B, channels, h, w] and the own cell's layer [B, self_features], with their relus."""
        grid = tokens_to_grid(tokens, self._feature_scale, self._num_features, self._height, self._width)
        own_cell = torch.relu(self._self_encoder(grid[:, :, self._height // 2, self._width // 2]))
        return self._cnn[:2](grid), own_cell

    def _sparse(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The same without the grid."""
        from scout.models.first_layer import first_layer  # needs numba, which not every player of a network has

        layer = cast("nn.Conv2d", self._cnn[0])
        weight, bias = layer.weight, cast("Tensor", layer.bias)
        table = rearrange(weight, "out feature y x -> feature (y x) out")
        first = first_layer(tokens, table, bias, self._surroundings).unflatten(1, self._sides).permute(0, 3, 1, 2)
        table = rearrange(self._self_encoder.weight, "out feature -> feature 1 out")
        return first, first_layer(tokens, table, self._self_encoder.bias, self._own).flatten(1)

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """The same for one step; the name is the trainer's."""
        return self.forward(observations, state)
