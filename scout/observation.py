"""Tokens as the simulator gives them -> what a network reads.

An observation is uint8 [T, 3]: T tokens of (place, feature, value), padded with 0xFF. A place packs y in its high and
x in its low four bits; 0xFE marks tokens that belong to no cell.
"""

import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor

PADDING = 0xFF
NO_CELL = 0xFE
SCALE_EPSILON = 1e-6  # the notebook's: without it outputs differ from those of cogames' own tutorial policy


def feature_scales(env_info: PolicyEnvInterface) -> Tensor:
    """What each feature's values are divided by: float32 [256 or more], at least 1."""
    scales = torch.ones(max(256, 1 + max(int(feature.id) for feature in env_info.obs_features)))
    for feature in env_info.obs_features:
        scales[int(feature.id)] = max(float(feature.normalization), 1.0)
    return scales


def tokens_to_grid(tokens: Tensor, scales: Tensor, num_features: int, height: int, width: int) -> Tensor:
    """Scatters tokens uint8 [B, T, 3] into a dense grid float32 [B, num_features, height, width].

    The seed notebook's encoding: tokens at one place and feature are summed, and those of no cell (0xFE) fall into the
    corner cell, because their place is clamped.
    """
    batch = tokens.shape[0]
    place, feature, value = tokens.long().unbind(-1)
    x = (place & 0x0F).clamp(max=width - 1)
    y = (place >> 4).clamp(max=height - 1)
    scaled = value.float() / (scales[feature] + SCALE_EPSILON) * (place != PADDING)
    row = torch.arange(batch, device=tokens.device).unsqueeze(1)
    index = ((row * num_features + feature.clamp(max=num_features - 1)) * height + y) * width + x
    grid = torch.zeros(batch * num_features * height * width, device=tokens.device)
    return grid.scatter_add_(0, index.flatten(), scaled.flatten()).view(batch, num_features, height, width)
