"""The tables and the picture of what benchmarks/learning.py found."""

from typing import Any

import matplotlib as mpl
import numpy as np
from contenders import CONTENDERS
from learning import ROOT
from records import CELLS, Episode, about, baselines, episodes, found_seeds, held_out
from results_page import PAGE, RUNS, markdown, put_table

from scout.standings import Side
from scout.statistics import bootstrap_interval

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

PICTURE = ROOT / "docs/learning.png"
# Colours that colour-blind readers can tell apart, and lines that can be told apart in grey.
STYLES: dict[str, tuple[str, Any]] = {
    "budget_20m": ("#882255", "-"),
    "budget_10m": ("#117733", "-"),
    "budget_3m": ("#0072b2", "-"),
    "default": ("#d55e00", "-"),
    "cnn_lstm": ("#009e73", "--"),
    "straight": ("#e69f00", "-."),
    "unscaled": ("#cc79a7", (0, (1, 1))),
    "no_excursions": ("#56b4e9", "--"),
    "stock": ("#000000", "--"),
    "stock_cnn_lstm": ("#332288", ":"),
    "seed": ("#777777", ":"),
}


def policies_table(runs: dict[str, list[list[Episode]]], untrained: dict[str, list[Episode]]) -> str:
    """Everybody, best first, with what they do."""
    sides = [(CONTENDERS[name].title, Side(name, found), name) for name, found in runs.items()]
    sides += [(f"`{name}`", Side(name, [played]), None) for name, played in untrained.items()]
    rows = []
    for title, side, name in sorted(sides, key=lambda each: -each[1].scores.mean()):
        standing = side.standing()
        assert standing.interval is not None
        low, high = standing.interval
        seeds = [] if name is None else found_seeds(name)
        played = [episode for run in side.runs for episode in run]
        tried, failed = (
            np.mean([sum(e[k] for k in keys) for e in played])
            for keys in (("moves", "failed_moves"), ("failed_moves",))
        )
        made = [about(name, seed) for seed in seeds] if name else []
        last = [held_out(name, seed)[-1, 2] for seed in seeds] if name else []
        rows.append(
            [
                title,
                f"{standing.mean:.2f}",
                "" if len(seeds) == 1 else f"{low:.2f} to {high:.2f}",
                f"{len(seeds)}" if name else "",
                f"{np.mean(last):.2f}" if name else "",
                f"{standing.gear:.2f}",
                f"{standing.deaths:.2f}",
                f"{failed / tried:.0%}" if tried else "",
                f"{(standing.cells_seen or 0) / CELLS:.0%}",
                f"{made[0]['agent_steps'] / 1e6:.1f} M" if made else "",
                f"{np.median([run['minutes'] for run in made]):.1f}" if made else "",
            ]
        )
    head = ["policy", "return", "95% interval", "seeds", "last evaluation", "gear", "deaths", "failed moves"]
    return markdown([*head, "map seen", "agent steps", "minutes"], rows)


def runs_table() -> str:
    """Every run by itself, none left out: what it takes to make it again, and what it came to."""
    rows = []
    for name, contender in CONTENDERS.items():
        seeds = found_seeds(name)
        for mission in contender.judged_on or [None] if seeds else []:
            for seed, run in zip(seeds, episodes(name, mission), strict=True):
                returns, made = [episode["return"] for episode in run], about(name, seed)
                low, high = bootstrap_interval(returns) or (returns[0], returns[0])
                evaluations = held_out(name, seed)
                rows.append(
                    [
                        f"`{made['command'].removeprefix('python ')}`" + ("" if mission is None else f" on {mission}"),
                        f"{np.mean(returns):.2f} ({low:.2f} to {high:.2f})",
                        f"{np.median(returns):.2f}",
                        f"{evaluations[evaluations[:, 2].argmax(), 0] / 1e6:.2f} M",
                        f"{evaluations[-1, 2]:.2f}",
                        f"{made['minutes']:g}",
                        f"`{made['commit']}`",
                    ]
                )
    head = ["`python ...`", "return", "median", "judged at", "last evaluation", "minutes", "commit"]
    return markdown(head, rows)


def dress(axes: Any, bottom: float = 0) -> None:
    """A logarithmic axis, and the returns of the walker and of random moves as lines where they are above `bottom`."""
    for name in ("walker", "random"):
        level = float(np.mean([episode["return"] for episode in baselines("scout_tutorial")[name]]))
        if level < bottom:
            continue
        axes.axhline(level, color="#999999", ls=":", lw=1.2)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "color": "#777777"}
        axes.annotate(f"{name} ", (1, level), **place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g} M" if x >= 1e5 else f"{x:g}")
    axes.set_ylim(bottom, 36)


def draw(names: list[str]) -> None:
    """Held-out returns while training, against agent steps and against minutes: seeds thin, their mean thick."""
    figure, sides = plt.subplots(1, 2, figsize=(13, 5.2), sharey=True, layout="constrained")
    for axes, column in zip(sides, (0, 1), strict=True):
        for name in names:
            colour, line = STYLES[name]
            curves = [held_out(name, seed) for seed in found_seeds(name)]
            for curve in curves:
                axes.plot(curve[:, column], curve[:, 2], color=colour, lw=0.7, alpha=0.5)
            shared = min(len(curve) for curve in curves)
            mean = np.mean([curve[:shared] for curve in curves], axis=0)
            axes.plot(mean[:, column], mean[:, 2], color=colour, ls=line, lw=2.2, marker="o", ms=3.5)
        dress(axes)
    sides[0].set(xlabel="agent steps", ylabel="held-out return per agent")
    sides[1].set(xlabel="minutes on one core, evaluations included")
    handles = [
        Line2D([], [], color=STYLES[n][0], ls=STYLES[n][1], lw=2.2, label=CONTENDERS[n].title.replace("`", ""))
        for n in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(PICTURE, dpi=110)


def report() -> None:
    """Writes everything into docs/ and prints the tables."""
    names = [name for name in STYLES if found_seeds(name)]
    runs, untrained = {name: episodes(name) for name in names}, baselines("scout_tutorial")
    for mark, table, page in (("policies", policies_table(runs, untrained), PAGE), ("runs", runs_table(), RUNS)):
        put_table(mark, table, page)
        print(f"{table}\n")
    draw(names)
