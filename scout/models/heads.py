"""What networks begin and end with."""

import torch
from torch import Tensor, nn

from scout.models.memory import orthogonal


class Heads(nn.Module):
    """Action logits and a value. The small gain lets all actions begin almost equally likely."""

    def __init__(self, hidden_size: int, actions: int) -> None:
        super().__init__()
        self.action = orthogonal(nn.Linear(hidden_size, actions), gain=0.01)
        self.value = orthogonal(nn.Linear(hidden_size, 1), gain=1.0)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden [B, S, hidden_size] -> logits [B x S, actions], values [B x S, 1]."""
        hidden = hidden.flatten(0, 1)
        return in_float32(self.action, hidden), in_float32(self.value, hidden)


def in_float32(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """The layer in float32 also under autocast: a value of 2 in bfloat16 is off by up to 0.008: a step's reward."""
    with torch.autocast(hidden.device.type, enabled=False):
        return layer(hidden.float())


def split_steps(observations: Tensor) -> tuple[Tensor, int]:
    """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> tokens [B x S, T, 3], and S."""
    if observations.dim() == 4:
        return observations.flatten(0, 1), observations.shape[1]
    return observations, 1
