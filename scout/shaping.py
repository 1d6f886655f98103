"""Rewards for training that leave the best policy as it is: `trainer.potential`."""

import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor

from scout.errors import ScoutError, nearest

_OWN, _BASE = "inv:", 256  # a feature of the inventory; its :p1 counts in 256s, :p2 in 256 x 256s


class Potential:
    """Pays each step by how much better off the agent is after it: gamma Phi(next) - Phi(now).

    Phi is a weighted sum of what an agent carries, as it observes it itself. What is of use only much later, such as
    the HP that the hub gives back, is paid when it is gained and taken back when it is used up. Over an episode the
    payments sum to the same whatever was done, so the best policy stays the best. Evaluations know nothing of them.

    Source: Ng, Harada and Russell, 1999, "Policy invariance under reward transformations". Raises ScoutError for
    something that agents of the mission do not carry.
    """

    def __init__(self, env_info: PolicyEnvInterface, weights: dict[str, float], gamma: float) -> None:
        self._own_cell = env_info.obs_height // 2 << 4 | env_info.obs_width // 2
        self._gamma = gamma
        ids = {feature.name: int(feature.id) for feature in env_info.obs_features if feature.name.startswith(_OWN)}
        carried = [name.removeprefix(_OWN) for name in ids if name.count(":") == 1]
        self._per_value = torch.zeros(256)  # what one of a feature's value is worth
        for name, weight in weights.items():
            if name not in carried:
                raise ScoutError(
                    f"trainer.potential.{name}={weight}: agents of this mission carry no {name}; "
                    f"{nearest(name, carried)}"
                )
            for feature, index in ids.items():
                stem, _, power = feature.removeprefix(_OWN).partition(":p")
                if stem == name:
                    self._per_value[index] = weight * _BASE ** int(power or 0)

    def of(self, tokens: Tensor) -> Tensor:
        """Phi of observations uint8 [B, T, 3]: float32 [B]."""
        place, feature, value = tokens.unbind(-1)
        per_value = self._per_value.to(tokens.device)[feature.long()]
        return (per_value * value * (place == self._own_cell)).sum(dim=1)

    def rewards(self, potentials: Tensor, terminals: Tensor, truncations: Tensor) -> Tensor:
        """What is added to the rewards that arrive with steps 1 ... L, float32 [N, L], from Phi at 0 ... L, [N, L + 1].

        Terminals and truncations [N, L + 1] arrive with the step, as in `Timeline`. Phi is 0 once an episode has ended;
        one that is cut short goes on. The first step of an episode brings nothing.
        """
        begins = (terminals + truncations)[:, :-1] > 0
        gained = self._gamma * potentials[:, 1:] * (1 - terminals[:, 1:]) - potentials[:, :-1]
        return gained * ~begins
