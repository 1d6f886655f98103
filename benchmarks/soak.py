"""Half an hour of kills: `make soak`, which writes benchmarks/soak.json and a table of docs/reliability.md.

One run, in two worker processes, is killed with SIGKILL every 20 to 60 seconds and goes on by `resume=auto`; now and
then one of its workers is killed instead. Beside it the same run goes on undisturbed, in a single process. At the end
both must be the same, to the last bit. `--minutes` and `--seed` choose how long, and which moments.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from results_page import DOCS, markdown, put_table
from torch import Tensor

from scout.checkpoint import numbered_checkpoints, read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
RECORD, PAGE = ROOT / "benchmarks" / "soak.json", DOCS / "reliability.md"
CONFIG = [
    *("experiment=smoke", "mission.max_steps=200", "total_timesteps=100_000_000", "vecenv.early_reset=true"),
    *("device=cpu", "device.threads=1", "wandb=disabled", "checkpoint.interval=10", "checkpoint.keep=10000"),
]
WORKERS = ["vecenv=multiprocessing", "vecenv.num_workers=2"]
PAUSE = (20, 60)  # seconds between two kills


def start(folder: Path, log: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """A run below the folder: the unfinished one that is there, or a new one."""
    command = [sys.executable, "train.py", *CONFIG, *overrides, "resume=auto", f"hydra.run.dir={folder}/run"]
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of the run's metrics, without what depends on the clock."""
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("performance/")} for line in lines]


def resources(process: subprocess.Popen[bytes]) -> tuple[float, int] | None:
    """Resident MB and open files of a process; None when it is gone."""
    try:
        alive = psutil.Process(process.pid)
        return alive.memory_info().rss / 2**20, alive.num_fds()
    except psutil.Error:
        return None


def equal(one: Any, other: Any) -> bool:
    """Whether two nested states are the same, bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def soak(minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """Kills and resumes for so long; gives what was found."""
    moments = random.Random(seed)
    disturbed, undisturbed = folder / "disturbed", folder / "undisturbed"
    for path in (disturbed, undisturbed):
        path.mkdir()
    reference = start(undisturbed, folder / "undisturbed.log")
    used: list[tuple[float, int]] = []
    kills = workers_killed = left = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 60 * minutes:
        process = start(disturbed, folder / "disturbed.log", *WORKERS)
        until = time.monotonic() + moments.uniform(*PAUSE)
        while time.monotonic() < until:
            time.sleep(1)
            if reading := resources(reference):
                used.append(reading)
            assert process.poll() is None, f"the run ended by itself: {folder / 'disturbed.log'}"
        family = psutil.Process(process.pid).children(recursive=True)
        if family and moments.random() < 0.25:
            moments.choice(family).kill()
            workers_killed += 1
            time.sleep(10)
            family += psutil.Process(process.pid).children(recursive=True)  # the one in its place
        process.kill()
        process.wait()
        kills += 1
        _, alive = psutil.wait_procs(family, timeout=5)
        left += len(alive)
        print(f"{kills} kills, {workers_killed} of workers, update {len(metrics_of(disturbed))}", flush=True)
    last = int(numbered_checkpoints(disturbed / "run")[-1].stem)
    while len(metrics_of(undisturbed)) < last + 1 and reference.poll() is None:
        time.sleep(1)
    reference.terminate()
    reference.wait()
    updates = [line["update"] for line in metrics_of(disturbed)]
    states = [read_checkpoint(path / "run" / "checkpoints" / f"{last:06d}.pt") for path in (disturbed, undisturbed)]
    fifth = len(used) // 5
    return {
        "minutes": minutes,
        "seed": seed,
        "kills": kills,
        "workers_killed": workers_killed,
        "updates": last,
        "agent_steps": states[0]["agent_steps"],
        "state_equal": equal(*states),
        "metrics_equal": metrics_of(disturbed)[:last] == metrics_of(undisturbed)[:last],
        "each_update_once": updates == list(range(1, len(updates) + 1)),
        "processes_left": left,
        # of the undisturbed run, at the end of the first fifth and of the last
        "memory_mb": [max(memory for memory, _ in used[: 2 * fifth][-fifth:]), max(m for m, _ in used[-fifth:])],
        "open_files": [max(files for _, files in used[: 2 * fifth][-fifth:]), max(f for _, f in used[-fifth:])],
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip(),
    }


def table(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    memory, files = found["memory_mb"], found["open_files"]
    yes = {True: "yes", False: "NO"}
    rows = [
        ["kills of the run, of one of its workers", f"{found['kills']}, {found['workers_killed']}"],
        ["updates, agent steps", f"{found['updates']:,}, {found['agent_steps']:,}"],
        ["the last checkpoint is that of the undisturbed run, bit for bit", yes[found["state_equal"]]],
        ["so are all metrics but seconds and memory", yes[found["metrics_equal"]]],
        ["metrics.jsonl has each update exactly once", yes[found["each_update_once"]]],
        ["processes left behind", str(found["processes_left"])],
        ["memory of the undisturbed run, second fifth and last", f"{memory[0]:,.0f} MB, {memory[1]:,.0f} MB"],
        ["its open files", f"{files[0]}, {files[1]}"],
    ]
    return markdown([f"{found['minutes']:g} minutes", ""], rows)


def main() -> None:
    """Soaks and writes down what came out; exit code 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = soak(arguments.minutes, arguments.seed, Path(folder))
    print(table(found))
    RECORD.write_text(json.dumps(found, indent=2) + "\n")
    put_table("soak", table(found), PAGE)
    fine = [found[key] for key in ("state_equal", "metrics_equal", "each_update_once")]
    sys.exit(0 if all(fine) and found["processes_left"] == 0 else 1)


if __name__ == "__main__":
    main()
