"""A network and a mission of one's own, from outside the package. In this folder:

python ../train.py model.target=my_scout.GlanceNet mission.target=my_scout.long_day experiment=smoke
"""

import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.config import MissionConfig
from scout.mission import make_game
from scout.model_config import ModelConfig
from scout.observation import feature_scales, tokens_to_grid


class GlanceNet(nn.Module):
    """One layer over the grid, no memory. The trainer asks for `hidden_size` all the same: it keeps states by it."""

    def __init__(self, env_info: PolicyEnvInterface, config: ModelConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self.register_buffer("scales", feature_scales(env_info))
        self.shape = (1 + max(int(feature.id) for feature in env_info.obs_features), *env_info.egocentric_shape)
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(self.hidden_size), nn.ReLU())
        self.body(torch.zeros(1, *self.shape))  # gives the lazy layer its size
        self.action_head = nn.Linear(self.hidden_size, len(env_info.action_names))
        self.value_head = nn.Linear(self.hidden_size, 1)

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> logits [B x S, actions], values [B x S, 1]."""
        tokens = observations.flatten(0, -3)
        features = self.body(tokens_to_grid(tokens, self.get_buffer("scales"), *self.shape))
        return self.action_head(features), self.value_head(features)

    forward_eval = forward


def long_day(config: MissionConfig) -> MettaGridConfig:
    """The configured mission without weather: the sun always shines."""
    sunny = config.model_copy(update={"target": None, "variants": [*config.variants, "no_weather"]})
    return make_game(sunny)
