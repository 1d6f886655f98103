"""Rewards on the scale of the returns that they make: `trainer.normalize_rewards`."""

from typing import Any

import torch
from torch import Tensor

from scout.ranks import ALONE, Moments, Ranks

_STORED = ("count", "mean", "squares")


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return, estimated over the whole run so far.

    Values to learn are then of size 1 whatever the mission pays; the mean stays, so no reward changes its sign. Of
    several missions each has its own scale, else the one that pays most would leave nothing to learn from the others.
    Source: Engstrom et al., 2020, "Implementation matters in deep policy gradients", section 3; mean and variance are
    merged as in Chan et al., 1979, "Updating formulae", equation 2.1.
    """

    def __init__(self, agents: int, gamma: float, ranks: Ranks = ALONE, missions: int = 1) -> None:
        self._gamma, self._ranks = gamma, ranks
        self._returns = torch.zeros(agents, dtype=torch.float64)  # discounted, of the episode so far
        zero = torch.zeros((), dtype=torch.float64)
        self._moments = [Moments(zero, zero, zero)] * missions  # of each mission

    @property
    def divisors(self) -> list[float]:
        """What each mission's rewards are divided by; 1 until its returns have differed."""
        variances = [float(squares / number) if number > 0 else 0.0 for number, _, squares in self._moments]
        return [variance**0.5 if variance > 0 else 1.0 for variance in variances]

    def scaled(self, rewards: Tensor, missions: Tensor | None = None) -> Tensor:
        """Rewards, each over its mission's divisor; `missions` are their numbers, int64 of the same shape."""
        if missions is None:
            return rewards / self.divisors[0]
        return rewards / rewards.new_tensor(self.divisors)[missions]

    def update(self, rewards: Tensor, episode_ends: Tensor, missions: Tensor | None = None) -> None:
        """Takes in rewards [N, L] of consecutive steps; where `episode_ends` [N, L], the next one begins an episode.

        `missions` int64 [N, L] are those of the steps, where there are several. The estimate is one for all ranks, from
        the returns of all.
        """
        rewards, episode_ends = rewards.double().cpu(), episode_ends.cpu() > 0
        seen = torch.empty_like(rewards)
        for t in range(rewards.shape[1]):
            self._returns = self._gamma * self._returns + rewards[:, t]
            seen[:, t] = self._returns
            self._returns = self._returns * ~episode_ends[:, t]
        for mission, before in enumerate(self._moments):
            found = self._ranks.moments(seen if missions is None else seen[missions.cpu() == mission])
            if found.number > 0:
                self._moments[mission] = _merged(before, found)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on."""
        state: dict[str, Any] = {"returns": self._returns}
        for mission, moments in enumerate(self._moments):
            state |= {_key(name, mission): value for name, value in zip(_STORED, moments, strict=True)}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._returns = state["returns"].clone()
        self._moments = [
            Moments(*(state[_key(name, mission)].clone() for name in _STORED)) for mission in range(len(self._moments))
        ]


def _merged(before: Moments, found: Moments) -> Moments:
    total, difference = before.number + found.number, found.mean - before.mean
    squares = before.squares + found.squares + difference**2 * before.number * found.number / total
    return Moments(total, before.mean + difference * found.number / total, squares)


def _key(name: str, mission: int) -> str:
    return f"{name}.{mission}" if mission else name
