"""Exploration that lasts: now and then an agent walks straight on for a while, whatever its policy says.

A policy that samples each step anew never leaves a habit for long: whoever steps away from the wall along which it
walks is led back by the next step, and never learns what the middle of the map is worth by now. After an excursion the
policy goes on from where it led, and the value of such places tells the steps before it whether to go there. The steps
of an excursion themselves are no choice of the policy: they are in no loss, and no advantage reaches across them.

That is what exploring starts do (Sutton and Barto, 2018, "Reinforcement Learning", section 5.3), in the middle of an
episode, and with actions that last as in Dabney et al., 2021, "Temporally-extended epsilon-greedy exploration".
"""

from typing import Any

import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor

from scout.config import TrainerConfig
from scout.ranks import ALONE, Ranks


class Excursions:
    """The excursions of all agents of a rank: which of them are on one, in which direction, and for how long yet."""

    def __init__(
        self, agents: int, directions: list[int], share: float, length: int, device: str, ranks: Ranks = ALONE
    ) -> None:
        self._ranks = ranks
        self._directions = torch.tensor(directions, device=device)
        self._share, self._length = share, length
        self._left = torch.zeros(agents, dtype=torch.int64, device=device)
        self._action = torch.zeros(agents, dtype=torch.int64, device=device)
        self.anneal(0.0)

    def anneal(self, progress: float) -> None:
        """Sets the share for this part of the run, of which 0 to 1 has passed: a straight line from the first to 0.

        While others are on excursions a policy's team sees what it would not see by itself: it must learn without them.
        """
        share = self._share * max(1 - progress, 0.0)
        self._rate = share / (share + (1 - share) * self._length)  # of beginning one in a step that belongs to none

    def take(self, agents: slice, actions: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        """Actions int64 [N] of a policy -> those to play, and who is on an excursion, bool [N].

        Nobody is where an episode is `over`, bool [N].
        """
        left, own = self._left[agents], self._ranks.own
        everyone = (self._ranks.size * len(left),)  # the generators stay alike on all ranks
        begins = (left == 0) & (own(torch.rand(everyone, device=left.device)) < self._rate)
        lengths = own(torch.randint(1, 2 * self._length, everyone, device=left.device))  # length in the mean
        chosen = self._directions[own(torch.randint(len(self._directions), everyone, device=left.device))]
        left = torch.where(begins, lengths, left) * ~over
        self._action[agents] = torch.where(begins, chosen, self._action[agents])
        self._left[agents] = (left - 1).clamp(min=0)
        return torch.where(left > 0, self._action[agents], actions), left > 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on."""
        return {"left": self._left, "action": self._action}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._left, self._action = (state[name].to(self._left.device).clone() for name in ("left", "action"))


def make_excursions(
    config: TrainerConfig, env_info: PolicyEnvInterface, agents: int, device: str, ranks: Ranks = ALONE
) -> Excursions | None:
    """Excursions by all actions that move an agent; None where none are asked for or nothing moves."""
    directions = [index for index, name in enumerate(env_info.action_names) if name.startswith("move_")]
    if config.excursion_share == 0 or not directions:
        return None
    return Excursions(agents, directions, config.excursion_share, config.excursion_length, device, ranks)
