"""What several tests share: a small experiment, and one finished run of it."""

import os

# The tests run side by side, a core each: threads of theirs would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every script that they start would compile torch anew

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scout.config import Experiment

ROOT = Path(__file__).resolve().parent.parent

# Real environments and a real network, small enough for a run to take seconds: 2 updates of 2 minibatches each, and
# episodes short enough to end.
TINY: dict[str, Any] = {
    "total_timesteps": 512,
    "mission": {"max_steps": 25},
    "model": {"name": "cnn_lstm", "conv_channels": [4, 8], "cnn_features": 8, "self_features": 8, "hidden_size": 16},
    "trainer": {
        "batch_size": 256,
        "minibatch_size": 128,
        "bptt_horizon": 16,
        "update_epochs": 1,
        "excursion_share": 0.0,
    },
    "vecenv": {"num_envs": 4},
    "checkpoint": {"interval": 1},
    "evaluation": {"every": None, "film": False},
    "device": {"name": "cpu", "precision": "float32"},
    "wandb": {"mode": "disabled"},
}


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, group by group."""
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = merge(merged.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def tiny_experiment(**changes: Any) -> Experiment:
    """A small experiment with some keys changed: tiny_experiment(seed=3, vecenv={"num_envs": 2}).

    A network that is named gets its own keys alone: tiny_experiment(model={"name": "conv", "hidden_size": 8}).
    """
    base = {key: value for key, value in TINY.items() if key != "model" or "name" not in changes.get("model", {})}
    return Experiment.model_validate(merge(base, changes))


def tiny_overrides(**changes: Any) -> list[str]:
    """The small experiment as command-line overrides of train.py."""

    def flat(values: dict[str, Any], prefix: str = "") -> list[str]:
        return [
            line
            for key, value in values.items()
            for line in (flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"])
        ]

    lines = [line.replace(" ", "").replace("=None", "=null") for line in flat(merge(TINY, changes))]
    return [line.replace(".name=", "=", 1) if line.count(".") == 1 else line for line in lines]  # a group's option


def run_script(
    *command: str, cwd: Path = ROOT, timeout: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs `python command...` with no terminal and returns what it printed and its exit code."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


def wait_until(happens: Callable[[], bool], seconds: float = 90) -> None:
    """Waits for something that is about to happen. Fails when it does not."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the small experiment, with W&B offline."""
    from scout.training import train

    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    train(tiny_experiment(wandb={"mode": "offline"}), run_dir)
    return run_dir


@pytest.fixture
def train_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Trains the small experiment with some keys changed, in a folder of its own, and returns the run folder."""
    from scout.training import train

    def run(name: str = "run", **changes: Any) -> Path:
        return train(tiny_experiment(**changes), tmp_path / name).run_dir

    return run


@pytest.fixture(scope="session")
def observations() -> Any:
    """Real observations uint8 [4 agents, 12 steps, 200, 3] under random moves."""
    from evaluation_helpers import observed

    return observed()


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., Any]:
    """Runs a short evaluation, each in a folder of its own: judge(policy="noop")."""
    from evaluation_helpers import config_of

    from scout.evaluation import evaluate

    count = 0

    def run(**changes: Any) -> Any:
        nonlocal count
        count += 1
        output_dir = tmp_path / f"evaluation_{count}"
        output_dir.mkdir()
        return evaluate(config_of(**changes), output_dir)

    return run


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """The run folder of a mission of its own: two agents, nine steps."""
    from evaluation_helpers import network_of, run_folder

    experiment = tiny_experiment(mission={"num_agents": 2, "max_steps": 9})
    return run_folder(tmp_path / "small", experiment, network_of(1))
