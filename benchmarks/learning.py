"""What the trainer's corrections and the networks are worth, at equal agent steps: `make learning`.

Trains each contender with each seed through train.py, judges it through evaluate.py on the same held-out maps, keeps
what was found in benchmarks/learning.json, and draws it: docs/learning.png, and a table within docs/results.md.
A run that is in learning.json already is not made again: remove its entry, or the file, to make it anew.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
from results_page import put_table

from scout.run_folder import versions
from scout.statistics import bootstrap_interval

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
RECORD, PICTURE = ROOT / "benchmarks/learning.json", ROOT / "docs/learning.png"
AGENT_STEPS, SEEDS, EPISODES = 500_000, (1, 2), 20
# Title, and what is written after `python train.py`.
CONTENDERS: dict[str, tuple[str, list[str]]] = {
    "stock": ("PuffeRL as shipped, the seed's settings", ["experiment=notebook"]),
    "corrected": ("corrected trainer, the seed's settings", ["experiment=notebook", "trainer=ppo"]),
    "conv": ("corrected trainer, conv (the default)", ["model=conv"]),
    "attention": ("corrected trainer, attention", ["model=attention"]),
    "conv_memoryless": ("corrected trainer, conv_memoryless", ["model=conv_memoryless"]),
    "cnn_lstm": ("corrected trainer, the seed's network, the default's settings", ["model=cnn_lstm"]),
    "stock_conv": ("PuffeRL as shipped, conv, the default's settings", ["model=conv", "trainer=pufferl"]),
}
# Colours that colour-blind readers can tell apart, and lines that can be told apart in grey.
COLOURS = ("#999999", "#000000", "#0072b2", "#009e73", "#e69f00", "#cc79a7", "#d55e00")
LINES: tuple[Any, ...] = (":", ":", "-", "--", "-.", (0, (1, 1)), (0, (6, 2, 1, 2, 1, 2)))
STYLES: dict[str, dict[str, Any]] = {
    name: {"color": colour, "ls": line, "lw": 2.2}
    for name, colour, line in zip(CONTENDERS, COLOURS, LINES, strict=True)
}


def run(name: str, seed: int) -> dict[str, Any]:
    """Trains and judges one contender with one seed, on one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    overrides = [*CONTENDERS[name][1], f"seed={seed}", f"total_timesteps={AGENT_STEPS}"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _script(
            "train.py", *overrides, "wandb=disabled", "device.threads=1", f"hydra.run.dir={folder}/run", **environment
        )
        seconds = time.perf_counter() - start
        returns = _judge(folder, f"checkpoint={folder}/run", **environment)
        updates = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
    curve = [
        [update["agent_steps"], round(update["environment/episode_return"], 3)]
        for update in updates
        if "environment/episode_return" in update
    ]
    return {
        "contender": name,
        "seed": seed,
        "overrides": overrides,
        "commit": versions()["git"]["commit"][:7],
        "agent_steps": updates[-1]["agent_steps"],
        "updates": len(updates),
        "seconds": round(seconds),
        "returns": returns,
        "curve": curve,
    }


def _judge(folder: str, policy: str, **environment: str) -> list[float]:
    """Returns per agent of each episode, on the same maps for all."""
    arguments = [policy, f"episodes={EPISODES}", f"hydra.run.dir={folder}/evaluation"]
    _script("evaluate.py", *arguments, **environment)
    episodes = json.loads((Path(folder) / "evaluation/episodes.json").read_text())
    return [round(episode["return"], 4) for episode in episodes]


def _script(*command: str, **environment: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _baseline(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        returns = _judge(folder, f"policy={name}", **os.environ)
    return {"contender": name, "seed": None, "commit": versions()["git"]["commit"][:7], "returns": returns}


def make_all() -> list[dict[str, Any]]:
    """Every run that is still missing, two at a time, each kept as soon as it is there."""
    records = json.loads(RECORD.read_text()) if RECORD.exists() else []
    there = {(record["contender"], record["seed"]) for record in records}

    def make(name: str, seed: int | None) -> None:
        if (name, seed) in there:
            return
        record = _baseline(name) if seed is None else run(name, seed)
        records.append(record)
        RECORD.write_text(json.dumps(records, indent=None).replace('{"contender"', '\n{"contender"') + "\n")
        print(f"{name}, seed {seed}: {statistics.mean(record['returns']):.2f}", flush=True)

    wanted = [(name, seed) for name in CONTENDERS for seed in SEEDS]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda arguments: make(*arguments), [("random", None), *wanted]))
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: one row a contender, with the mean over seeds and episodes, its interval, and each seed's mean."""
    lines = [
        "| | return per agent | 95% interval | seed 1 | seed 2 | updates |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in [("random", "random moves"), *((name, title) for name, (title, _) in CONTENDERS.items())]:
        found = sorted((record for record in records if record["contender"] == name), key=lambda r: r["seed"] or 0)
        if not found:
            continue
        low, high = bootstrap_interval(pooled(found)) or (0, 0)
        seeds = [f"{statistics.mean(record['returns']):.2f}" for record in found] if name != "random" else ["", ""]
        updates = "" if name == "random" else str(found[0]["updates"])
        mean = statistics.mean(pooled(found))
        lines.append(" | ".join([f"| {title}", f"**{mean:.2f}**", f"{low:.2f} to {high:.2f}", *seeds, updates]) + " |")
    return "\n".join(lines)


def pooled(records: Sequence[dict[str, Any]]) -> list[float]:
    """The returns of all episodes of several runs."""
    return [value for record in records for value in record["returns"]]


def draw(records: list[dict[str, Any]]) -> None:
    """Learning curves, each seed a thin line and their mean a thick one, and the held-out returns with intervals.

    The rows of the right half are the left one's legend.
    """
    figure, (curves, bars) = plt.subplots(1, 2, figsize=(13, 5), width_ratios=(4, 3), layout="constrained")
    width = AGENT_STEPS // 20
    names = [name for name in CONTENDERS if any(record["contender"] == name for record in records)]
    for name in names:
        style, binned = STYLES[name], []
        for record in (record for record in records if record["contender"] == name):
            bins: dict[int, list[float]] = {}
            for steps, value in record["curve"]:
                bins.setdefault(min(steps, AGENT_STEPS - 1) // width, []).append(value)
            binned.append({index: statistics.mean(values) for index, values in bins.items()})
            x = sorted(binned[-1])
            thin = {"color": style["color"], "lw": 0.7, "alpha": 0.5}
            curves.plot([(i + 0.5) * width / 1000 for i in x], [binned[-1][i] for i in x], **thin)
        x = sorted(set.intersection(*(set(bins) for bins in binned)))
        mean = [statistics.mean(bins[i] for bins in binned) for i in x]
        curves.plot([(i + 0.5) * width / 1000 for i in x], mean, **style)
    random = next(statistics.mean(record["returns"]) for record in records if record["contender"] == "random")
    for axes, line in ((curves, "axhline"), (bars, "axvline")):
        getattr(axes, line)(random, color="#999999", ls=":", lw=1.2)
        axes.spines[["top", "right"]].set_visible(False)
    curves.set(
        xlabel="thousand agent steps", ylabel="return per agent of training's episodes", xlim=(0, AGENT_STEPS / 1000)
    )
    curves.set_ylim(bottom=0)
    for row, name in enumerate(reversed(names)):
        values = pooled([record for record in records if record["contender"] == name])
        low, high = bootstrap_interval(values) or (values[0], values[0])
        mean, style = statistics.mean(values), STYLES[name]
        bars.plot([0, mean], [row, row], **style)
        error = [[mean - low], [high - mean]]
        bars.errorbar(mean, row, xerr=error, fmt="o", color=style["color"], capsize=3, lw=2)
    titles = [textwrap.fill(CONTENDERS[name][0], 26) for name in reversed(names)]
    bars.set_yticks(range(len(names)), titles, fontsize=9)
    bars.annotate(" random moves", (random, len(names) - 1.5), va="center", color="#777777", fontsize=9)
    bars.set(xlabel=f"return per agent on {EPISODES} held-out maps x {len(SEEDS)} seeds, 95% interval")
    bars.set_xlim(left=0)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Makes what is missing, then table and picture; `--report` makes no run."""
    records = json.loads(RECORD.read_text()) if "--report" in sys.argv else make_all()
    put_table("learning", table(records))
    draw(records)
    print(table(records))


if __name__ == "__main__":
    main()
