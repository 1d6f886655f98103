"""Runs that are resumed, and what is compared of them."""

import json
from pathlib import Path
from typing import Any

import torch
from conftest import merge
from torch import Tensor

from scout.config import Experiment
from scout.run_folder import load_experiment
from scout.training import train
from scout.validation import validate


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("performance/")} for line in lines]


def lines_of(run_dir: Path) -> list[str]:
    """The lines of its metrics so far."""
    path = run_dir / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


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


def resumed(run_dir: Path, **changes: Any) -> Path:
    """Goes on with a run under its own config with some keys changed."""
    experiment = validate(Experiment, merge(load_experiment(run_dir).model_dump(), changes))
    return train(experiment, run_dir, resumed=True).run_dir
