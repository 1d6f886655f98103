"""Tables and a picture of single questions: corrections, networks, widths, budgets, other missions."""

import json
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from contenders import CONTENDERS, MISSIONS, PARTS, SECTIONS, TUTORIALS, part_on
from learning import ROOT, SPEEDS
from learning_report import dress
from numpy.typing import NDArray
from records import CELLS, about, baselines, episodes, found_seeds, held_out, returns
from results_page import markdown, put_table

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

PICTURE = ROOT / "docs/budgets.png"
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"
BUDGETS = ("budget_250k", "budget_500k", "default", "budget_3m", "budget_10m", "budget_20m")
WIDTHS = {64: "width_64", 128: "width_128", 256: "default", 512: "width_512", 1024: "width_1024"}


# -- differences in the noise of seeds ---------------------------------------------------------------------------------


def deviation_of_seeds(names: Sequence[str]) -> tuple[float, int]:
    """The standard deviation between training seeds of one contender, pooled over several, and its degrees of freedom.

    Two or three seeds tell little of their own spread; that of all contenders together is the noise of a table. Source:
    the pooled variance of Student's test for groups of equal variance.
    """
    found = [returns(name) for name in names]
    squares = sum(float(np.sum((each - each.mean()) ** 2)) for each in found)
    degrees = sum(len(each) - 1 for each in found)
    return (squares / degrees) ** 0.5, degrees


def difference(name: str, reference: str, noise: tuple[float, int]) -> str:
    """A contender's mean less the reference's, with the 95% interval that the seeds' noise leaves it."""
    import scipy.stats

    ours, theirs = returns(name), returns(reference)
    deviation, degrees = noise
    half = float(scipy.stats.t.ppf(0.975, degrees)) * deviation * (1 / len(ours) + 1 / len(theirs)) ** 0.5
    found = ours.mean() - theirs.mean()
    return f"{found:+.2f} ({found - half:+.2f} to {found + half:+.2f})"


def listed(values: NDArray[np.float64]) -> str:
    """The mean, and each seed's value where there are several."""
    each = f" ({', '.join(f'{value:.2f}' for value in values)})" if len(values) > 1 else ""
    return f"{values.mean():.2f}{each}"


def speed_of(name: str) -> float | None:
    """Agent steps a second, measured in turns on an idle machine; None where it was not."""
    speeds = json.loads(SPEEDS.read_text())["steps_per_second"] if SPEEDS.exists() else {}
    return speeds.get(name)


def minutes_of(name: str, like: str | None = None) -> str:
    """Minutes of a run's agent steps at the speed measured in turns, evaluations not counted."""
    speed = speed_of(like or name)
    return "" if speed is None else f"{about(name, found_seeds(name)[0])['agent_steps'] / speed / 60:.1f}"


# -- tables ------------------------------------------------------------------------------------------------------------


def steps_of(name: str) -> str:
    """Agent steps of a contender's runs, in millions."""
    return f"{about(name, found_seeds(name)[0])['agent_steps'] / 1e6:.2f} M"


def corrections_table() -> str:
    """All corrections but one, in turn, and none of them."""
    titles = {"unscaled": "rewards normalized", "no_excursions": "excursions", "stock": "all: `trainer=pufferl`"}
    rivals = [name for name in (*titles, *SECTIONS["corrections"]) if found_seeds(name)]
    noise = deviation_of_seeds(["default", *rivals])
    rivals.sort(key=lambda name: -returns(name).mean())
    rows = []
    for name in ("default", *rivals):
        title = "nothing: the default" if name == "default" else titles.get(name, CONTENDERS[name].title)
        minutes = minutes_of(name, "stock" if name == "stock_minutes" else name)
        apart = "" if name == "default" else difference(name, "default", noise)
        rows.append([title, steps_of(name), minutes, listed(returns(name)), apart])
    print(f"corrections: pooled deviation of seeds {noise[0]:.2f}, {noise[1]} degrees of freedom")
    head = ["taken back", "agent steps", "minutes", "return (each seed)", "difference to the default (95%)"]
    return markdown(head, rows)


def models_table() -> str:
    """Each network at the default's agent steps, and in its minutes."""
    networks = [name for name in SECTIONS["models"] if not name.endswith("_minutes")]
    networks = [name for name in networks if found_seeds(name) and found_seeds(f"{name}_minutes")]
    runs = [run for name in networks for run in (name, f"{name}_minutes")]
    noise = deviation_of_seeds(["default", *runs])
    rows = [["`model=conv`", steps_of("default"), minutes_of("default"), listed(returns("default")), ""]]
    for run in runs:
        minutes = minutes_of(run, run.removesuffix("_minutes"))
        apart = difference(run, "default", noise)
        rows.append([CONTENDERS[run].title, steps_of(run), minutes, listed(returns(run)), apart])
    print(f"models: pooled deviation of seeds {noise[0]:.2f}, {noise[1]} degrees of freedom")
    head = ["network", "agent steps", "minutes", "return (each seed)", "difference to the default (95%)"]
    return markdown(head, rows)


def widths_table() -> str:
    """The default with other widths of its recurrent layer."""
    widths = {width: name for width, name in WIDTHS.items() if found_seeds(name)}
    noise = deviation_of_seeds(list(widths.values()))
    rows = []
    for width, name in widths.items():
        speed = speed_of(name)
        apart = "" if name == "default" else difference(name, "default", noise)
        rows.append([f"{width}", "" if speed is None else f"{speed:,.0f}", listed(returns(name)), apart])
    return markdown(["`model.hidden_size`", "steps/s", "return (each seed)", "difference to 256 (95%)"], rows)


def budgets_table() -> str:
    """The default's recipe with less and more agent steps, each run annealed to its own end."""
    rows = []
    for name in filter(found_seeds, BUDGETS):
        played = [episode for run in episodes(name) for episode in run]
        gear, deaths, seen = (np.mean([episode[key] for episode in played]) for key in ("gear", "deaths", "cells_seen"))
        habits = [f"{gear:.2f}", f"{deaths:.2f}", f"{seen / CELLS:.0%}"]
        rows.append([steps_of(name), minutes_of(name, "default"), listed(returns(name)), *habits])
    return markdown(["agent steps", "minutes", "return (each seed)", "gear", "deaths", "map seen"], rows)


def missions_table() -> str:
    """What was trained on each mission, and on all tutorials in turn, beside the policies that nobody trained."""
    trained = {mission: "budget_3m" if mission == "scout_tutorial" else mission for mission in MISSIONS}
    rows = [["trained on it", *(listed(returns(name)) if found_seeds(name) else "" for name in trained.values())]]
    if found_seeds("in_turn"):
        judged_on = CONTENDERS["in_turn"].judged_on
        cells = [listed(returns("in_turn", mission)) if mission in judged_on else "" for mission in MISSIONS]
        rows.append([CONTENDERS["in_turn"].title, *cells])
    untrained = {mission: baselines(mission) for mission in MISSIONS}
    for policy in untrained["scout_tutorial"]:
        played = [untrained[mission].get(policy) for mission in MISSIONS]
        means = ["" if of is None else f"{np.mean([episode['return'] for episode in of]):.2f}" for of in played]
        rows.append([f"`{policy}`", *means])
    return markdown(["policy", *(f"`{mission}`" for mission in MISSIONS)], rows)


def parts_table() -> str:
    """The recipe without each of its parts, on each tutorial."""
    rows = []
    for part in PARTS:
        names = [part, *(part_on(mission, part) for mission in TUTORIALS[1:])]
        rows.append([CONTENDERS[part].title, *(listed(returns(name)) if found_seeds(name) else "" for name in names)])
    return markdown(["recipe", *(f"`{mission}`" for mission in TUTORIALS)], rows)


# -- the picture -------------------------------------------------------------------------------------------------------


def draw() -> None:
    """Return against agent steps and minutes, and against width: a point for each run, lines through their means.

    Behind the steps, the evaluations of the longer runs while they trained.
    """
    figure, (budgets, widths) = plt.subplots(1, 2, figsize=(13, 4.8), sharey=True, layout="constrained")
    steps = {name: about(name, found_seeds(name)[0])["agent_steps"] for name in BUDGETS if found_seeds(name)}
    for name in (name for name in steps if steps[name] > 5e6):
        for curve in (held_out(name, seed) for seed in found_seeds(name)):
            budgets.plot(curve[:, 0], curve[:, 2], color=GREY, lw=0.8, alpha=0.7)
    _draw_means(budgets, steps, BLUE)
    _draw_means(widths, {name: width for width, name in WIDTHS.items() if found_seeds(name)}, ORANGE)
    lowest = min(returns(name).min() for name in (*steps, *filter(found_seeds, WIDTHS.values())))
    for axes in (budgets, widths):
        dress(axes, bottom=5 * (lowest // 5))
    budgets.set(xlabel="agent steps of the run", ylabel="return per agent, whole episodes on new maps")
    a_minute = (speed_of("default") or np.nan) * 60
    minutes = budgets.secondary_xaxis("top", functions=(lambda x: x / a_minute, lambda x: x * a_minute))
    minutes.set_xlabel("minutes on one core, at the default's speed")
    minutes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    minutes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    minutes.xaxis.set_minor_locator(NullLocator())
    budgets.plot([], [], "o-", color=BLUE, label="runs of so many steps, and their mean")
    budgets.plot([], [], color=GREY, lw=0.8, label="longer runs while they trained")
    budgets.legend(loc="lower right", frameon=False)
    widths.set_xticks(list(WIDTHS), [str(width) for width in WIDTHS])
    widths.xaxis.set_minor_locator(NullLocator())
    widths.set(xlabel="model.hidden_size, a million agent steps")
    figure.savefig(PICTURE, dpi=110)


def _draw_means(axes: Any, places: dict[str, float], colour: str) -> None:
    for name, at in places.items():
        axes.plot([at] * len(found_seeds(name)), returns(name), "o", color=colour, ms=5, alpha=0.8, mew=0)
    axes.plot(list(places.values()), [returns(name).mean() for name in places], color=colour, lw=1.8)


def report() -> None:
    """Writes what there are runs for into docs/, and prints the tables."""
    tables = {
        "corrections": (corrections_table, "last_step"),
        "models": (models_table, "memoryless_minutes"),
        "budgets": (budgets_table, "budget_20m"),
        "widths": (widths_table, "width_128"),
        "missions": (missions_table, "arena"),
        "parts": (parts_table, "scrambler_unscaled"),
    }
    for mark, (table, needed) in tables.items():
        if found_seeds(needed):
            written = table()
            put_table(mark, written)
            print(f"{written}\n")
    if found_seeds("budget_20m") and SPEEDS.exists():
        draw()
