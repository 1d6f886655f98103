"""How the judged compare: a line for each of them and for each group of training seeds, and paired differences."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from scout.config import Experiment
from scout.contestants import Contestant
from scout.naming import setting
from scout.report.sections import differing_keys, naming_keys, written
from scout.statistics import bootstrap_interval, improvement, interval, iqm, share_interval
from scout.validation import flat

log = logging.getLogger(__name__)

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Standing:
    """What became of one policy, or of several runs that differ in their training seed alone."""

    policy: str
    runs: int
    episodes: int
    mean: float
    """Mean over episodes of the mean return per agent."""
    interval: Interval
    """95% bootstrap interval of the mean: over maps, and over training seeds where there are several."""
    iqm: float
    iqm_interval: Interval
    cell_visited: float
    gear: float
    deaths: float
    cells_seen: float | None


@dataclass(frozen=True)
class Comparison:
    """One against another on the same maps."""

    policy: str
    other: str
    difference: float
    """Of the mean returns, the policy's less the other's."""
    interval: Interval
    probability: float
    """That the policy does better on a map, over pairs of training seeds where there are several."""
    probability_interval: Interval


class Side:
    """The episodes of one line of the table: a list for each run, all on the same maps."""

    def __init__(self, name: str, runs: Sequence[list[dict[str, Any]]]) -> None:
        self.name, self.runs = name, runs
        self.scores = np.array([[episode["return"] for episode in run] for run in runs])
        """Mean return per agent, [runs, maps]."""

    def standing(self) -> Standing:
        episodes = [episode for run in self.runs for episode in run]

        def mean(key: str) -> float:
            return float(np.mean([episode[key] for episode in episodes]))

        return Standing(
            policy=self.name,
            runs=len(self.runs),
            episodes=len(episodes),
            mean=float(self.scores.mean()),
            interval=_interval(np.mean, self.scores),
            iqm=iqm(self.scores),
            iqm_interval=_interval(iqm, self.scores),
            cell_visited=mean("cell_visited"),
            gear=mean("gear"),
            deaths=mean("deaths"),
            cells_seen=None if episodes[0]["cells_seen"] is None else mean("cells_seen"),
        )

    def against(self, other: "Side") -> Comparison:
        ours, theirs = self.scores, other.scores
        single = len(ours) == len(theirs) == 1
        wins = (ours > theirs) + 0.5 * (ours == theirs)
        return Comparison(
            policy=self.name,
            other=other.name,
            difference=float(ours.mean() - theirs.mean()),
            interval=bootstrap_interval((ours - theirs)[0]) if single else interval(_difference, ours, theirs),
            probability=improvement(ours, theirs),
            probability_interval=share_interval(wins) if single else _share_over_runs(ours, theirs),
        )


def sides_of(contestants: Sequence[Contestant], played: Sequence[list[dict[str, Any]]]) -> list[Side]:
    """One side for each policy, and before the runs that differ in their seed alone one for all of them together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, contestant in enumerate(contestants):
        experiment = contestant.experiment
        key = contestant.name, "alone"
        if experiment is not None and contestant.finished:
            key = setting(experiment), experiment.device.precision
        groups.setdefault((*key, " (greedy)" if contestant.greedy else ""), []).append(index)
    several = {key: contestants[members[0]].experiment for key, members in groups.items() if len(members) > 1}
    names = dict(zip(several, _names([found for found in several.values() if found is not None]), strict=True))
    sides = []
    for key, members in groups.items():
        experiments = [contestants[member].experiment for member in members]
        seeds = {experiment.seed for experiment in experiments if experiment is not None}
        if len(members) == len(seeds) > 1:
            name = f"{names[key]}, {len(members)} seeds{key[-1]}"
            sides.append(Side(name, [played[member] for member in members]))
        elif len(members) > 1:  # checkpoints of one run, or copies of it, are no further seeds
            log.warning("Of %s several have the same seed: they have no line together", names[key])
        sides += [Side(contestants[member].name, [played[member]]) for member in members]
    return sides


def _names(experiments: Sequence[Experiment]) -> list[str]:
    """Of each group what sets it apart from the others, or its whole setting where nothing does."""
    configs = [flat(experiment.model_dump()) for experiment in experiments]
    differing = naming_keys(configs, differing_keys(configs))
    apart = [" ".join(f"{key}={written(config[key])}" for key in differing if key in config) for config in configs]
    return [name or setting(experiment) for name, experiment in zip(apart, experiments, strict=True)]


def compared(sides: Sequence[Side]) -> list[Comparison]:
    """The first side, and so what was named first, against each of the others."""
    return [sides[0].against(other) for other in sides[1:] if not _part_of(sides[0], other)]


def _part_of(side: Side, other: Side) -> bool:
    return len(side.runs) > 1 and any(run is own for run in other.runs for own in side.runs)


def as_objects(rows: Sequence[Standing | Comparison]) -> list[dict[str, Any]]:
    """As they are stored in JSON."""
    return [asdict(row) for row in rows]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """For the terminal: of a path the end that no other of the names has; other names as they are."""
    greedy = " (greedy)"
    paths = {name: name.removesuffix(greedy).rstrip("/") for name in names}

    def end(path: str, parts: int) -> str:
        return "/".join(path.split("/")[-parts:])

    short = {}
    for name, path in paths.items():
        whole = path.count("/") + 1
        parts = 1 if Path(path).exists() else whole  # cogames/starter is no path
        others = set(paths.values()) - {path}
        while parts < whole and (
            end(path, parts).isdigit() or any(end(other, parts) == end(path, parts) for other in others)
        ):
            parts += 1
        short[name] = end(path, parts) + (greedy if name.endswith(greedy) else "")
    return short


def standings_table(standings: Sequence[Standing]) -> Table:
    """One line a policy; it fits a terminal of 80 columns, in which long names are broken and nothing is cut off."""
    names = short_names([row.policy for row in standings])
    table = _table("episodes", "return", "95% interval", "IQM", "gear", "deaths", "cells")
    table.caption = (
        "Means over episodes, all but cells (those that the team saw) per agent. IQM: mean of the middle half."
    )
    for row in standings:
        seen = "-" if row.cells_seen is None else f"{row.cells_seen:,.0f}"
        numbers = (f"{row.iqm:.2f}", f"{row.gear:.2f}", f"{row.deaths:.2f}", seen)
        table.add_row(Text(names[row.policy]), str(row.episodes), f"{row.mean:.2f}", _written(row.interval), *numbers)
    return table


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """How the first policy fares against each of the others."""
    table = _table("difference", "95% interval", "better", "95% interval")
    table.columns[0].header = "against"
    names = short_names([comparisons[0].policy, *(row.other for row in comparisons)])
    table.title = Text(f"{names[comparisons[0].policy]}, on the same maps")
    table.caption = "Difference of the mean returns; better: the probability of doing better on a map."
    for row in comparisons:
        shares = None if row.probability_interval is None else tuple(100 * bound for bound in row.probability_interval)
        percent = "-" if shares is None else f"{shares[0]:.0f} .. {shares[1]:.0f}%"
        better = (f"{row.probability:.0%}", percent)
        table.add_row(Text(names[row.other]), f"{row.difference:+.2f}", _written(row.interval), *better)
    return table


def _table(*columns: str) -> Table:
    # Two spaces between columns: all of them fit in a terminal of 80 columns.
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", padding=(0, 1, 0, 0))
    table.add_column("policy", overflow="fold", min_width=8)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _written(interval: Interval) -> str:
    return "-" if interval is None else f"{interval[0]:.2f} .. {interval[1]:.2f}"


def _interval(statistic: Any, scores: NDArray[np.float64]) -> Interval:
    """Of one run by scipy, over its maps; of several over runs and maps."""
    return bootstrap_interval(scores[0], statistic) if len(scores) == 1 else interval(statistic, scores)


def _difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    return float(ours.mean() - theirs.mean())


def _share_over_runs(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Interval:
    """Of a probability over pairs of runs: the interval over runs and maps, and no narrower than so few runs allow.

    Where all of three seeds do better, as all of a hundred would, only Wilson's interval of three in three tells them
    apart.
    """
    bounds = interval(improvement, ours, theirs)
    if bounds is None:
        return None
    fewest = min(len(rows) for rows in (ours, theirs) if len(rows) > 1)
    allowed = share_interval(np.full(fewest, improvement(ours, theirs)))
    assert allowed is not None
    return max(min(bounds[0], allowed[0]), 0.0), min(max(bounds[1], allowed[1]), 1.0)
