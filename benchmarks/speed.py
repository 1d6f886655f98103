"""Agent steps per second, where their time goes, and peak memory: `make benchmark`.

The first part lets this project take turns with the seed's own loop and `cogames train`, all with the seed's network;
the second finds how the default scales (`--scaling` makes it alone). Each turn is a process of its own. What was found
is kept in benchmarks/speed.json and scaling.json, and goes into docs/performance.md, docs/speed.png and scaling.png;
`--report` writes these anew and measures nothing.
"""

import argparse
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

from results_page import DOCS, PERFORMANCE, put_table

HERE = Path(__file__).resolve().parent
RECORD, SCALING_RECORD = HERE / "speed.json", HERE / "scaling.json"
PARTS = ("env", "rollout forward", "update", "other")

SEED_NETWORK = ["model=cnn_lstm", "trainer.update_epochs=1"]
# Title, and what is written after `python train.py`; the loops of others do without it.
CONTESTANTS: dict[str, tuple[str, list[str]]] = {
    "seed_loop": ("the seed notebook's own loop", []),
    "cogames": ("`cogames train`", []),
    "plain": (
        "the seed's network, one epoch, float32, torch's layers",
        [*SEED_NETWORK, "device.precision=float32", "device.fast_layers=false"],
    ),
    "float32": ("the seed's network, one epoch, float32", [*SEED_NETWORK, "device.precision=float32"]),
    "default": ("the seed's network, one epoch", SEED_NETWORK),
    "conv": ("the default: conv, three epochs", []),
}
OTHERS = ("seed_loop", "cogames")

# Label, what stays the same, and the values.
AXES: dict[str, tuple[str, list[str], tuple[int, ...]]] = {
    "vecenv.num_envs": ("environments", ["trainer.minibatch_size=1024"], (4, 8, 16, 32, 64, 128, 256)),
    "trainer.bptt_horizon": ("steps of a segment", [], (16, 32, 64, 128)),
    "trainer.minibatch_size": ("agent steps of a minibatch", [], (512, 1024, 2048, 4096)),
    "model.hidden_size": ("hidden size", [], (128, 256, 512, 1024)),
}
TOLERANCE = 0.05  # the knee is the smallest value that is no further than this below the fastest

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


def _ours(_: str, overrides: list[str], folder: Path) -> tuple[Callable[[], None], Any]:
    from scout.build import build
    from scout.cli import compose_experiment
    from scout.device import make_device
    from scout.mission import make_game
    from scout.run_folder import RunFolder
    from scout.tracking import Tracker
    from scout.training import update

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
            command = [sys.executable, __file__, "--one", name, str(seconds), str(warmups), *overrides]
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


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table of markdown, with columns of even width so that it can be read in a terminal too."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


# -- part one: the contestants ---------------------------------------------------------------------------------------


def speed_table(record: dict[str, Any]) -> str:
    """Markdown: one row a contestant."""
    reference = record["medians"]["seed_loop"]["steps_per_second"]
    rows = []
    for name, turns in record["turns"].items():
        middle, speeds = record["medians"][name], [turn["steps_per_second"] for turn in turns]
        rows.append(
            [
                CONTESTANTS[name][0],
                f"{middle['steps_per_second']:,.0f}",
                f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                f"{middle['steps_per_second'] / reference:.2f}",
                f"{middle['peak_memory_mb']:,.0f} MB",
            ]
        )
    return markdown(
        ["", "agent steps/s, median", "slowest to fastest", "of the seed's loop", "peak memory of the process"], rows
    )


def _pyplot() -> Any:
    """matplotlib for files; it is loaded here alone, so that it counts into no turn's memory."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    return plt


def draw_speed(record: dict[str, Any], picture: Path) -> None:
    """Stacked bars: seconds of 1000 agent steps, by what they are spent on."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(10, 0.75 * len(record["medians"]) + 1.6), layout="constrained")
    names = list(record["medians"])
    left = [0.0] * len(names)
    # Colours that colour-blind readers can tell apart, and hatches that can be told apart in grey.
    styles = zip(PARTS, ("#e69f00", "#56b4e9", "#0072b2", "#dddddd"), ("", "..", "//", "xx"), strict=True)
    for part, colour, hatch in styles:
        widths = [record["medians"][name][part] for name in names]
        axes.barh(names, widths, left=left, label=part, color=colour, hatch=hatch, edgecolor="black", lw=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, name in enumerate(names):
        speed = record["medians"][name]["steps_per_second"]
        axes.annotate(f"{speed:,.0f} steps/s", (left[row], row), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(
        range(len(names)), [CONTESTANTS[name][0].replace("`", "").replace(", ", ",\n", 1) for name in names]
    )
    axes.invert_yaxis()
    axes.set(xlabel="seconds per 1,000 agent steps (medians)", xlim=(0, max(left) * 1.18))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(PARTS), frameon=False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def report_speed(record: dict[str, Any]) -> None:
    """The first part's table, on the terminal and the page, and its picture."""
    put_table("speed", speed_table(record), PERFORMANCE)
    draw_speed(record, DOCS / "speed.png")
    print(speed_table(record))


def run_speed(turns: int, seconds: float) -> None:
    """The first part."""
    points = {
        name: [] if name in OTHERS else ["device=cpu", *overrides] for name, (_, overrides) in CONTESTANTS.items()
    }
    found = take_turns(points, turns, seconds)
    record = {
        "machine": machine(),
        "overrides": points,
        "turns": found,
        "medians": {name: medians(turns) for name, turns in found.items()},
    }
    write_record(RECORD, record)
    report_speed(record)


# -- part two: scaling -----------------------------------------------------------------------------------------------


def knee(speeds: dict[int, float]) -> int:
    """The smallest value that is as good as the fastest."""
    return min(value for value, speed in speeds.items() if speed >= (1 - TOLERANCE) * max(speeds.values()))


def series(record: dict[str, Any], key: str, number: str) -> dict[int, float]:
    """The median of a number at each value of an axis."""
    return {value: record["medians"][f"{key}={value}"][number] for value in AXES[key][2]}


def scaling_table(record: dict[str, Any]) -> str:
    """Markdown: one row a point, the knees in bold."""
    rows = []
    for key in AXES:
        speeds, memory = series(record, key, "steps_per_second"), series(record, key, "peak_memory_mb")
        for value, speed in speeds.items():
            bold = "**" if value == knee(speeds) else ""
            rows.append(
                [
                    f"`{key}`" if value == AXES[key][2][0] else "",
                    f"{bold}{value}{bold}",
                    f"{bold}{speed:,.0f}{bold}",
                    f"{speed / max(speeds.values()):.2f}",
                    f"{memory[value]:,.0f} MB",
                ]
            )
    return markdown(["", "value", "agent steps/s", "of the fastest", "peak memory"], rows)


def draw_scaling(record: dict[str, Any], picture: Path) -> None:
    """One panel an axis: speed as a line with its knee marked, and memory as a dashed one."""
    plt = _pyplot()
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    handles: list[Any] = []
    for panel, (key, (label, _, values)) in zip(panels.flat, AXES.items(), strict=True):
        speeds, memory = series(record, key, "steps_per_second"), series(record, key, "peak_memory_mb")
        best = knee(speeds)
        right = panel.twinx()
        handles = [
            *panel.plot(values, list(speeds.values()), "o-", color="#0072b2", lw=2.2, label="agent steps/s"),
            *panel.plot(best, speeds[best], "o", ms=15, mfc="none", mec="black", mew=1.8, label="knee"),
            *right.plot(values, list(memory.values()), "s--", color="#d55e00", lw=1.5, label="peak memory, MB"),
        ]
        panel.set_xscale("log", base=2)
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
        panel.set(xlabel=f"{label} ({key})", ylabel="agent steps/s", ylim=(0, max(speeds.values()) * 1.2))
        right.set(ylabel="peak memory, MB", ylim=(0, max(memory.values()) * 1.2))
        for axes in (panel, right):
            axes.spines["top"].set_visible(False)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def report_scaling(record: dict[str, Any]) -> None:
    """The second part's table, on the terminal and the page, and its picture."""
    put_table("scaling", scaling_table(record), PERFORMANCE)
    draw_scaling(record, DOCS / "scaling.png")
    print(scaling_table(record))


def run_scaling(turns: int, seconds: float) -> None:
    """The second part."""
    points = {
        f"{key}={value}": ["device=cpu", *SEED_NETWORK, *fixed, f"{key}={value}"]
        for key, (_, fixed, values) in AXES.items()
        for value in values
    }
    found = take_turns(points, turns, seconds)
    record: dict[str, Any] = {
        "machine": machine(),
        "overrides": points,
        "turns": found,
        "medians": {name: medians(turns) for name, turns in found.items()},
    }
    record["knees"] = {key: knee(series(record, key, "steps_per_second")) for key in AXES}
    write_record(SCALING_RECORD, record)
    report_scaling(record)


def main() -> None:
    """Both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scaling", action="store_true", help="the second part alone")
    parser.add_argument("--report", action="store_true", help="tables and pictures of what was measured before")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=8.0, help="what a contestant's turn times at least")
    arguments = parser.parse_args()
    if not arguments.scaling:
        if arguments.report:
            report_speed(json.loads(RECORD.read_text()))
        else:
            run_speed(arguments.turns, arguments.seconds)
        print()
    if arguments.report:
        report_scaling(json.loads(SCALING_RECORD.read_text()))
    else:
        run_scaling(turns=2, seconds=3.0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        name, seconds, warmups, *overrides = sys.argv[2:]
        print(json.dumps(measure(name, overrides, float(seconds), int(warmups))), flush=True)
        os._exit(0)  # the seed's loop leaves a thread behind that would never end
    main()
