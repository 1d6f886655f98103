"""Against what a user would pick instead, in one run on one machine: `make rivals`, most of an hour for each seed.

`cogames train` with its defaults, the seed notebook's loop as it stands and for as long as the others, and this
project's default for as long: each alone, with all cores, in turns. Two short runs of a command tell how many agent
steps it makes in MINUTES, its start included; a turn is the whole command, as a user would wait for it: its minutes,
its agent steps, its peak memory. Then all play the same 40 maps, with sampled actions and the same code: this project's
run with its best checkpoint, which it chose on maps of its own, the others with their last. Only this project's run is
the same for the same seed: PuffeRL's own generators are seeded by nobody under cogames.

benchmarks/learning/rivals.csv has a line for each turn; one that is there is not made again. Leave the machine alone
meanwhile.
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
from typing import Any

import numpy as np
import torch
from evidence_report import listed
from learning import EPISODES, RECORDS, ROOT
from mettagrid.policy.lstm import LSTMPolicyNet
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from results_page import markdown, put_table
from turns import machine, write_record

from scout.config import MissionConfig
from scout.files import EPISODES as EPISODES_JSON
from scout.mission import make_game
from scout.playing import play_all
from scout.policies import NetworkPolicy

RECORD, SPEEDS = RECORDS / "rivals.csv", RECORDS / "rivals_speed.json"
MINUTES, SEEDS = 10.0, (1,)
COLUMNS = ["rival", "seed", "agent_steps", "minutes", "peak_memory_mb", "return", "cpu", "cores", "commit", "date"]
# Title, the agent steps of an update, and the updates of the two short runs. The default's are of 262,144 and 524,288
# steps: the second has one evaluation more, so that what evaluations take is in its speed.
RIVALS: dict[str, tuple[str, int, tuple[int, int]]] = {
    "cogames": ("`cogames train`, its defaults", 256 * 4 * 64, (1, 4)),
    "notebook": ("the seed notebook as it stands", 4096, (10, 40)),
    "notebook_as_long": ("the seed notebook, as long as the others", 4096, (10, 40)),
    "default": ("`python train.py`, as long as the others", 4096, (64, 128)),
}


def command_of(rival: str, steps: int, seed: int, folder: Path) -> list[str]:
    """What trains it."""
    if rival == "default":
        options = [f"total_timesteps={steps}", f"seed={seed}", f"hydra.run.dir={folder}", "evaluation.film=false"]
        return [sys.executable, "train.py", *options]
    if rival == "cogames":
        cogames = str(Path(sys.executable).with_name("cogames"))
        where = ["--steps", str(steps), "--seed", str(seed), "--checkpoints", str(folder)]
        return [cogames, "train", "-m", "cogsguard_arena.scout_tutorial", *where]
    return [sys.executable, str(Path(__file__)), "--notebook", str(steps), str(seed), str(folder)]


def train_as_the_notebook(steps: int, seed: int, folder: Path) -> None:
    """The seed's loop to its end, with the weights that it leaves behind."""
    import seed_loop

    folder.mkdir(parents=True, exist_ok=True)
    seed_loop.SEED = seed
    trainer = seed_loop.make_trainer(folder, overrides={"total_timesteps": steps, "seed": seed})
    code = 1
    try:
        while trainer.global_step < steps:
            trainer.evaluate()
            trainer.train()
            assert not seed_loop.diverged(trainer)
        torch.save(trainer.uncompiled_policy.state_dict(), folder / "model.pt")
        code = 0
    finally:
        os._exit(code)  # it leaves a thread behind that would never end


def train(rival: str, steps: int, seed: int, folder: Path) -> tuple[float, int]:
    """Seconds and peak memory in MB of the whole command. Raises RuntimeError when it fails."""
    start = time.perf_counter()
    with (folder.parent / f"{folder.name}.log").open("w+") as log:
        process = subprocess.Popen(command_of(rival, steps, seed, folder), cwd=ROOT, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            log.seek(0)
            raise RuntimeError(f"{rival} ended with {os.waitstatus_to_exitcode(status)}:\n{log.read()[-2000:]}")
    return seconds, round(used.ru_maxrss / 1024)


def steps_for(rival: str) -> int:
    """Agent steps in whole updates: the notebook's own, or what fits into MINUTES by two short runs."""
    _, update, (few, many) = RIVALS[rival]
    if rival == "notebook":
        return -(-100_000 // update) * update
    found = json.loads(SPEEDS.read_text()) if SPEEDS.exists() else {}
    if rival not in found:
        with tempfile.TemporaryDirectory() as folder:
            seconds = [train(rival, n * update, 1, Path(folder) / str(n))[0] for n in (few, many)]
        an_update = (seconds[1] - seconds[0]) / (many - few)
        found[rival] = {"seconds_of_an_update": an_update, "seconds_of_the_start": seconds[0] - few * an_update}
        write_record(SPEEDS, found)
    speed = found[rival]
    return int((MINUTES * 60 - speed["seconds_of_the_start"]) / speed["seconds_of_an_update"]) * update


def judge(rival: str, folder: Path) -> float:
    """Mean return per agent over the maps of evaluate.py."""
    if rival == "cogames":
        weights = max(folder.rglob("model_*.pt"), key=lambda path: path.stat().st_mtime)
        game = make_game(MissionConfig())
        network = LSTMPolicyNet(PolicyEnvInterface.from_mg_cfg(game))
        network.load_state_dict(torch.load(weights, weights_only=True))
        # Not as cogames plays it, whose padding of observations is another than that of its training.
        found = [episode.record for episode in play_all(NetworkPolicy(rival, network, "cpu", False), game, 0, EPISODES)]
    else:
        checkpoint = folder if rival == "default" else folder / "model.pt"
        judged = folder / "judged"
        options = [f"checkpoint={checkpoint}", f"episodes={EPISODES}", f"hydra.run.dir={judged}"]
        subprocess.run([sys.executable, "evaluate.py", *options], cwd=ROOT, check=True, capture_output=True)
        found = json.loads((judged / EPISODES_JSON).read_text())
    return float(np.mean([episode["return"] for episode in found]))


def take_turn(rival: str, seed: int) -> dict[str, Any]:
    """Trains and judges one of them."""
    steps = steps_for(rival)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / rival
        seconds, memory = train(rival, steps, seed, folder)
        found = judge(rival, folder)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    here = machine()
    return {
        "rival": rival,
        "seed": seed,
        "agent_steps": steps,
        "minutes": round(seconds / 60, 2),
        "peak_memory_mb": memory,
        "return": round(found, 3),
        "cpu": here["cpu"],
        "cores": here["cores"],
        "commit": commit.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def read() -> list[dict[str, Any]]:
    """The turns that were taken."""
    if not RECORD.exists():
        return []
    with RECORD.open(newline="") as file:
        return [*csv.DictReader(file)]


def table() -> str:
    """A line for each rival, its seeds together."""
    rows = []
    for rival, (title, *_) in RIVALS.items():
        turns = [turn for turn in read() if turn["rival"] == rival]
        if not turns:
            continue
        steps, minutes, memory, returns = (
            np.array([float(turn[key]) for turn in turns])
            for key in ("agent_steps", "minutes", "peak_memory_mb", "return")
        )
        numbers = (
            f"{np.median(steps) / 1e6:.2f} M",
            f"{np.median(minutes):.1f}",
            f"{np.median(steps / minutes) / 60:,.0f}",
        )
        rows.append([title, *numbers, f"{np.median(memory):,.0f} MB", listed(returns)])
    return markdown(["", "agent steps", "minutes", "steps/s", "peak memory", "return (each seed)"], rows)


def main() -> None:
    """Takes the turns that are missing, then writes the table."""
    for seed in SEEDS if "--report" not in sys.argv else ():
        for rival in RIVALS:
            turns = read()
            if any((turn["rival"], turn["seed"]) == (rival, str(seed)) for turn in turns):
                continue
            turns.append(take_turn(rival, seed))
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
        total, number, place = sys.argv[2:]
        train_as_the_notebook(int(total), int(number), Path(place))
    main()
