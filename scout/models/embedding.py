"""Tokens -> vectors that show a network what the observation says.

The seed's network reads an object's kind as the number tag id / 10 and scales energy by 1/256, and tokens of no cell
(where the agent is, the time, its last action, the team's stock) fall into a corner of its grid. Here a kind is a
category of its own, quantities are shown on a linear and a logarithmic scale, and tokens of no cell are apart.
"""

import math
from typing import NamedTuple

import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.observation import NO_CELL, PADDING

# Values that are names, not quantities.
CATEGORIES = {"tag", "last_action", "last_action_move", "vibe", "collective", "agent:group", "agent_id", "aoe_mask"}
VALUES = 256  # a token's value is a byte


class Tokens(NamedTuple):
    """The tokens that are no padding, of B observations together: N of them."""

    observation: Tensor
    """Which observation it belongs to: int64 [N]."""
    place: Tensor
    """The cell's index, y * width + x, or height * width for a token of no cell: int64 [N]."""
    embedding: Tensor
    """float32 [N, size]."""


class TokenEmbedding(nn.Module):
    """A learned vector for every (feature, value): a table that is made from few parameters.

    A category has a vector for each value. A quantity has one for being there, one times value / 255, and one times
    log(1 + value) / log(256), so that energy 3 differs from 13 as plainly as 50 from 250. Features that never occur, as
    26 of 78 do on the seed's mission, cost nothing, for no token looks them up.
    """

    basis: Tensor
    vector_of: Tensor

    def __init__(self, env_info: PolicyEnvInterface, size: int) -> None:
        super().__init__()
        self.height, self.width, self.size = env_info.obs_height, env_info.obs_width, size
        features = 1 + max(int(feature.id) for feature in env_info.obs_features)
        categories = [int(feature.id) for feature in env_info.obs_features if feature.name in CATEGORIES]
        # Row of each (feature, value) in `vectors`: a quantity has the same for all its values.
        vector_of = torch.arange(features).repeat_interleave(VALUES).view(features, VALUES)
        for index, feature in enumerate(categories):
            vector_of[feature] = features + index * VALUES + torch.arange(VALUES)
        is_quantity = torch.ones(features, 1)
        is_quantity[categories] = 0
        value = torch.arange(VALUES)
        scales = torch.stack([value / (VALUES - 1), torch.log1p(value) / math.log(VALUES)], dim=-1)
        self.register_buffer("vector_of", vector_of.flatten(), persistent=False)
        self.register_buffer("basis", is_quantity.unsqueeze(1) * scales, persistent=False)  # [features, values, 2]
        self.vectors = nn.Parameter(torch.empty(features + len(categories) * VALUES, size))
        self.slopes = nn.Parameter(torch.empty(features, 2, size))
        # Some tens of tokens are summed or averaged; each vector has an expected length of 1.
        nn.init.normal_(self.vectors, std=size**-0.5)
        nn.init.normal_(self.slopes, std=size**-0.5)

    def forward(self, tokens: Tensor) -> Tokens:
        """Tokens uint8 [B, T, 3] -> those of them that are no padding."""
        place, feature, value = tokens.unbind(-1)
        observation, position = (place != PADDING).nonzero(as_tuple=True)
        place, feature, value = (part[observation, position].long() for part in (place, feature, value))
        cell = (place >> 4).clamp(max=self.height - 1) * self.width + (place & 0x0F).clamp(max=self.width - 1)
        cell = torch.where(place == NO_CELL, self.height * self.width, cell)
        table = self.vectors[self.vector_of] + (self.basis @ self.slopes).flatten(0, 1)
        return Tokens(observation, cell, table.index_select(0, feature * VALUES + value))

    def readings(self) -> tuple[Tensor, Tensor]:
        """What each feature and value is made of, for `Reader`: rows of `rows`, and factors, [65536, 3]."""
        rows, factors = torch.full((VALUES * VALUES, 3), -1), torch.zeros(VALUES * VALUES, 3)
        features = len(self.basis)
        code = slice(0, features * VALUES)
        rows[code, 0], factors[code, 0] = self.vector_of, 1
        is_quantity = self.vector_of < features
        slope = len(self.vectors) + 2 * self.vector_of
        rows[code, 1:] = torch.where(is_quantity.unsqueeze(1), torch.stack([slope, slope + 1], dim=1), -1)
        factors[code, 1:] = self.basis.flatten(0, 1)
        return rows, factors

    def rows(self) -> Tensor:
        """All that tokens' vectors are sums of: float32 [R, size]."""
        return torch.cat([self.vectors, self.slopes.flatten(0, 1)])

    def sums(self, tokens: Tensor) -> Tensor:
        """Tokens uint8 [B, T, 3] -> the sum of their vectors, float32 [B, height * width + 1, size], at each place.

        The last place is that of the tokens of no cell.
        """
        found = self(tokens)
        places = self.height * self.width + 1
        sums = torch.zeros(tokens.shape[0] * places, self.size, dtype=found.embedding.dtype, device=tokens.device)
        return sums.index_add(0, found.observation * places + found.place, found.embedding).view(-1, places, self.size)
