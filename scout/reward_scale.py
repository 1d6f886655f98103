"""Rewards on the scale of the returns that they make: `trainer.normalize_rewards`."""

from typing import Any

import torch
from torch import Tensor

from scout.ranks import ALONE, Ranks


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return, estimated over the whole run so far.

    Values to learn are then of size 1 whatever the mission pays; the mean stays, so no reward changes its sign.
    Source: Engstrom et al., 2020, "Implementation matters in deep policy gradients", section 3; mean and variance are
    merged as in Chan et al., 1979, "Updating formulae", equation 2.1.
    """

    def __init__(self, agents: int, gamma: float, ranks: Ranks = ALONE) -> None:
        self._gamma, self._ranks = gamma, ranks
        self._returns = torch.zeros(agents, dtype=torch.float64)  # discounted, of the episode so far
        self._count, self._mean, self._squares = (torch.zeros((), dtype=torch.float64) for _ in range(3))

    @property
    def divisor(self) -> float:
        """What a reward is divided by; 1 until returns have differed."""
        variance = float(self._squares / self._count) if self._count > 0 else 0.0
        return variance**0.5 if variance > 0 else 1.0

    def update(self, rewards: Tensor, episode_ends: Tensor) -> None:
        """Takes in rewards [N, L] of consecutive steps; where `episode_ends` [N, L], the next one begins an episode.

        The estimate is one for all ranks, from the returns of all.
        """
        rewards, episode_ends = rewards.double().cpu(), episode_ends.cpu() > 0
        seen = torch.empty_like(rewards)
        for t in range(rewards.shape[1]):
            self._returns = self._gamma * self._returns + rewards[:, t]
            seen[:, t] = self._returns
            self._returns = self._returns * ~episode_ends[:, t]
        count, mean, squares = self._ranks.moments(seen)
        total, difference = self._count + count, mean - self._mean
        self._squares = self._squares + squares
        self._squares += difference**2 * self._count * count / total
        self._mean = self._mean + difference * count / total
        self._count = total

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on."""
        return {"returns": self._returns, "count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._returns, self._count, self._mean, self._squares = (
            state[name].clone() for name in ("returns", "count", "mean", "squares")
        )
