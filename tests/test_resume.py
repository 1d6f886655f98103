"""A run that was stopped anywhere goes on as if nothing had been: the same weights and numbers, to the last bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scout.checkpoint import newest_state, numbered_checkpoints
from scout.run_folder import load_experiment
from scout.training import train

UPDATES, STOP = 6, 3
LONG = {"total_timesteps": UPDATES * 256, "checkpoint": {"interval": 1, "keep": 100}}


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("performance/")} for line in lines]


def assert_equal(one: Any, other: Any, where: str = "state") -> None:
    """Two nested states are the same, bit for bit."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}/{index}")
    else:
        assert one == other, where


def killed_after(update: int, run_dir: Path, copy: Path) -> Path:
    """A copy of a run as kill -9 leaves it: checkpoints up to an update, metrics one further and half a line."""
    shutil.copytree(run_dir, copy)
    for path in numbered_checkpoints(copy):
        if int(path.stem) > update:
            path.unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[: update + 1]) + lines[update + 1][:40])
    (copy / "checkpoints" / f"{update + 1:06d}.tmp").write_bytes(b"PK half of a checkpoint")
    status = json.loads((copy / "status.json").read_text())
    (copy / "status.json").write_text(json.dumps({**status, "state": "running"}))
    return copy


CASES: dict[str, dict[str, Any]] = {
    "serial": {},
    "stale first action": {"vecenv": {"stale_first_action": True}},
    "multiprocessing": {"vecenv": {"name": "multiprocessing", "num_workers": 2}},
    "consecutive maps": {"vecenv": {"map_seeds": "consecutive"}},
    "two rollout segments": {"total_timesteps": UPDATES * 512, "trainer": {"batch_size": 512}},
    "normalized rewards": {"trainer": {"normalize_rewards": True, "carry_state": False}},
    "prioritized, with a limit": {"trainer": {"prioritized_replay": True, "target_kl": 0.01, "update_epochs": 2}},
    "muon": {"optimizer": {"name": "muon", "weight_decay": 0.01, "min_lr_ratio": 0.1}},
    "adamw, constant rate": {"optimizer": {"name": "adamw", "anneal_lr": False}},
    "conv": {"model": {"name": "conv", "hidden_size": 8, "embedding_size": 4, "conv_channels": [4, 4]}},
    "bfloat16": {"device": {"precision": "bfloat16"}},
    "torch's layers": {"device": {"fast_layers": False}},
    "PuffeRL as shipped": {"trainer": {"name": "pufferl"}, "optimizer": {"learning_rate": 0.01}},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_a_resumed_run_equals_one_that_was_never_stopped(
    changes: dict[str, Any], train_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Six updates in one go are three, a kill, and three more: every tensor and number of state and metrics."""
    whole = train_tiny(**{**LONG, **changes})
    copy = killed_after(STOP, whole, tmp_path / "killed")
    train(load_experiment(copy), copy, resumed=True)
    assert_equal(newest_state(copy), newest_state(whole))
    assert metrics_of(copy) == metrics_of(whole)
    assert [line["update"] for line in metrics_of(copy)] == list(range(1, UPDATES + 1))
    # The comparison is of a run that goes on changing, over more than one episode of each environment.
    before = torch.load(numbered_checkpoints(whole)[STOP - 1], weights_only=True)
    after = torch.load(numbered_checkpoints(whole)[-1], weights_only=True)
    assert not all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])
    assert (after["environments"]["episodes"] > before["environments"]["episodes"]).all()
    assert (before["environments"]["episodes"] > 0).any()
