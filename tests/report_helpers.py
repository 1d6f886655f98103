"""Run and evaluation folders as training and evaluation leave them, written by hand for the tests of the report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from conftest import tiny_experiment

from scout.report.runs import Run, read
from scout.report.sections import Section, sections_of

UPDATE_STEPS = 100


def row(update: int, **changes: float) -> dict[str, float]:
    """The metrics of an update: 100 agent steps in 2 seconds, no episode ended. `episode_return=7` adds a return."""
    names = {
        "episode_return": "environment/episode_return",
        "episodes": "environment/episodes",
        "held_out": "evaluation/return",
        "low": "evaluation/interval_low",
        "high": "evaluation/interval_high",
        "evaluation_seconds": "performance/evaluation_seconds",
    }
    usual = {
        "agent_steps": UPDATE_STEPS * update,
        "update": update,
        "losses/entropy": 1.5,
        "environment/episodes": float("episode_return" in changes),
        "performance/SPS": 50.0,
        "performance/rollout_seconds": 0.5,
        "performance/update_seconds": 1.5,
        "performance/peak_memory_mb": 900.0,
    }
    return usual | {names.get(key, key): value for key, value in changes.items()}


def rows(returns: Iterable[float]) -> list[dict[str, float]]:
    """An update for each of these returns, of one episode each."""
    return [row(update, episode_return=value) for update, value in enumerate(returns, start=1)]


def write_run(
    folder: Path, metrics: Iterable[dict[str, float]], state: str = "finished", reason: str = "", **changes: Any
) -> Path:
    """A run folder with these metrics; `changes` are those of its config."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_experiment(**changes).model_dump()))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in metrics))
    status = {"state": state, "started": "2026-01-02T03:04:05+00:00"} | ({"reason": reason} if reason else {})
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def write_evaluation(folder: Path, returns: Mapping[str, Sequence[float]], **config: Any) -> Path:
    """An evaluation's folder in which these policies had these returns."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    episodes = [
        {"policy": policy, "episode": episode, "return": value}
        for policy, values in returns.items()
        for episode, value in enumerate(values)
    ]
    (folder / "episodes.json").write_text(json.dumps(episodes))
    return folder


def only_run(folder: Path) -> Run:
    """The one run at or below the folder."""
    (run,) = read([folder]).runs
    return run


def only_section(folder: Path) -> Section:
    """The one section of what is below the folder."""
    (section,) = sections_of(read([folder]))
    return section
