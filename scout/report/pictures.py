"""The pictures of one mission's runs, but for those of hyperparameters. Groups come with the best first."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator

from scout.files import HELD_OUT, RETURN
from scout.report.curves import SPEED, held_out_points, metric_curve
from scout.report.sections import Group, Section
from scout.report.style import (
    GREY,
    MOST_COLOURED,
    STYLES,
    TEXT_HEIGHT,
    draw_line,
    draw_references,
    new_figure,
    short_number,
    styles_for,
    wrapped,
)

MOST_SINGLE_RUNS = 24
"""Single runs are drawn where all are no more than this; more would hide the means."""
DIAGNOSTICS = {
    "losses/entropy": "entropy, nats",
    "losses/explained_variance": "explained variance",
    "losses/approx_kl": "approximate KL",
    "losses/clipfrac": "clipped fraction",
    "losses/value_loss": "value loss",
    "losses/gradient_norm": "gradient norm",
}
_LOGARITHMIC = ("value loss", "gradient norm")
_PARTS = {"rollout": ("#56b4e9", ""), "update": ("#e69f00", "//"), "evaluation": ("#ffffff", "xx")}
_SHORT = FuncFormatter(short_number)


def learning_curves(section: Section, against: Literal["steps", "minutes"]) -> Figure | None:
    """Training's and held-out returns of the groups; None where no whole episode ended and none was held out."""
    groups = section.groups
    curves = [metric_curve(group, RETURN) for group in groups]
    points = [held_out_points(group) for group in groups]
    drawn = [curve for curve in [*curves, *points] if curve is not None]
    if not drawn:
        return None
    figure = new_figure(3.3, [group.name for group in groups])
    axes = figure.subplots()
    runs = [run for group in groups for run in group.runs]
    if len(runs) == 1:
        axes.plot(getattr(runs[0], against), runs[0].column(RETURN), ".", ms=4, color=STYLES[0].colour, alpha=0.4)
    # Marks of the same step must not hide each other, nor run into those of the next evaluation.
    most = max((len(curve.steps) for curve in points if curve is not None), default=1)
    end = max(getattr(curve, against)[-1] for curve in drawn) or 1.0  # a run that was never timed has 0 minutes
    apart = end * min(0.012, 0.6 / most / len(STYLES))
    for index, (curve, marks, style) in enumerate(zip(curves, points, styles_for(len(groups)), strict=True)):
        if curve is not None:
            draw_line(axes, getattr(curve, against), curve.mean, index, style, len(groups) > 1 and not any(points))
        if curve is not None and len(groups) <= len(STYLES):
            axes.fill_between(getattr(curve, against), curve.low, curve.high, color=style.colour, alpha=0.15, lw=0)
            for minutes, values in curve.singles if len(curve.singles) > 1 and len(runs) <= MOST_SINGLE_RUNS else []:
                axes.plot(curve.steps if against == "steps" else minutes, values, color=style.colour, lw=0.6, alpha=0.6)
        if marks is not None and style is not GREY:
            across = getattr(marks, against) + apart * (index - (min(len(groups), MOST_COLOURED) - 1) / 2)
            lengths = np.nan_to_num(np.abs([marks.mean - marks.low, marks.high - marks.mean]))
            bars = axes.errorbar(across, marks.mean, lengths, fmt=style.marker, ms=5.5, color=style.colour, zorder=4)
            bars[0].set(markeredgecolor="white", markeredgewidth=0.7)
    axes.set(xlabel="agent steps" if against == "steps" else "minutes of wall time", ylabel="return per agent")
    axes.xaxis.set_major_formatter(_SHORT)
    axes.set_xlim(0, 1.05 * end)
    draw_references(axes, section.references, height=2.6)
    return figure


def missions_picture(section: Section) -> Figure | None:
    """The return of each mission that is played in turn, held-out where there is; None of a single mission."""
    names = [mission.name for mission in section.missions]
    metric = HELD_OUT if section.held_out else RETURN
    return _small_multiples(section.groups, {f"{metric}/{name}": name for name in names}, columns=2)


def speed_picture(groups: Sequence[Group]) -> Figure | None:
    """Median agent steps per second over the run, by group; None without any update."""
    return _small_multiples(groups, {SPEED: "agent steps per second"}, columns=1)


def diagnostics_picture(groups: Sequence[Group]) -> Figure | None:
    """Small multiples of what tells how the learning goes; None where nothing of it was logged."""
    return _small_multiples(groups, DIAGNOSTICS, columns=2)


def seconds_picture(groups: Sequence[Group]) -> Figure | None:
    """Stacked bars of what 100,000 agent steps take, for the groups in colour; None without any update."""
    styles = styles_for(len(groups))
    shown = [group for group, style in zip(groups, styles, strict=True) if style is not GREY]
    runs_of = {wrapped(group.name): [run for run in group.runs if len(run.steps)] for group in shown}
    runs_of = {name: runs for name, runs in runs_of.items() if runs}
    if not runs_of:
        return None
    figure = new_figure(1.1 + sum(0.42 + TEXT_HEIGHT * (name.count("\n") + 1) for name in runs_of))
    axes = figure.subplots()
    middle = 0.0
    for name, runs in runs_of.items():
        middle -= TEXT_HEIGHT * (name.count("\n") + 1) + 0.2
        left = 0.0
        for part, (colour, hatch) in _PARTS.items():
            spent = [np.nansum(run.column(f"performance/{part}_seconds")) / run.steps[-1] for run in runs]
            width = 100_000 * float(np.mean(spent))
            axes.barh(middle, width, 0.2, left, color=colour, hatch=hatch, edgecolor="black", lw=0.6)
            left += width
        memory = f"{max(run.memory for run in runs):,.0f} MB"
        axes.annotate(memory, (left, middle), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.annotate(name, (0, middle + 0.12), (3, 0), textcoords="offset points", va="bottom", fontsize=9)
        middle -= 0.22
    axes.set(yticks=[], xlabel="seconds for 100,000 agent steps", ylim=(middle, 0.05))
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    patches = [Patch(facecolor=colour, hatch=hatch, edgecolor="black", lw=0.6) for colour, hatch in _PARTS.values()]
    figure.legend(patches, list(_PARTS), loc="outside lower left", ncols=3)
    return figure


def _small_multiples(groups: Sequence[Group], titles: dict[str, str], columns: int) -> Figure | None:
    """A panel for each metric that was logged, by its title, with a line for each group over agent steps."""
    found = {title: [metric_curve(group, metric) for group in groups] for metric, title in titles.items()}
    found = {title: curves for title, curves in found.items() if any(curves)}
    if not found:
        return None
    rows = -(-len(found) // columns)
    height = 2.6 if columns == 1 else 0.2 + 1.65 * rows
    figure = new_figure(height, [group.name for group in groups])
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (title, curves) in zip(panels, found.items(), strict=False):
        for index, (curve, style) in enumerate(zip(curves, styles_for(len(groups)), strict=True)):
            if curve is not None:
                draw_line(axes, curve.steps, curve.mean, index, style, len(groups) > 1)
        axes.set_title(title, loc="left")
        axes.set_xlim(left=0)
        if title in _LOGARITHMIC:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_formatter("")
        elif columns == 1:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(_SHORT)
        axes.yaxis.set_major_formatter(_SHORT)
    for axes in panels[len(found) :]:
        axes.remove()
    for axes in panels[max(0, len(found) - columns) : len(found)]:
        axes.set_xlabel("agent steps")
    return figure
