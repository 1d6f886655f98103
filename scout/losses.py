"""PPO's losses of single steps."""

import torch
from torch import Tensor


def policy_losses(ratio: Tensor, advantages: Tensor, clip_coef: float) -> Tensor:
    """The worse of the whole and the clipped objective, of probability ratios and advantages float32 [M, T] each.

    Source: Schulman et al., 2017, "Proximal policy optimization algorithms", equation 7.
    """
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip_coef, 1 + clip_coef))


def drift_of(log_ratio: Tensor, ratio: Tensor, clip_coef: float) -> dict[str, Tensor]:
    """How far the policy has gone from the one that acted, by probability ratios float32 [M, T] and their logarithms.

    Source of the KL's estimate: J. Schulman, 2020, "Approximating KL divergence".
    """
    return {
        "old_approx_kl": -log_ratio,
        "approx_kl": ratio - 1 - log_ratio,
        "clipfrac": ((ratio - 1).abs() > clip_coef).float(),
        "importance": ratio,
    }


def value_losses(values: Tensor, acted_values: Tensor, returns: Tensor, clip_coef: float | None) -> Tensor:
    """Half the squared error, float32 [M, T]; with a `clip_coef` the worse of it and that of a value held near the old.

    The old one is the value that the policy acted with.
    """
    losses = (values - returns) ** 2
    if clip_coef is not None:
        change = (values - acted_values).clamp(-clip_coef, clip_coef)
        losses = torch.max(losses, (acted_values + change - returns) ** 2)
    return 0.5 * losses
