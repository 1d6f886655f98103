"""Segments of a rollout, cut where episodes ended, as sequences that a network can run side by side."""

from typing import NamedTuple

import torch
from torch import Tensor


class Sequences(NamedTuple):
    """N sequences within M segments of T steps."""

    segment: Tensor
    """The segment that each is in: int64 [N]."""
    first: Tensor
    """Its first step there: int64 [N]."""
    steps: Tensor
    """Its steps there, padded at their end with steps that are not its own: int64 [N, length]."""
    of_step: Tensor
    """The sequence that each step of the segments is in: int64 [M, T]."""

    def back(self, part: Tensor) -> Tensor:
        """What was computed of the sequences [N, length, ...], as the segments' own steps [M, T, ...]."""
        return part[self.of_step, torch.arange(self.of_step.shape[1], device=part.device) - self.first[self.of_step]]


def cut_at_ends(ended: Tensor) -> Sequences:
    """Segments bool [M, T], true where the observation is an episode's final one -> what begins anew after each.

    All are padded to the longest one's length, rounded up to a quarter of T, so that there are few lengths for the
    device to prepare its kernels for.
    """
    segments, horizon = ended.shape
    begins = torch.zeros_like(ended)
    begins[:, 0], begins[:, 1:] = True, ended[:, :-1]
    segment, first = begins.nonzero(as_tuple=True)
    longest = int(torch.diff(segment * horizon + first, append=first.new_tensor([begins.numel()])).max())
    quarter = max(horizon // 4, 1)
    length = min(-(-longest // quarter) * quarter, horizon)
    steps = (first.unsqueeze(1) + torch.arange(length, device=ended.device)).clamp(max=horizon - 1)
    return Sequences(segment, first, steps, begins.flatten().cumsum(0).view(segments, horizon) - 1)
