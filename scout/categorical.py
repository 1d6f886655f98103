"""A choice among a few actions: drawn, and looked back on."""

import torch
from torch import Tensor

from scout.ranks import ALONE, Ranks


def draw(logits: Tensor, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
    """Draws from logits float32 [N, A]: actions int64 [N] and the logarithms of their probabilities float32 [N].

    The noise is drawn for the agents of all ranks, so that the generators stay alike on all of them.

    The largest of probability / noise, with exponential noise, is a sample (the race of exponentials), which is what
    torch.multinomial does after checks that would wait for the device.
    """
    logarithms = logits.log_softmax(dim=-1)
    noise = ranks.own(logarithms.new_empty(ranks.size * len(logarithms), logarithms.shape[-1]).exponential_())
    actions = (logarithms.exp() / noise).argmax(dim=-1, keepdim=True)
    return actions.squeeze(-1), logarithms.gather(-1, actions).squeeze(-1)


def look_back(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the probability of each action [N], and the entropy of each choice [N]: logits [N, A]."""
    logarithms = logits.log_softmax(dim=-1)
    chosen = logarithms.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
    bounded = logarithms.clamp(min=torch.finfo(logarithms.dtype).min)  # what is impossible counts 0, and not 0 x -inf
    return chosen, -(logarithms.exp() * bounded).sum(dim=-1)
