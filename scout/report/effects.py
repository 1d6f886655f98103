"""What the hyperparameters of a sweep did to the final return, one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from scout.report.runs import Array
from scout.report.sections import Section, naming_keys, written
from scout.report.style import STYLES, new_figure, short_number, wrapped

MOST_EFFECTS = 12
MOST_VALUES = 5
"""Numbers with more values than this are put into as many bins of equal size, to compare the bins' means."""
_DOTS: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4, "color": STYLES[0].colour, "alpha": 0.55, "mew": 0}


@dataclass(frozen=True)
class Effect:
    """The final returns of all runs by the values of one key."""

    key: str
    values: list[Any]
    """[runs]"""
    finals: Array
    """Final return, [runs]"""

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers, which true and false are not."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    @property
    def labels(self) -> list[str]:
        """What each run's value is compared as, [runs]: the value, or a number's bin."""
        if not self.numeric or len(set(self.values)) <= MOST_VALUES:
            return [written(value) for value in self.values]
        edges = np.quantile(self.values, np.linspace(0, 1, MOST_VALUES + 1)[1:-1])
        return [str(number) for number in np.searchsorted(edges, self.values)]


def effects_of(section: Section) -> list[Effect]:
    """The keys that set the groups apart, the most influential first, at most MOST_EFFECTS."""
    runs = [(group.config, final) for group in section.groups for final in group.finals]
    found = []
    for key in naming_keys([group.config for group in section.groups], section.differing):
        here = [(config[key], final) for config, final in runs if key in config]
        if len({written(value) for value, _ in here}) > 1:
            found.append(Effect(key, [value for value, _ in here], np.array([final for _, final in here])))
    return sorted(found, key=lambda effect: -(explained(effect.labels, effect.finals) or 0))[:MOST_EFFECTS]


def explained(labels: Sequence[str], finals: Array) -> float | None:
    """Part of the variance of the finals [runs] that their labels explain, adjusted for the number of labels.

    Epsilon squared, which is about 0 where labels mean nothing. Source: Kelley, 1935, "An unbiased correlation ratio
    measure". None where no label has two runs.
    """
    count, distinct = len(finals), set(labels)
    if count <= len(distinct):
        return None
    parts = [finals[np.array(labels) == label] for label in distinct]
    within = sum(part.var() * len(part) for part in parts) / (count - len(distinct))
    total = finals.var(ddof=1)
    return float(max(0, 1 - within / total)) if total > 0 else 0.0


def effects_picture(effects: Sequence[Effect]) -> Figure:
    """A panel for each key: every run's final return against the key's value, and the mean of each value."""
    columns = min(2, len(effects))
    rows = -(-len(effects) // columns)
    titles = [_title(effect) for effect in effects]
    figure = new_figure(0.2 + (1.9 + 0.17 * max(title.count("\n") + 1 for title in titles)) * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, effect, title in zip(panels, effects, titles, strict=False):
        axes.set_title(title, loc="left", fontsize=9)
        (_draw_numbers if effect.numeric else _draw_categories)(axes, effect)
    for axes in panels[len(effects) :]:
        axes.remove()
    figure.supylabel("final return per agent", fontsize=10)
    return figure


def _title(effect: Effect) -> str:
    key = wrapped(effect.key.removesuffix(".name").replace(".", ". "), 30).replace(". ", ".")
    part = explained(effect.labels, effect.finals)
    return key if part is None else f"{key}\nexplains {part:.0%}"


def _draw_numbers(axes: Axes, effect: Effect) -> None:
    values, labels = np.array(effect.values, dtype=float), np.array(effect.labels)
    axes.plot(values, effect.finals, **_DOTS)
    means = [(values[labels == label].mean(), effect.finals[labels == label].mean()) for label in set(labels)]
    axes.plot(*zip(*sorted(means), strict=True), "k_-", ms=12, mew=2, lw=1)
    distinct = np.unique(values)
    logarithmic = distinct[0] > 0 and distinct[-1] > 10 * distinct[0]
    if logarithmic:
        axes.set_xscale("log")
    if len(distinct) <= MOST_VALUES + 1:
        places = np.log(distinct) if logarithmic else distinct
        kept = [0]
        for index in range(1, len(distinct)):  # a label must not run into the one before it
            if places[index] - places[kept[-1]] > 0.18 * np.ptp(places):
                kept.append(index)
        axes.xaxis.set_major_locator(FixedLocator(list(distinct[kept])))
        axes.xaxis.set_minor_locator(NullLocator())
    elif not logarithmic:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.12)


def _draw_categories(axes: Axes, effect: Effect) -> None:
    distinct = sorted(set(effect.labels))
    places = np.array([distinct.index(label) for label in effect.labels])
    beside = np.random.default_rng(0).uniform(-0.15, 0.15, len(places))  # so that dots do not hide each other
    axes.plot(places + beside, effect.finals, **_DOTS)
    means = [effect.finals[places == place].mean() for place in range(len(distinct))]
    axes.plot(range(len(distinct)), means, "k_", ms=18, mew=2)
    axes.set_xticks(range(len(distinct)), [wrapped(label, max(6, 26 // len(distinct))) for label in distinct])
    axes.set_xlim(-0.5, len(distinct) - 0.5)
