"""Convolutions over embedded tokens, and the tokens of no cell beside them."""

from typing import Any, cast

import torch
from einops import rearrange
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.model_config import ConvConfig
from scout.models.embedding import TokenEmbedding
from scout.models.heads import Heads, split_steps
from scout.models.memory import RELU_GAIN, RecurrentLayer, orthogonal
from scout.models.readers import Reader, convolution_taps, places
from scout.models.recurrence import FastModule
from scout.models.turned_views import TurnedViews
from scout.observation import NO_CELL


class Conv(FastModule):
    """Reads the window as a grid of embedded tokens, and the agent's own cell and the tokens of no cell apart."""

    def __init__(self, env_info: PolicyEnvInterface, config: ConvConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self.views = TurnedViews(env_info, config.turned_views)
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
            grid = self._first(torch.zeros(1, config.embedding_size, self._height, self._width))
            flat = self.convolutions[1:](grid).shape[1]
        self._sides = grid.shape[2:]
        taps = convolution_taps(self._height, self._width, config.kernel_size, config.stride, corner=False)
        self._window = Reader(*taps, *self.embedding.readings())
        centre = self._height // 2 << 4 | self._width // 2
        self._apart = Reader(*places({centre: 0, NO_CELL: 1}), *self.embedding.readings())
        self.surroundings = orthogonal(nn.Linear(flat, config.features), RELU_GAIN)
        self.own = orthogonal(nn.Linear(2 * config.embedding_size, config.global_features), RELU_GAIN)
        self.memory = RecurrentLayer(config.memory, config.features + config.global_features, config.hidden_size)
        self.heads = Heads(config.hidden_size, len(env_info.action_names))

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> logits [B x S, actions], values [B x S, 1]; `state` goes on."""
        tokens, steps = split_steps(observations)
        tokens, turns = self.views(tokens)
        first, own = self._sparse(tokens) if self.fast and tokens.device.type == "cpu" else self._dense(tokens)
        surroundings = torch.relu(self.surroundings(self.convolutions[2:](first)))
        features = rearrange(torch.cat([surroundings, own], dim=-1), "(b s) f -> b s f", s=steps)
        logits, values = self.heads(self.memory(features, state))
        return self.views.back(logits, turns), values

    def _dense(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The first convolution [B, channels, h, w] and what is read apart [B, global_features], with their relus."""
        sums = self.embedding.sums(tokens)
        grid = sums[:, :-1].view(-1, self._height, self._width, sums.shape[-1]).permute(0, 3, 1, 2)
        own = torch.relu(self.own(torch.cat([sums[:, self._centre], sums[:, -1]], dim=-1)))
        return self.convolutions[:2](grid), own

    def _sparse(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The same without the grid: the embedding and the layer after it are one table."""
        from scout.models.first_layer import first_layer  # needs numba, which not every player of a network has

        window, apart = self._compose()
        first = first_layer(tokens, window, cast("Tensor", self._first.bias), self._window)
        own = first_layer(tokens, apart, self.own.bias, self._apart)
        return first.unflatten(1, self._sides).permute(0, 3, 1, 2), own.flatten(1)

    def _compose(self) -> list[Tensor]:
        """The first layers' weights for each of the embedding's rows: float32 [R, taps, channels] each.

        Within `fixed_weights` they are made but once: while acting they would cost more than the layers.
        """
        if self.kept and "tables" in self.kept:
            return self.kept["tables"]
        with torch.autocast("cpu", enabled=False):
            rows = self.embedding.rows()
            kernel = rearrange(self._first.weight, "out size y x -> size (y x out)")
            apart = rearrange(self.own.weight, "out (place size) -> size (place out)", place=2)
            tables = [
                rearrange(rows @ kernel, "row (tap out) -> row tap out", out=self._first.out_channels),
                rearrange(rows @ apart, "row (place out) -> row place out", place=2),
            ]
        if self.kept is not None:
            self.kept["tables"] = tables
        return tables

    @property
    def _first(self) -> nn.Conv2d:
        return cast("nn.Conv2d", self.convolutions[0])

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """The same for one step; the name is the trainer's."""
        return self.forward(observations, state)
