"""Turns that a benchmark's contestants take, each a process of its own: speed, where the time goes, peak memory."""

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
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PARTS = ("env", "rollout forward", "update", "other")
OTHERS = ("seed_loop", "cogames")  # loops of others, which take no overrides

Turn = dict[str, Any]


# -- one turn --------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds spent in methods, by name; put around them in place."""

    def __init__(self, synchronize: Callable[[], object] = lambda: None) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronize = synchronize

    def around(self, owner: Any, method: str, wait: bool = False) -> None:
        """Times every call of `owner.method`; with `wait` until the device has done its work."""
        call = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = call(*arguments, **options)
            if wait:
                self._synchronize()
            self.seconds[method] += time.perf_counter() - start
            return result

        setattr(owner, method, timed)


def measure(name: str, overrides: list[str], seconds: float, warmups: int) -> Turn:
    """Whole updates (rollout, training, checks and logging) of at least so many seconds, after some that do not count.

    On a GPU its work that the rollout left unfinished counts as rollout, but what the environments wait for it as env.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        make = _other if name in OTHERS else _ours
        step, trainer = make(name, overrides, Path(folder))
        import torch

        cuda = torch.device(trainer.config["device"]).type == "cuda"
        clock = Clock(torch.cuda.synchronize if cuda else lambda: None)
        for method in ("send", "recv"):
            clock.around(trainer.vecenv, method)
        for method in ("evaluate", "train"):
            clock.around(trainer, method, wait=True)
        for _ in range(warmups):
            step()
        clock.seconds.clear()
        start, first_step, updates, elapsed = time.perf_counter(), trainer.global_step, 0, 0.0
        while elapsed < seconds or updates == 0:
            step()
            updates, elapsed = updates + 1, time.perf_counter() - start
    steps, spent = trainer.global_step - first_step, clock.seconds
    env = spent["send"] + spent["recv"]
    parts = (env, spent["evaluate"] - env, spent["train"], elapsed - spent["evaluate"] - spent["train"])
    turn = {
        "steps_per_second": steps / elapsed,
        **{part: value / steps * 1000 for part, value in zip(PARTS, parts, strict=True)},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if _macos() else 2**10),
        "updates": updates,
    }
    if name not in OTHERS:
        trainer.close()  # its worker processes would outlive this one
    if cuda:
        turn["peak_gpu_memory_mb"], turn["gpu"] = (
            torch.cuda.max_memory_allocated() / 2**20,
            torch.cuda.get_device_name(),
        )
    return turn


def _macos() -> bool:
    return sys.platform == "darwin"


def _other(name: str, _: list[str], folder: Path) -> tuple[Callable[[], None], Any]:
    """The seed's loop, or that of `cogames train`."""
    import seed_loop

    if name == "cogames":
        trainer = seed_loop.make_trainer(folder, seed_loop.COGAMES_NUM_ENVS, seed_loop.COGAMES_OVERRIDES)
    else:
        trainer = seed_loop.make_trainer(folder)

    def step() -> None:
        trainer.evaluate()
        trainer.train()
        if name == "seed_loop":
            trainer.print_dashboard()
        assert not seed_loop.diverged(trainer)

    return step, trainer


def _ours(name: str, overrides: list[str], folder: Path) -> tuple[Callable[[], None], Any]:
    from corrections import TAKEN_BACK

    from scout.build import TRAINERS, build
    from scout.cli import compose_experiment
    from scout.device import make_device
    from scout.mission import make_game
    from scout.run_folder import RunFolder
    from scout.tracking import Tracker
    from scout.training import update

    TRAINERS["ppo"] = TAKEN_BACK.get(name, TRAINERS["ppo"])  # a point may be named after a correction
    experiment = compose_experiment(*overrides)
    trainer = build(experiment, make_game(experiment.mission), make_device(experiment.device))
    run_folder, tracker = RunFolder(folder / "run"), Tracker(experiment, folder / "run", "speed")
    run_folder.start(experiment)

    def step() -> None:
        metrics = update(trainer, experiment.mission.max_steps)
        run_folder.log(metrics)
        tracker.log(metrics)

    return step, trainer


# -- turns -----------------------------------------------------------------------------------------------------------


def take_turns(points: dict[str, list[str]], turns: int, seconds: float, warmups: int = 1) -> dict[str, list[Turn]]:
    """Every point `turns` times, all of them in each round, so that the machine's moods hit them alike."""
    found: dict[str, list[Turn]] = {name: [] for name in points}
    for turn in range(turns):
        for name, overrides in points.items():
            command = [sys.executable, __file__, name, str(seconds), str(warmups), *overrides]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            speed = found[name][-1]["steps_per_second"]
            print(f"turn {turn + 1} of {turns}: {name:30} {speed:9,.0f} steps/s", file=sys.stderr, flush=True)
    return found


def medians(turns: list[Turn]) -> dict[str, float]:
    """The median of each number over the turns."""
    return {
        key: statistics.median(turn[key] for turn in turns)
        for key, value in turns[0].items()
        if not isinstance(value, str)
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "torch": version("torch")}


def write_record(path: Path, record: dict[str, Any]) -> None:
    """The record as JSON, numbers to six digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(part) for part in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    path.write_text(json.dumps(rounded(record), indent=1) + "\n")


if __name__ == "__main__":
    name, seconds, warmups, *overrides = sys.argv[1:]
    print(json.dumps(measure(name, overrides, float(seconds), int(warmups))), flush=True)
    os._exit(0)  # the seed's loop leaves a thread behind that would never end
