"""A checkpoint of several ranks is that of one process with the environments of all: joined, and taken apart again.

Everything with a dimension is per agent or per environment, in the order of the ranks; what has none they share.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from scout.rank_link import LONG_PATIENCE
from scout.ranks import Ranks
from scout.state import whole_state
from scout.trainer import StockTrainer

log = logging.getLogger(__name__)

PER_RANK = ("trainer", "environments")


def joined_state(trainer: StockTrainer, before_rollout: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The state of the whole run, for the first rank; None for the others, which take part nevertheless.

    As it is now, or as it was before the rollout that has begun.
    """
    ranks, state = trainer.ranks, whole_state(trainer, before_rollout)
    if ranks.size == 1:
        return state
    # The first rank may have to judge the run before it comes to this.
    parts = ranks.gather({name: state[name] for name in PER_RANK}, "the checkpoint", LONG_PATIENCE)
    if parts is None:
        return None
    longest = max(part["environments"]["actions"].shape[1] for part in parts)
    for part in parts:
        actions = part["environments"]["actions"]
        part["environments"]["actions"] = pad(actions, (0, 0, 0, longest - actions.shape[1]))
    return state | {name: _joined([part[name] for part in parts]) for name in PER_RANK}


def ranks_of(state: dict[str, Any], environments: int) -> int:
    """How many ranks of so many environments each have made a state."""
    return max(len(state["environments"]["episodes"]) // environments, 1)


def own_state(state: dict[str, Any], ranks: Ranks, environments: int) -> dict[str, Any]:
    """This rank's part of a state, if it has one; else its environments are to begin anew and its agents too."""
    before = ranks_of(state, environments)
    if before == ranks.size == 1:
        return state
    if ranks.rank < before:
        return state | {name: _part(state[name], ranks.rank, before) for name in PER_RANK}
    return state | {"environments": None, "trainer": _zeros(_part(state["trainer"], 0, before))}


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, dict):
        return {name: _joined([part[name] for part in parts]) for name in first}
    return torch.cat([part.cpu() for part in parts]) if isinstance(first, Tensor) and first.dim() else first


def _part(whole: Any, rank: int, size: int) -> Any:
    """Raises ValueError when it does not divide."""
    if isinstance(whole, dict):
        return {name: _part(value, rank, size) for name, value in whole.items()}
    if not isinstance(whole, Tensor) or not whole.dim():
        return whole
    if len(whole) % size:
        raise ValueError(f"it has {len(whole)} of something, which {size} ranks cannot have shared")
    return whole.view(size, -1, *whole.shape[1:])[rank].clone()


def _zeros(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _zeros(value) for name, value in part.items()}
    return torch.zeros_like(part) if isinstance(part, Tensor) and part.dim() else part
