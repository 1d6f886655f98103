"""How the pictures look: lines that can be told apart in colour and in grey, legends and labels outside of the data."""

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from scout.references import Reference
from scout.report.runs import Array

WIDTH, DPI = 4.8, 150
"""720 pixels: shown beside another picture on a wide page, and over the whole width of a phone."""
LEGEND_CHARACTERS, LABEL_CHARACTERS = 58, 18
TEXT_HEIGHT = 0.165
"""Inches of a line of small text."""


class Style(NamedTuple):
    """How a group is drawn."""

    colour: str
    dashes: Any
    marker: str


# The colours of Okabe and Ito, which colour-blind readers can tell apart, with a brown for their yellow, which is pale
# on white; dashes and markers tell the same lines apart in grey.
STYLES = (
    Style("#0072b2", "-", "o"),
    Style("#d55e00", (0, (5, 2)), "s"),
    Style("#009e73", (0, (1, 1)), "^"),
    Style("#cc79a7", (0, (6, 2, 1, 2)), "D"),
    Style("#e69f00", (0, (3, 1, 1, 1, 1, 1)), "v"),
    Style("#56b4e9", (0, (9, 2)), "P"),
    Style("#000000", (0, (3, 3)), "X"),
    Style("#8c510a", (0, (1, 3)), "*"),
)
GREY = Style("#d0d0d0", "-", "")
MOST_COLOURED = 7
"""Of more groups than there are styles, so many are coloured, and the others grey."""


def drawing() -> AbstractContextManager[None]:
    """The settings of all pictures, whatever the user's own are. Names of runs are never taken for formulas."""
    settings: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10, "text.parse_math": False}
    settings |= dict.fromkeys(("axes.titlesize", "axes.labelsize"), 10)
    settings |= dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9)
    settings |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    settings |= {"axes.grid": True, "grid.color": "#e4e4e4", "axes.axisbelow": True, "hatch.linewidth": 0.6}
    return mpl.rc_context({**mpl.rcParamsDefault, **settings, "backend": "agg"})


def styles_for(count: int) -> list[Style]:
    """The style of each of so many groups, the best first."""
    if count <= len(STYLES):
        return list(STYLES[:count])
    return [*STYLES[:MOST_COLOURED], *[GREY] * (count - MOST_COLOURED)]


def new_figure(height: float, names: Sequence[str] = ()) -> Figure:
    """A figure of the page's width, `height` inches and a legend below it high; names are broken but never cut off.

    `names` are those of all groups, in the order of their styles.
    """
    styles = [style for style in styles_for(len(names)) if style is not GREY]
    entries = [wrapped(name) for name in names[: len(styles)]]
    if len(names) > len(styles):
        styles.append(GREY)
        entries.append(f"the other {len(names) - len(styles) + 1}")
    lines = sum(entry.count("\n") + 1.25 for entry in entries)
    figure = Figure(figsize=(WIDTH, height + lines * TEXT_HEIGHT), dpi=DPI, layout="constrained")
    if entries:
        handles = [
            Line2D([], [], color=style.colour, ls=style.dashes, marker=style.marker, ms=5, lw=1.8) for style in styles
        ]
        numbers = list(map(str, range(len(entries))))  # matplotlib would leave out a name that begins with _
        legend = figure.legend(handles, numbers, loc="outside lower left", handlelength=3.2, labelspacing=0.25)
        for text, entry in zip(legend.get_texts(), entries, strict=True):
            text.set_text(entry)
    return figure


def draw_line(axes: Axes, across: Array, values: Array, index: int, style: Style, markers: bool) -> None:
    """The line of group number `index`; its marker stands at other points than those of its neighbours."""
    if style is GREY:
        axes.plot(across, values, color=style.colour, lw=0.6, zorder=1)
        return
    marks = {"marker": style.marker, "ms": 4, "markevery": (index, len(STYLES))} if markers else {}
    axes.plot(across, values, color=style.colour, ls=style.dashes, lw=1.7, zorder=3, **marks)


def draw_references(axes: Axes, references: Mapping[str, Reference], height: float) -> None:
    """Horizontal lines, labelled at the right end of axes of so many inches; no label covers another."""
    means = [reference.mean for reference in references.values()]
    low, high = axes.get_ylim()
    low, high = min([low, *means]), max([high, *means])
    axes.set_ylim(low, high)
    free = -1.0
    for name, reference in sorted(references.items(), key=lambda item: item[1].mean):
        label = wrapped(f"{name} {reference.mean:.1f}", LABEL_CHARACTERS)
        half = TEXT_HEIGHT / height * (label.count("\n") + 1) / 2
        place = max((reference.mean - low) / (high - low), free + half)
        free = place + half
        axes.axhline(reference.mean, color="#404040", lw=1, ls=(0, (4, 2, 1, 2)), zorder=1.5)
        axes.annotate(
            label,
            (1, reference.mean),
            (1.04, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "#404040", "lw": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def short_number(value: float, _: Any = None) -> str:
    """A tick's label: 1500000 -> 1.5M, 20000 -> 20k, but 1024 as it is."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and value % (size / 10) == 0:
            return f"{value / size:g}{sign}"
    return f"{value:.10g}"


def wrapped(name: str, characters: int = LEGEND_CHARACTERS) -> str:
    """The name in lines of at most so many characters."""
    return textwrap.fill(name, characters, break_on_hyphens=False)
