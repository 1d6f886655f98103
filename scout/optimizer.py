"""Optimizers and the learning rate's schedule, by config."""

import math
from collections.abc import Callable, Iterable
from typing import Any, override

import torch
from torch import Tensor, nn

from scout.config import OptimizerConfig


class MuonWithAdam(torch.optim.Optimizer):
    """Muon for the weight matrices and Adam for everything else.

    Source: K. Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks". torch's Muon takes
    matrices only; vectors and convolutions go to Adam, embeddings and heads do not, though its author advises it. Both
    step with the same learning rate: Muon's update is scaled to the size of Adam's (`match_rms_adamw`).
    """

    def __init__(self, parameters: Iterable[Tensor], config: OptimizerConfig) -> None:
        parameters = list(parameters)
        self._muon = torch.optim.Muon(
            [parameter for parameter in parameters if parameter.ndim == 2],
            lr=config.learning_rate,
            momentum=config.adam_beta1,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = torch.optim.Adam(
            [parameter for parameter in parameters if parameter.ndim != 2], **_adam_arguments(config)
        )
        super().__init__(parameters, {"lr": config.learning_rate})
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]  # shared, so a schedule reaches both

    @property
    def parts(self) -> tuple[torch.optim.Optimizer, ...]:
        """The optimizers that do the work."""
        return self._muon, self._adam

    @override
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both. A closure is not supported."""
        assert closure is None
        self._muon.step()
        self._adam.step()
        return None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._muon.load_state_dict(state_dict["muon"])
        self._adam.load_state_dict(state_dict["adam"])
        self.param_groups = [*self._muon.param_groups, *self._adam.param_groups]


def make_optimizer(config: OptimizerConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that the config names, over all of the network's parameters."""
    match config.name:
        case "adam":
            return torch.optim.Adam(network.parameters(), **_adam_arguments(config))
        case "adamw":
            return torch.optim.AdamW(network.parameters(), **_adam_arguments(config), weight_decay=config.weight_decay)
        case "muon":
            return MuonWithAdam(network.parameters(), config)


def learning_rate_factor(update: int, total_updates: int, min_lr_ratio: float) -> float:
    """The learning rate of update 0 to total_updates - 1, as a part of the first: half a cosine from 1 to min_lr_ratio.

    The last update gets min_lr_ratio exactly. With min_lr_ratio 0 it would train nothing, so the cosine then ends one
    update later. Source: Loshchilov and Hutter, 2017, "SGDR", equation 5, without restarts.
    """
    last = total_updates - 1 if min_lr_ratio > 0 else total_updates
    progress = min(update / last, 1.0) if last > 0 else 0.0
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def make_schedule(
    config: OptimizerConfig, optimizer: torch.optim.Optimizer, total_updates: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule over a run of `total_updates`, stepped once an update; constant without anneal_lr."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda update: learning_rate_factor(update, total_updates, config.min_lr_ratio) if config.anneal_lr else 1.0,
    )


def _adam_arguments(config: OptimizerConfig) -> dict[str, Any]:
    return {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_eps,
        "fused": True,  # one pass over memory instead of ten
    }
