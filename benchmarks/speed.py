"""Agent steps per second and peak memory, in turns in one run: the seed's own loop, both trainers, the default.

`corrected` is `experiment=notebook trainer=ppo`: the corrected trainer at the seed's network and batch.
`python benchmarks/speed.py [TURNS]` prints a table and writes benchmarks/speed.json. Each turn is a process of its own.
"""

import contextlib
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# What is written after `python train.py`; the seed's loop does without it. Each trains 4 updates of 4096 agent steps,
# after one that is not timed.
CONTESTANTS: dict[str, list[str]] = {
    "seed_loop": [],
    "notebook": ["experiment=notebook"],
    "corrected": ["experiment=notebook", "trainer=ppo"],
    "default": [],
}
UPDATES = 4


def measure(name: str) -> dict[str, float]:
    """Steps/s of whole updates (rollout, training, checks and logging), and the peak memory of the process in MB."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        step, trainer = _seed_loop(Path(folder)) if name == "seed_loop" else _ours(name, Path(folder))
        step()
        start, steps = time.perf_counter(), trainer.global_step
        for _ in range(UPDATES):
            step()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps_per_second": (trainer.global_step - steps) / seconds, "peak_memory_mb": peak}


def _seed_loop(folder: Path) -> tuple[Any, Any]:
    import seed_loop

    trainer = seed_loop.make_trainer(folder)

    def step() -> None:
        trainer.evaluate()
        trainer.train()
        trainer.print_dashboard()
        assert not seed_loop.diverged(trainer)

    return step, trainer


def _ours(name: str, folder: Path) -> tuple[Any, Any]:
    from scout.cli import compose_experiment
    from scout.mission import make_game
    from scout.run_folder import RunFolder
    from scout.tracking import Tracker
    from scout.training import build, update

    experiment = compose_experiment(*CONTESTANTS[name])
    trainer = build(experiment, make_game(experiment.mission), "cpu")
    run_folder, tracker = RunFolder(folder / "run"), Tracker(experiment, folder / "run")
    run_folder.start(experiment)

    def step() -> None:
        metrics = update(trainer, experiment.mission.max_steps)
        run_folder.log(metrics)
        tracker.log(metrics)

    return step, trainer


def main(turns: int) -> None:
    """Lets the contestants take turns, so that the machine's moods hit all of them alike."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for turn in range(turns):
        for name in CONTESTANTS:
            command = [sys.executable, __file__, "--one", name]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[name].append(json.loads(printed.splitlines()[-1]))
            print(f"turn {turn + 1}: {name:10} {results[name][-1]['steps_per_second']:8,.0f} steps/s", file=sys.stderr)
    medians = {
        name: {key: statistics.median(turn[key] for turn in found) for key in found[0]}
        for name, found in results.items()
    }
    print(f"\n{'':12}{'steps/s':>10}{'slowest':>10}{'fastest':>10}{'of seed':>10}{'peak MB':>10}")
    for name, found in results.items():
        speeds = [turn["steps_per_second"] for turn in found]
        ratio = medians[name]["steps_per_second"] / medians["seed_loop"]["steps_per_second"]
        print(
            f"{name:12}{statistics.median(speeds):10,.0f}{min(speeds):10,.0f}{max(speeds):10,.0f}"
            f"{ratio:10.2f}{medians[name]['peak_memory_mb']:10,.0f}"
        )
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    record = {"machine": machine, "turns": results, "medians": medians}
    (HERE / "speed.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
        os._exit(0)  # the seed's loop leaves a thread behind that would never end
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
