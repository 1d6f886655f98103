"""How much better each action was than expected."""

from typing import NamedTuple

import torch
from torch import Tensor

from scout.config import TrainerConfig


class Ahead(NamedTuple):
    """What arrives one step after a rollout's last: float32 [agents] each."""

    values: Tensor
    rewards: Tensor
    terminals: Tensor
    truncations: Tensor


class Timeline(NamedTuple):
    """What N agents lived through in L steps and one more: float32 [N, L + 1] each.

    Step t holds the value of observation o[t], and the reward, terminal and truncation that arrived *with* it: those
    of the action at t - 1.
    """

    values: Tensor
    rewards: Tensor
    terminals: Tensor
    truncations: Tensor


def generalized_advantages(timeline: Timeline, ratio: Tensor, config: TrainerConfig) -> Tensor:
    """Generalized advantages with V-trace's weights, float32 [N, L], of the actions at the first L steps.

    `ratio` [N, L] are the probability ratios of the present policy to the one that acted, cut at their ceilings here.
    A truncated episode would have gone on, so its last value counts as its future, but nothing flows back from the
    episode after it. PuffeRL gives the last step of each segment advantage 0 and knows no truncations.

    Sources: Schulman et al., 2016, "GAE", equation 16; Espeholt et al., 2018, "IMPALA", section 4.1; Pardo et al.,
    2018, "Time limits in reinforcement learning". In torch, since PuffeRL's kernel knows neither truncations nor a
    following step, and its Linux build loads only where CUDA's libraries are.
    """
    values, rewards = timeline.values, timeline.rewards
    has_future = 1 - timeline.terminals
    goes_on = has_future * (1 - timeline.truncations)
    rho, c = ratio.clamp(max=config.vtrace_rho_clip), ratio.clamp(max=config.vtrace_c_clip)
    # delta[t] = rho[t] (r[t+1] + gamma V(o[t+1]) (1 - terminal[t+1]) - V(o[t]))
    delta = rho * (rewards[:, 1:] + config.gamma * values[:, 1:] * has_future[:, 1:] - values[:, :-1])
    # A[t] = delta[t] + gamma lambda c[t] A[t+1] (1 - terminal[t+1]) (1 - truncation[t+1])
    decay = config.gamma * config.gae_lambda * c * goes_on[:, 1:]
    advantages = torch.empty_like(delta)
    advantage = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        advantage = delta[:, t] + decay[:, t] * advantage
        advantages[:, t] = advantage
    return advantages
