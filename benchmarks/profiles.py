"""Where the time goes, before and after: `python benchmarks/profiles.py` draws docs/profile.png.

torch.profiler over four updates of the seed's network in the plain path and in the default, in milliseconds per 1,000
agent steps: torch's operations by name, the first layer, and everything outside of torch (environments, Python).
"""

import time
from collections import defaultdict
from typing import Any

import matplotlib as mpl
from results_page import DOCS
from speed import SEED_NETWORK
from torch.profiler import ProfilerActivity, profile

from scout.build import build
from scout.cli import compose_experiment
from scout.mission import make_game

mpl.use("agg")
import matplotlib.pyplot as plt

PATHS = {
    "plain": [*SEED_NETWORK, "device=cpu", "device.precision=float32", "device.fast_layers=false"],
    "default": [*SEED_NETWORK, "device=cpu"],
}
GROUPS = {
    "convolutions": ("mkldnn_convolution", "convolution_backward"),
    "LSTM sequences": ("mkldnn_rnn_layer",),
    "matrix products": ("addmm", "aten::mm", "bmm"),
    "first layer (own)": ("_FirstLayer",),
    "copies and casts": ("copy_", "cat", "index", "scatter", "nonzero"),
    "optimizer": ("adam", "Adam"),
}
UPDATES = 4


def milliseconds(overrides: list[str]) -> dict[str, dict[str, float]]:
    """Of 1,000 agent steps, by phase and by group of operations."""
    experiment = compose_experiment(*overrides)
    trainer = build(experiment, make_game(experiment.mission), "cpu")
    for _ in range(2):
        trainer.evaluate()
        trainer.train()
    found: dict[str, dict[str, float]] = {"rollout": defaultdict(float), "update": defaultdict(float)}
    environments = 0.0
    send = trainer.vecenv.send

    def timed(actions: Any) -> None:
        nonlocal environments
        start = time.perf_counter()
        send(actions)
        environments += time.perf_counter() - start

    trainer.vecenv.send = timed
    for _ in range(UPDATES):
        for phase, work in (("rollout", trainer.evaluate), ("update", trainer.train)):
            environments, start = 0.0, time.perf_counter()
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                start = time.perf_counter()
                work()
                wall = time.perf_counter() - start
            named = 0.0
            for event in profiler.key_averages():
                seconds = event.self_cpu_time_total / 1e6
                named += seconds
                group = next((title for title, parts in GROUPS.items() if any(p in event.key for p in parts)), "other")
                found[phase]["other operations" if group == "other" else group] += seconds
            found[phase]["environments"] += environments
            found[phase]["Python around them"] += max(wall - named - environments, 0.0)
    trainer.close()
    steps = UPDATES * experiment.batch_size
    return {phase: {k: v * 1e6 / steps for k, v in groups.items()} for phase, groups in found.items()}


def main() -> None:
    """Measures both paths, prints and draws."""
    found = {f"{path}, {phase}": groups for path, keys in PATHS.items() for phase, groups in milliseconds(keys).items()}
    titles = ["environments", *GROUPS, "other operations", "Python around them"]
    figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
    shades = plt.get_cmap("tab20")
    left = dict.fromkeys(found, 0.0)
    for index, title in enumerate(titles):
        values = [groups.get(title, 0.0) for groups in found.values()]
        hatch = ("", "//", "..", "xx", "\\\\", "++", "oo", "--", "||")[index % 9]
        style = {"color": shades(index * 2 % 20), "hatch": hatch, "edgecolor": "white", "label": title}
        axes.barh(list(found), values, left=list(left.values()), **style)
        left = {name: total + value for (name, total), value in zip(left.items(), values, strict=True)}
        print(f"{title:22}" + "".join(f"{value:18.1f}" for value in values))
    for row, total in enumerate(left.values()):
        axes.text(total, row, f" {total:.0f}", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08 * max(left.values()))
    axes.set_xlabel("milliseconds for 1,000 agent steps, under the profiler")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.18))
    figure.savefig(DOCS / "profile.png", dpi=110)


if __name__ == "__main__":
    main()
