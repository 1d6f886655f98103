"""What the recipes are worth, and against what: `make learning`, some hours on two cores.

Trains each contender with its seeds through train.py, on one core each and two at a time, and judges its best
checkpoint through evaluate.py, 40 whole episodes with sampled actions, on the same maps for all. What was found is kept
in benchmarks/learning/NAME-SEED: run.json (command, commit, minutes), curve.csv and episodes.csv. A run that is there
is not made again: remove its folder to make it anew. One that was stopped goes on, from its folder in outputs/learning.

`make learning ARGS=stock` makes that contender's runs alone, `make learning ARGS=--report` none: each then writes the
tables and pictures of docs/results.md and docs/runs.md from all that is there.
"""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from contenders import CONTENDERS, MISSIONS, SECTIONS
from turns import machine, medians, take_turns, write_record

from scout.files import CHECKPOINTS, EPISODES_CSV, HELD_OUT, RETURN, STATUS
from scout.report.runs import Run, read
from scout.run_folder import object_in

ROOT = Path(__file__).resolve().parent.parent
RECORDS, RUNS = ROOT / "benchmarks/learning", ROOT / "outputs/learning"
SPEEDS = RECORDS / "speeds.json"
EPISODES, POINTS = 40, 100
HELD_OUT_COLUMNS = {"held_out_return": HELD_OUT, "gear": "evaluation/gear", "deaths": "evaluation/deaths"}
BASELINES = [
    "walker",
    "random",
    "noop",
    *(f"cogames/{name}" for name in ("starter", "scout", "miner", "aligner", "scrambler")),
]


def make(name: str, seed: int) -> None:
    """Trains, or goes on training, and judges one run, unless its record is there."""
    record, folder = RECORDS / f"{name}-{seed}", RUNS / f"{name}-{seed}"
    if (record / "run.json").exists():
        return
    contender = CONTENDERS[name]
    own = [*contender.overrides, f"seed={seed}"]
    if object_in(folder / STATUS).get("state") != "finished":
        again = any((folder / CHECKPOINTS).glob("*.pt"))
        if not again:
            shutil.rmtree(folder, ignore_errors=True)
        overrides = [f"resume={folder}"] if again else [*own, f"hydra.run.dir={folder}"]
        _script(*contender.script, *overrides, "wandb=disabled", "device.threads=1", "evaluation.film=false")
    record.mkdir(parents=True, exist_ok=True)
    for mission in contender.judged_on or [None]:
        of_mission = [] if mission is None else [f"mission={mission}"]
        _judge([f"checkpoint={folder.relative_to(ROOT)}", *of_mission], record / episodes_file(mission))
    (run,) = (run for run in read([folder]).runs)
    _write_curve(run, record / "curve.csv")
    about = {
        "command": " ".join(["python", *contender.script, *own]),
        "commit": object_in(folder / "versions.json").get("git", {}).get("commit", "")[:7],
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "agent_steps": int(run.steps[-1]),
        "updates": len(run.steps),
        "minutes": round(float(run.minutes[-1]), 1),
        "steps_per_second": round(run.speed),
    }
    (record / "run.json").write_text(json.dumps(about, indent=1) + "\n")
    print(name, seed, json.dumps(about), flush=True)


def _write_curve(run: Run, path: Path) -> None:
    """One line for each of POINTS parts of the run, and one for each evaluation, in the order of their steps."""
    edges = np.linspace(0, run.steps[-1], POINTS + 1)[1:]
    part = np.searchsorted(edges, run.steps)
    lines = []
    with np.errstate(all="ignore"):
        for index in np.unique(part):
            of_part = part == index
            values = run.column(RETURN)[of_part]
            mean = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
            last = np.flatnonzero(of_part)[-1]
            lines.append([int(run.steps[last]), run.minutes[last], mean, *[math.nan] * len(HELD_OUT_COLUMNS)])
    columns = [run.column(metric) for metric in HELD_OUT_COLUMNS.values()]
    for update in np.flatnonzero(np.isfinite(run.column(HELD_OUT))):
        lines.append([int(run.steps[update]), run.minutes[update], math.nan, *(column[update] for column in columns)])
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["agent_steps", "minutes", "training_return", *HELD_OUT_COLUMNS])
        for steps, *values in sorted(lines, key=lambda line: line[0]):
            writer.writerow([steps, *("" if math.isnan(value) else round(value, 3) for value in values)])


def judge_baselines() -> None:
    """The policies that nobody trained, on each mission's maps; walker knows the scout tutorial alone."""
    for mission in MISSIONS:
        path = RECORDS / f"baselines-{mission}.csv"
        if not path.exists():
            policies = BASELINES if mission == "scout_tutorial" else BASELINES[1:]
            _judge([f"policies=[{','.join(policies)}]", f"mission={mission}"], path)


def measure_speeds() -> None:
    """Agent steps a second of the default and of what is slower or faster, in turns, a core each: for equal minutes.

    The minutes of a run depend on what else the machine did meanwhile; these do not. Leave it alone for them.
    """
    names = ["default", "stock", "unscaled", "no_excursions", *SECTIONS["widths"]]
    names += [name for key in ("corrections", "models") for name in SECTIONS[key] if not name.endswith("_minutes")]
    points = {name: [*CONTENDERS[name].overrides, "device.threads=1"] for name in names}
    found = take_turns(points, turns=3, seconds=6)
    speeds = {name: medians(turns)["steps_per_second"] for name, turns in found.items()}
    each = {name: [turn["steps_per_second"] for turn in turns] for name, turns in found.items()}
    write_record(SPEEDS, {"machine": machine(), "steps_per_second": speeds, "turns": each})


def episodes_file(mission: str | None) -> str:
    """Where a record has the episodes that it was judged by; None is the mission of the run."""
    return EPISODES_CSV if mission is None else f"episodes-{mission}.csv"


def _judge(overrides: list[str], path: Path) -> None:
    """evaluate.py's episodes, as a file."""
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        _script("evaluate.py", *overrides, f"episodes={EPISODES}", f"hydra.run.dir={folder}/judged")
        path.write_bytes((Path(folder) / "judged" / EPISODES_CSV).read_bytes())


def _script(*command: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def main(arguments: Sequence[str]) -> None:
    """Makes what is missing, then the tables and the picture."""
    named = [name for name in arguments if not name.startswith("-")] or list(SECTIONS)
    unknown = [name for name in named if name not in SECTIONS and name not in CONTENDERS]
    if unknown:
        sys.exit(f"{', '.join(unknown)}: unknown; sections: {', '.join(SECTIONS)}; runs: {', '.join(CONTENDERS)}")
    chosen = [each for name in named for each in SECTIONS.get(name, [name])]
    if "--speeds" in arguments:
        measure_speeds()
    elif "--report" not in arguments:
        RECORDS.mkdir(exist_ok=True)
        judge_baselines()
        with ThreadPoolExecutor(2) as pool:
            runs = [(seed, name) for name in chosen for seed in CONTENDERS[name].seeds]
            list(pool.map(lambda run: make(run[1], run[0]), sorted(runs, key=lambda run: run[0])))
    import evidence_report
    import learning_report

    learning_report.report()
    evidence_report.report()


if __name__ == "__main__":
    main(sys.argv[1:])
