"""A run that was stopped anywhere goes on as if nothing had been: the same weights and numbers, to the last bit."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, run_script, tiny_overrides, wait_until
from curriculum_helpers import in_turn
from resume_helpers import assert_equal, lines_of, metrics_of, resumed

from scout.checkpoint import newest_state, numbered_checkpoints
from scout.run_folder import load_experiment
from scout.training import train

UPDATES, STOP = 6, 3
LONG = {"total_timesteps": UPDATES * 256, "checkpoint": {"interval": 1, "keep": 100}}
WORKERS = {"vecenv": {"name": "multiprocessing", "num_workers": 2}}


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
    "workers in batches": {"vecenv": {"name": "multiprocessing", "num_workers": 2, "batch_size": 2}},
    "consecutive maps": {"vecenv": {"map_seeds": "consecutive"}},
    "two rollout segments": {"total_timesteps": UPDATES * 512, "trainer": {"batch_size": 512}},
    "rewards as they are, no carried state": {"trainer": {"normalize_rewards": False, "carry_state": False}},
    "excursions": {"trainer": {"excursion_share": 0.4, "excursion_length": 5}},
    "prioritized, with a limit": {"trainer": {"prioritized_replay": True, "target_kl": 0.01, "update_epochs": 2}},
    "muon": {"optimizer": {"name": "muon", "weight_decay": 0.01, "min_lr_ratio": 0.1}},
    "adamw, constant rate": {"optimizer": {"name": "adamw", "anneal_lr": False}},
    "conv": {"model": {"name": "conv", "hidden_size": 8, "embedding_size": 4, "conv_channels": [4, 4]}},
    "bfloat16": {"device": {"precision": "bfloat16"}},
    "torch's layers": {"device": {"fast_layers": False}},
    "PuffeRL as shipped": {"trainer": {"name": "pufferl"}, "optimizer": {"learning_rate": 0.01}},
    "missions in turn": in_turn(),
}
STAGES_IN_WORKERS = {
    **in_turn(episodes=2, stagger=False),
    "vecenv": {"name": "multiprocessing", "num_workers": 2},
}


@pytest.mark.parametrize(
    "changes",
    [
        *(pytest.param(changes, id=name) for name, changes in CASES.items()),
        pytest.param(STAGES_IN_WORKERS, id="missions as stages, in workers", marks=pytest.mark.slow),
    ],
)
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


def test_a_resumed_run_is_judged_on_its_missions(train_tiny: Callable[..., Path]) -> None:
    """Two updates of missions in turn, and one after a resume: the evaluations are those of one run of three."""
    common = {**in_turn(), "evaluation": {"every": 256, "episodes": 1}, "optimizer": {"anneal_lr": False}}
    whole, parts = (train_tiny(str(updates), **common, total_timesteps=updates * 256) for updates in (3, 2))
    resumed(parts, total_timesteps=3 * 256)
    assert metrics_of(parts) == metrics_of(whole)


@pytest.mark.slow
def test_kill_minus_9_at_any_moment_and_resume_auto_make_the_same_run(tmp_path: Path) -> None:
    """Killed three times from outside, while two worker processes play, the run equals one in a single process."""
    overrides = [*tiny_overrides(total_timesteps=40 * 256, checkpoint={"interval": 2, "keep": 100}), "resume=auto"]
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    assert run_script("train.py", *overrides, f"hydra.run.dir={whole}").returncode == 0
    again = [*tiny_overrides(**WORKERS, total_timesteps=40 * 256, checkpoint={"interval": 2, "keep": 100})]
    for kill, moment in enumerate((0.0, 0.17, 0.37, None)):
        command = [sys.executable, "train.py", *again, "resume=auto", f"hydra.run.dir={killed}"]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if moment is None:
            assert process.wait(timeout=120) == 0
            break
        wait_until(lambda before=6 * kill: len(lines_of(killed)) > before + 2)
        time.sleep(moment)
        process.kill()
        process.wait()
    assert len(json.loads((killed / "status.json").read_text())["resumed"]) == 3
    assert_equal(newest_state(killed), newest_state(whole))
    assert metrics_of(killed) == metrics_of(whole)
