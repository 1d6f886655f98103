"""What the page is about: training runs and evaluations, read from their folders."""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from scout.baselines import is_baseline
from scout.config import Experiment, MissionConfig
from scout.errors import ScoutError
from scout.evaluation_config import EvaluationMission
from scout.files import CHECKPOINTS, CONFIG, EPISODES, HELD_OUT, METRICS, RETURN, STATUS
from scout.run_folder import is_running, load_experiment, object_in
from scout.validation import validate

STATES = ("finished", "pruned", "running", "interrupted", "failed", "killed", "unknown")
FINAL_PART = 0.1
"""The last part of the training episodes, whose mean return is final where nothing was held out."""
_KEPT = ("agent_steps", "environment/episode", "evaluation/", "losses/", "performance/")  # the page shows no others
_EXPECTED = "expected run folders, evaluations' folders, or folders that hold some, such as a sweep's under multirun/"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One training run. Its arrays have a number for each update, [updates], nan where nothing was logged."""

    path: Path
    name: str
    experiment: Experiment
    state: str
    """One of STATES. killed: its status says that it runs, but no process trains it."""
    reason: str
    started: str
    metrics: dict[str, Array]
    left_out: int
    """Lines of the metrics that could not be read."""

    def column(self, metric: str) -> Array:
        """A metric, [updates]."""
        return self.metrics.get(metric, np.full(len(self.steps), np.nan))

    def series(self, metric: str) -> tuple[Array, Array]:
        """Agent steps and values where the metric was logged; a mean return once for each episode that ended."""
        values = self.column(metric)
        known = np.isfinite(values)
        times = np.clip(np.nan_to_num(self.column("environment/episodes")[known]), 1, 10_000).astype(int)
        times = times if metric == RETURN else 1
        return np.repeat(self.steps[known], times), np.repeat(values[known], times)

    @property
    def steps(self) -> Array:
        """Agent steps at the end of each update."""
        return self.metrics.get("agent_steps", np.zeros(0))

    @property
    def minutes(self) -> Array:
        """Minutes of rollouts, updates and evaluations up to the end of each update."""
        parts = [self.column(f"performance/{part}_seconds") for part in ("rollout", "update", "evaluation")]
        return np.nan_to_num(parts).sum(axis=0).cumsum() / 60

    def final(self, held_out: bool) -> float:
        """The last held-out evaluation, or the mean of the last FINAL_PART of the training episodes; nan without."""
        _, values = self.series(HELD_OUT if held_out else RETURN)
        last = 1 if held_out else math.ceil(FINAL_PART * len(values))
        return float(values[-last:].mean()) if len(values) else math.nan

    @property
    def best(self) -> float:
        """The highest held-out evaluation; -inf without one."""
        return float(self.series(HELD_OUT)[1].max(initial=-math.inf))

    @property
    def speed(self) -> float:
        """Median agent steps per second of all updates; nan without any."""
        return float(np.median(self.series("performance/SPS")[1])) if self.has("performance/SPS") else math.nan

    @property
    def memory(self) -> float:
        """Peak memory of its process in MB; 0 where it was not logged."""
        return float(self.series("performance/peak_memory_mb")[1].max(initial=0))

    def has(self, metric: str) -> bool:
        """Whether a metric was logged at all."""
        return bool(np.isfinite(self.column(metric)).any())


@dataclass(frozen=True)
class Evaluation:
    """What evaluate.py left behind."""

    name: str
    mission: MissionConfig | None
    """None where its config is missing or damaged."""
    returns: dict[str, list[float]]
    """Mean return per agent of each episode, by policy."""
    baselines: set[str]
    """Those of the policies that nobody trained."""


@dataclass(frozen=True)
class Found:
    """Everything below the given paths, in the order of the names."""

    runs: list[Run]
    evaluations: list[Evaluation]
    unreadable: dict[str, str]
    """Why a folder is left out, by its name."""


def read(paths: Sequence[Path]) -> Found:
    """Reads every run and evaluation at or below the paths; a name is a path from what they have in common.

    Raises ScoutError for a path that is no folder, and where there is nothing to report on.
    """
    folders = _folders(paths)
    if not folders:
        raise ScoutError(f"{', '.join(map(str, paths))} has no training run and no evaluation in it: {_EXPECTED}")
    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    found = Found([], [], {})
    for folder in sorted(folders, key=lambda folder: _natural(str(folder))):
        name = str(folder.relative_to(common))
        try:
            if (folder / STATUS).exists() or (folder / METRICS).exists():
                found.runs.append(_read_run(folder, name))
            if (folder / EPISODES).exists():
                found.evaluations.append(_read_evaluation(folder, name))
        except (ScoutError, OSError) as error:
            found.unreadable[name] = str(error)
    return found


def read_metrics(path: Path) -> tuple[dict[str, Array], int]:
    """The metrics of a run as columns [updates], and how many lines could not be read.

    A line is left out when it is no JSON object, and when its agent steps do not go beyond those of the line before.
    """
    rows: list[dict[str, float]] = []
    left_out, last = 0, 0.0
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = {key: _number(value) for key, value in json.loads(line).items() if key.startswith(_KEPT)}
        except (ValueError, AttributeError, RecursionError):
            row = {}
        if row.get("agent_steps", math.nan) > last:
            last = row["agent_steps"]
            rows.append(row)
        else:
            left_out += 1
    names = sorted({name for row in rows for name in row})
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}, left_out


def _folders(paths: Iterable[Path]) -> set[Path]:
    found = set()
    for path in paths:
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:
            raise ScoutError(f"{path} cannot be looked for ({error.strerror}): {_EXPECTED}") from error
        if not is_folder:
            raise ScoutError(f"{path} {'is a file' if exists else 'does not exist'}: {_EXPECTED}")
        for folder, below, files in path.resolve().walk():
            below[:] = [name for name in below if name not in ("wandb", CHECKPOINTS)]
            if {STATUS, METRICS, EPISODES} & set(files):
                found.add(folder)
    return found


def _read_run(folder: Path, name: str) -> Run:
    experiment, status = load_experiment(folder), object_in(folder / STATUS)
    state = str(status.get("state"))
    if state == "running" and not is_running(folder):
        state = "killed"
    reason, started = (str(status.get(key, "")) for key in ("reason", "started"))
    state = state if state in STATES else "unknown"
    return Run(folder, name, experiment, state, reason, started, *read_metrics(folder / METRICS))


def _read_evaluation(folder: Path, name: str) -> Evaluation:
    returns: dict[str, list[float]] = {}
    try:
        for episode in json.loads((folder / EPISODES).read_bytes()):
            returns.setdefault(str(episode["policy"]), []).append(float(episode["return"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        expected = "expected a list of episodes, each with a policy and a return"
        raise ScoutError(f"{folder / EPISODES} cannot be read ({type(error).__name__}): {expected}") from error
    config = object_in(folder / CONFIG, yaml.safe_load)
    baselines = {policy for policy in returns if is_baseline(policy)}
    mission = validate(EvaluationMission, {"mission": config["mission"]}).mission if config.get("mission") else None
    return Evaluation(name, mission, returns, baselines)


def _number(value: Any) -> float:
    """The value as a finite number of float32's range, in which runs compute; nan for anything else."""
    fits = isinstance(value, int | float) and abs(value) < 1e38
    return float(value) if fits else math.nan


def _natural(name: str) -> list[str | int]:
    """Sorts 2 before 10."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", name))]
