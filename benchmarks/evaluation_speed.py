"""Agent steps per second of evaluate.py and of `cogames eval`: `python benchmarks/evaluation_speed.py`.

Both play whole episodes of the scout tutorial with the same weights of the seed's network, sampled, on a CPU, in turns.
The time of a command has its start in it, which a command with episodes of one step shows; the steps per second are
with and without it. Writes benchmarks/evaluation_speed.json and a table of docs/performance.md.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from results_page import PERFORMANCE, markdown, put_table
from turns import machine, write_record

from scout.config import MissionConfig
from scout.mission import make_game
from scout.model_config import CnnLstmConfig
from scout.models import make_model

HERE = Path(__file__).resolve().parent
RECORD = HERE / "evaluation_speed.json"
TURNS, EPISODES, AGENTS, STEPS = 3, 16, 4, 1000
TITLES = {"cogames": "`cogames eval`", "ours": "`python evaluate.py`"}


def commands(weights: Path, steps: int, folder: Path) -> dict[str, list[str]]:
    """What each contestant is called with."""
    bin_dir = Path(sys.executable).parent
    cogames = [str(bin_dir / "cogames"), "eval", "-m", "scout_tutorial", "-p", f"class=tutorial,data={weights}"]
    cogames += ["-e", str(EPISODES), "-s", str(steps), "--seed", "0", "--device", "cpu", "--action-timeout-ms", "10000"]
    ours = [sys.executable, str(HERE.parent / "evaluate.py"), f"checkpoint={weights}", f"episodes={EPISODES}"]
    ours += [f"+mission.max_steps={steps}", "device=cpu", f"hydra.run.dir={folder}"]
    return {"cogames": cogames, "ours": ours}


def seconds_of(command: list[str], folder: Path) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def main() -> None:
    """Measures and reports."""
    found: dict[str, dict[str, list[float]]] = {name: {"start": [], "whole": []} for name in TITLES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        network = make_model(CnnLstmConfig(), PolicyEnvInterface.from_mg_cfg(make_game(MissionConfig())))
        torch.save(network.state_dict(), folder / "weights.pt")
        for turn in range(TURNS):
            for kind, steps in (("start", 1), ("whole", STEPS)):
                for contestant, command in commands(folder / "weights.pt", steps, folder / f"{turn}_{kind}").items():
                    found[contestant][kind].append(seconds_of(command, folder))
                    print(f"turn {turn + 1}: {contestant} {kind} {found[contestant][kind][-1]:.1f} s", file=sys.stderr)
    write_record(RECORD, {"machine": machine(), "episodes": EPISODES, "seconds": found})
    text = table(found)
    print(text)
    put_table("evaluation speed", text, PERFORMANCE)


def table(seconds: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: one row a contestant, medians, and ratios of the first."""
    played = EPISODES * AGENTS * STEPS
    rows, references = [], []
    for name, title in TITLES.items():
        whole, start = (statistics.median(seconds[name][kind]) for kind in ("whole", "start"))
        speeds = [played / whole, played / (whole - start)]
        references = references or speeds
        numbers = [(f"{speed:,.0f}", f"{speed / first:.0f}") for speed, first in zip(speeds, references, strict=True)]
        rows.append([title, f"{whole:.1f} s", *numbers[0], *numbers[1]])
    return markdown(["", f"{EPISODES} episodes", "agent steps/s", "ratio", "without the start", "ratio"], rows)


if __name__ == "__main__":
    main()
