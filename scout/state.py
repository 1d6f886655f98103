"""Everything that a run is, at the end of an update, as plain values and tensors: what a checkpoint holds.

`rollout_state` is what the next rollout changes, so that a run whose rollout fails can still be stored as it was
before. All of it can be read with `torch.load(weights_only=True)`.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from scout.trainer import StockTrainer

NOT_FITTING = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError)
"""What a state of another shape raises."""


def rollout_state(trainer: StockTrainer) -> dict[str, Any]:
    """What a rollout changes: counters, random generators, recurrent states, and the environments' record."""
    return {
        "agent_steps": trainer.global_step,
        "update": trainer.epoch,
        "trainer": trainer.state_dict(),
        "environments": trainer.vecenv.record.state_dict(),
        "generators": _generators(),
    }


def whole_state(trainer: StockTrainer, before_rollout: dict[str, Any] | None = None) -> dict[str, Any]:
    """The state of the run, now or before the rollout that has begun."""
    return {
        "model": trainer.uncompiled_policy.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        **(before_rollout or rollout_state(trainer)),
    }


def restore(trainer: StockTrainer, state: dict[str, Any]) -> None:
    """Puts a state into a trainer whose environments were made from it; the generators last, which building draws from.

    The settings of optimizer and schedule stay the trainer's own, since they may have been changed. What does not fit
    raises one of NOT_FITTING.
    """
    trainer.uncompiled_policy.load_state_dict(state["model"])
    trainer.optimizer.load_state_dict(_with_settings(state["optimizer"], trainer.optimizer.state_dict()))
    for optimizer in getattr(trainer.optimizer, "parts", (trainer.optimizer,)):
        for parameter, kept in optimizer.state.items():
            for name, value in kept.items():
                if value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"the optimizer's {name} is {list(value.shape)}, expected {list(parameter.shape)}")
    trainer.global_step, trainer.epoch = state["agent_steps"], state["update"]
    trainer.load_state_dict(state["trainer"])
    trainer.restore_schedule(state["scheduler"])
    _set_generators(state["generators"])


@contextmanager
def same_generators() -> Iterator[None]:
    """What is drawn within it from the global random generators is not missed by those who draw after it."""
    saved = _generators()
    try:
        yield
    finally:
        _set_generators(saved)


def _with_settings(saved: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's saved state under its own settings; the learning rate is the schedule's."""
    if "state" not in saved:  # several optimizers in one
        return {name: _with_settings(saved[name], own[name]) for name in own}
    groups = [
        {**ours, "lr": theirs["lr"]} for ours, theirs in zip(own["param_groups"], saved["param_groups"], strict=True)
    ]
    return {"state": saved["state"], "param_groups": groups}


def _generators() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the one GPU that a rank has
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def _set_generators(saved: dict[str, Any]) -> None:
    random.setstate(saved["python"])
    name, keys, *rest = saved["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(saved["cuda"][0])
    if saved.get("mps") and torch.backends.mps.is_available():
        torch.mps.set_rng_state(saved["mps"][0])
