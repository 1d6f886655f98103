"""The seed notebook's network, with its sizes as config keys."""

from typing import Any

import torch
from einops import rearrange
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.model_config import CnnLstmConfig
from scout.models.heads import split_steps
from scout.models.memory import layer_first
from scout.observation import feature_scales, tokens_to_grid


class CnnLstm(nn.Module):
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
            cnn_size = self._cnn(torch.zeros(1, self._num_features, self._height, self._width)).shape[1]
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
        grid = tokens_to_grid(tokens, self._feature_scale, self._num_features, self._height, self._width)
        surroundings = torch.relu(self._cnn_fc(self._cnn(grid)))
        own_cell = torch.relu(self._self_encoder(grid[:, :, self._height // 2, self._width // 2]))
        features = rearrange(torch.cat([surroundings, own_cell], dim=-1), "(b s) f -> b s f", s=steps)

        h, c = (layer_first(state, key) for key in ("lstm_h", "lstm_c"))
        hidden, (h, c) = self._rnn(features, None if h is None or c is None else (h, c))
        if state is not None and "lstm_h" in state:
            state["lstm_h"], state["lstm_c"] = h.transpose(0, 1), c.transpose(0, 1)

        hidden = rearrange(hidden, "b s f -> (b s) f")
        return self._action_head(hidden), self._value_head(hidden)

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """The same for one step; the name is the trainer's."""
        return self.forward(observations, state)
