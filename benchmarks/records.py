"""What learning.py keeps in benchmarks/learning, read back."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from contenders import CONTENDERS
from learning import EPISODES, RECORDS, episodes_file
from numpy.typing import NDArray

Episode = dict[str, Any]
CELLS = 60 * 60  # of a map of scout_tutorial


def read_episodes(path: Path) -> list[Episode]:
    """evaluate.py's episodes, with numbers where there are some."""
    with path.open(newline="") as file:
        return [
            {key: value if key == "policy" else float(value) for key, value in episode.items()}
            for episode in csv.DictReader(file)
        ]


@cache
def baselines(mission: str) -> dict[str, list[Episode]]:
    """The episodes of the policies that nobody trained, on a mission; none where they have not been played."""
    path, found = RECORDS / f"baselines-{mission}.csv", dict[str, list[Episode]]()
    for episode in read_episodes(path) if path.exists() else ():
        found.setdefault(episode["policy"], []).append(episode)
    return found


def found_seeds(name: str) -> list[int]:
    """The seeds with which a contender was trained and judged."""
    return [seed for seed in CONTENDERS[name].seeds if (RECORDS / f"{name}-{seed}" / "run.json").exists()]


def about(name: str, seed: int) -> dict[str, Any]:
    """What run.json says."""
    return json.loads((RECORDS / f"{name}-{seed}" / "run.json").read_text())


def episodes(name: str, mission: str | None = None) -> list[list[Episode]]:
    """Of each seed's run, on the same maps; None is the mission that it was trained on."""
    found = [read_episodes(RECORDS / f"{name}-{seed}" / episodes_file(mission)) for seed in found_seeds(name)]
    assert all(len(run) == EPISODES for run in found)
    return found


def returns(name: str, mission: str | None = None) -> NDArray[np.float64]:
    """Mean return per agent of each seed's run: float64 [seeds]."""
    means = [float(np.mean([episode["return"] for episode in run])) for run in episodes(name, mission)]
    return np.array(means, dtype=np.float64)


def held_out(name: str, seed: int) -> NDArray[np.float64]:
    """Agent steps, minutes and held-out return of each evaluation while it trained: float64 [evaluations, 3]."""
    with (RECORDS / f"{name}-{seed}" / "curve.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["held_out_return"]]
    return np.array([[float(line[key]) for key in ("agent_steps", "minutes", "held_out_return")] for line in lines])
