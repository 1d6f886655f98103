"""Convolutions over embedded tokens, and the tokens of no cell beside them."""

from typing import Any

import torch
from einops import rearrange
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.model_config import ConvConfig
from scout.models.embedding import TokenEmbedding
from scout.models.heads import Heads, split_steps
from scout.models.memory import RELU_GAIN, RecurrentLayer, orthogonal


class Conv(nn.Module):
    """Reads the window as a grid of embedded tokens, and the agent's own cell and the tokens of no cell apart."""

    def __init__(self, env_info: PolicyEnvInterface, config: ConvConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self.embedding = TokenEmbedding(env_info, config.embedding_size)
        self._height, self._width = env_info.obs_height, env_info.obs_width
        self._centre = self._height // 2 * self._width + self._width // 2

        first, second = config.conv_channels
        size: Any = {"kernel_size": config.kernel_size, "stride": config.stride, "padding": config.kernel_size // 2}
        self.convolutions = nn.Sequential(
            orthogonal(nn.Conv2d(config.embedding_size, first, **size), RELU_GAIN),
            nn.ReLU(),
            orthogonal(nn.Conv2d(first, second, **size), RELU_GAIN),
            nn.ReLU(),
            nn.Flatten(),
        )
        # The order that the embedding leaves, which is also the fastest on a CPU.
        self.convolutions = self.convolutions.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, config.embedding_size, self._height, self._width)).shape[1]
        self.surroundings = orthogonal(nn.Linear(flat, config.features), RELU_GAIN)
        self.own = orthogonal(nn.Linear(2 * config.embedding_size, config.global_features), RELU_GAIN)
        self.memory = RecurrentLayer(config.memory, config.features + config.global_features, config.hidden_size)
        self.heads = Heads(config.hidden_size, len(env_info.action_names))

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> logits [B x S, actions], values [B x S, 1]; `state` goes on."""
        tokens, steps = split_steps(observations)
        sums = self.embedding.sums(tokens)
        grid = sums[:, :-1].view(-1, self._height, self._width, sums.shape[-1]).permute(0, 3, 1, 2)
        surroundings = torch.relu(self.surroundings(self.convolutions(grid)))
        own = torch.relu(self.own(torch.cat([sums[:, self._centre], sums[:, -1]], dim=-1)))
        features = rearrange(torch.cat([surroundings, own], dim=-1), "(b s) f -> b s f", s=steps)
        return self.heads(self.memory(features, state))

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """The same for one step; the name is the trainer's."""
        return self.forward(observations, state)
