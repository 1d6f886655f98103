"""Against what a user would pick instead, in one run on one machine: `make rivals`, most of an hour for each seed.

`cogames train` with its defaults, the seed notebook's loop as it stands and for as long as the others, and this
project's default for as long: each alone, with all cores, in turns, for MINUTES of training by the speeds that
`make benchmark` found. A turn is the whole command, as a user would wait for it: its minutes, its agent steps, its peak
memory. Then all play the same 40 maps, with sampled actions. benchmarks/rivals.csv has a line for each turn; one that
is there is not made again. Leave the machine alone meanwhile.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, override

import numpy as np
from learning import EPISODES, RECORDS, ROOT
from mettagrid.policy.loader import initialize_or_load_policy
from mettagrid.policy.policy import AgentPolicy, PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from results_page import markdown, put_table
from turns import machine

from scout.config import MissionConfig
from scout.mission import make_game
from scout.playing import play_all
from scout.policies import CogamesPolicy

HERE = Path(__file__).resolve().parent
RECORD = RECORDS / "rivals.csv"
MINUTES, SEEDS = 10.0, (1, 2)
COLUMNS = ["rival", "seed", "agent_steps", "minutes", "peak_memory_mb", "return", "cpu", "cores", "commit", "date"]
# Title, what its speed is called in speed.json, and the agent steps of an update.
RIVALS: dict[str, tuple[str, str, int]] = {
    "cogames": ("`cogames train`, its defaults", "cogames", 256 * 4 * 64),
    "notebook": ("the seed notebook as it stands", "seed_loop", 4096),
    "notebook_as_long": ("the seed notebook, as long as the others", "seed_loop", 4096),
    "default": ("`python train.py`, as long as the others", "conv", 4096),
}


class Trained(CogamesPolicy):
    """A network that cogames trained, as cogames plays it."""

    def __init__(self, network: str, weights: Path, env_info: PolicyEnvInterface) -> None:
        self._spec = PolicySpec(class_path=network, data_path=str(weights))
        super().__init__(network, env_info)

    @override
    def _make(self) -> list[AgentPolicy]:
        policy = initialize_or_load_policy(self._env_info, self._spec)
        return [policy.agent_policy(agent) for agent in range(self._env_info.num_agents)]


def steps_for(rival: str) -> int:
    """Agent steps in whole updates: the notebook's own, or what MINUTES give at the speed that was measured."""
    _, speed_name, update = RIVALS[rival]
    if rival == "notebook":
        return 100_000
    speed = json.loads((HERE / "speed.json").read_text())["medians"][speed_name]["steps_per_second"]
    return max(round(speed * MINUTES * 60 / update), 1) * update


def command_of(rival: str, seed: int, folder: Path) -> list[str]:
    """What trains it."""
    steps = str(steps_for(rival))
    if rival == "default":
        options = [f"total_timesteps={steps}", f"seed={seed}", f"hydra.run.dir={folder}", "evaluation.film=false"]
        return [sys.executable, "train.py", *options]
    if rival == "cogames":
        cogames = str(Path(sys.executable).with_name("cogames"))
        where = ["--steps", steps, "--seed", str(seed), "--checkpoints", str(folder)]
        return [cogames, "train", "-m", "cogsguard_arena.scout_tutorial", *where]
    return [sys.executable, str(Path(__file__)), "--notebook", steps, str(seed), str(folder)]


def train_as_the_notebook(steps: int, seed: int, folder: Path) -> None:
    """The seed's loop to its end, with the weights it leaves behind."""
    import seed_loop
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    seed_loop.SEED = seed
    trainer = seed_loop.make_trainer(folder, overrides={"total_timesteps": steps, "seed": seed})
    while trainer.global_step < steps:
        trainer.evaluate()
        trainer.train()
        assert not seed_loop.diverged(trainer)
    torch.save(trainer.uncompiled_policy.state_dict(), folder / "model.pt")
    os._exit(0)  # it leaves a thread behind that would never end


def judge(rival: str, folder: Path) -> float:
    """Mean return per agent over the maps of evaluate.py."""
    if rival == "cogames":
        weights = max(folder.rglob("model_*.pt"), key=lambda path: path.stat().st_mtime)
        game = make_game(MissionConfig())
        policy = Trained("lstm", weights, PolicyEnvInterface.from_mg_cfg(game))
        found = [episode.record for episode in play_all(policy, game, 0, EPISODES)]
        return float(np.mean([episode["return"] for episode in found]))
    checkpoint = folder if rival == "default" else folder / "model.pt"
    with tempfile.TemporaryDirectory() as judged:
        options = [f"checkpoint={checkpoint}", f"episodes={EPISODES}", f"hydra.run.dir={judged}/it"]
        subprocess.run([sys.executable, "evaluate.py", *options], cwd=ROOT, check=True, capture_output=True)
        found = json.loads((Path(judged) / "it/episodes.json").read_text())
    return float(np.mean([episode["return"] for episode in found]))


def take_turn(rival: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and judges one of them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        process = subprocess.Popen(command_of(rival, seed, folder), cwd=ROOT, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    minutes = (time.perf_counter() - start) / 60
    if status:
        raise RuntimeError(f"{rival} ended with {os.waitstatus_to_exitcode(status)}: see {log.name}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    here = machine()
    return {
        "rival": rival,
        "seed": seed,
        "agent_steps": steps_for(rival),
        "minutes": round(minutes, 2),
        "peak_memory_mb": round(used.ru_maxrss / 1024),
        "return": round(judge(rival, folder), 3),
        "cpu": here["cpu"],
        "cores": here["cores"],
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def read() -> list[dict[str, str]]:
    """The turns that were taken."""
    if not RECORD.exists():
        return []
    with RECORD.open(newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """A line for each rival, its seeds together."""
    rows = []
    for rival, (title, *_) in RIVALS.items():
        turns = [turn for turn in read() if turn["rival"] == rival]
        if not turns:
            continue

        def middle(key: str, turns: list[dict[str, str]] = turns) -> float:
            return float(np.median([float(turn[key]) for turn in turns]))

        speed = float(np.median([float(turn["agent_steps"]) / float(turn["minutes"]) / 60 for turn in turns]))
        returns = [float(turn["return"]) for turn in turns]
        rows.append(
            [
                title,
                f"{middle('agent_steps') / 1e6:.2f} M",
                f"{middle('minutes'):.1f}",
                f"{speed:,.0f}",
                f"{middle('peak_memory_mb'):,.0f} MB",
                f"{np.mean(returns):.2f} ({', '.join(f'{value:.2f}' for value in returns)})",
            ]
        )
    return markdown(["", "agent steps", "minutes", "steps/s", "peak memory", "return (each seed)"], rows)


def main() -> None:
    """Takes the turns that are missing, then writes the table."""
    for seed in SEEDS:
        for rival in RIVALS:
            turns: list[dict[str, Any]] = [*read()]
            if any((turn["rival"], turn["seed"]) == (rival, str(seed)) for turn in turns) or "--report" in sys.argv:
                continue
            with tempfile.TemporaryDirectory() as folder:
                turns.append(take_turn(rival, seed, Path(folder) / rival))
            with RECORD.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(turns)
            print(turns[-1], flush=True)
    written = table()
    put_table("rivals", written)
    print(written)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--notebook"]:
        steps, seed, folder = sys.argv[2:]
        train_as_the_notebook(int(steps), int(seed), Path(folder))
    main()
