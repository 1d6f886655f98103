"""Which segments a minibatch takes where those with large advantages are to come more often, as PuffeRL has it."""

import torch
from torch import Tensor

from scout.config import TrainerConfig


def draw_by_priority(advantages: Tensor, size: int, progress: float, config: TrainerConfig) -> tuple[Tensor, Tensor]:
    """Segments int64 [size] by the sums of their absolute advantages [S], and their weights float32 [size, 1].

    The weights undo the draw's bias, altogether when `progress` through the run is 1; PuffeRL multiplies by
    prio_alpha, so never.
    """
    beta = config.prio_beta0 + (1 - config.prio_beta0) * min(progress, 1.0)
    priorities = advantages**config.prio_alpha
    probabilities = (priorities + 1e-6) / (priorities.sum() + 1e-6)
    rows = torch.multinomial(probabilities, size)
    return rows, (len(advantages) * probabilities[rows, None]) ** -beta
