"""The same seed gives the same numbers, whatever process plays; another seed gives others everywhere."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_experiment
from resume_helpers import assert_equal, metrics_of

from scout.build import build
from scout.checkpoint import newest_state
from scout.device import make_deterministic
from scout.mission import make_game


def test_worker_processes_play_what_one_process_plays(train_tiny: Callable[..., Path]) -> None:
    """Serial and two workers, all environments stepping together: equal states and metrics after six updates."""
    serial = train_tiny("serial", total_timesteps=6 * 256)
    workers = train_tiny("workers", total_timesteps=6 * 256, vecenv={"name": "multiprocessing", "num_workers": 2})
    assert_equal(newest_state(workers), newest_state(serial))
    assert metrics_of(workers) == metrics_of(serial)


def first_rollout(seed: int) -> dict[str, np.ndarray]:
    """What the first rollout of a run begins with and does."""
    experiment = tiny_experiment(seed=seed)
    trainer = build(experiment, make_game(experiment.mission), "cpu")
    weights = torch.cat([p.detach().flatten() for p in trainer.uncompiled_policy.parameters()]).numpy().copy()
    trainer.evaluate()
    played: Any = {"weights": weights, "maps": trainer.observations[:, 0].numpy(), "actions": trainer.actions.numpy()}
    trainer.close()
    return played


def test_another_seed_changes_weights_maps_and_actions() -> None:
    """Two runs of seed 1 begin alike in all three; one of seed 2 differs in each."""
    one, again, other = first_rollout(1), first_rollout(1), first_rollout(2)
    for name in one:
        assert np.array_equal(one[name], again[name]), name
        assert not np.array_equal(one[name], other[name]), name


def test_a_gpu_is_told_to_be_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """For cuda all deterministic algorithms are asked for, cuBLAS's workspace included; for a CPU nothing changes."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    make_deterministic("cpu")
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        make_deterministic("cuda")
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
