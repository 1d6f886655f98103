"""What own_network.py imports from beside it."""

import torch
from torch import Tensor, nn


class Bytes(nn.Module):
    """A linear layer over bytes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens uint8 [B, T, 3] -> float32 [B, outputs]."""
        return self.layer(tokens.flatten(1).to(torch.float32) / 255)
