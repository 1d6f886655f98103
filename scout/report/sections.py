"""What belongs together: runs of the same missions in a section, and in it the runs of one config in a group."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scout.config import MissionConfig
from scout.files import HELD_OUT, RETURN
from scout.naming import WITHOUT_EFFECT, is_in
from scout.references import Reference, references
from scout.report.runs import Evaluation, Found, Run
from scout.statistics import bootstrap_interval
from scout.validation import flat

_WITHOUT_EFFECT = (*WITHOUT_EFFECT, "mission.name", "curriculum.name")
_OPTIONS = ("model.name", "trainer.name")  # a group of keys of its own behind each name
_LONGEST_NAME = 160

Config = dict[str, Any]
"""An experiment as dotted keys."""


Missions = tuple[MissionConfig, ...]
"""What a run is trained on: its mission, and those that it plays in turn with it."""


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, and in keys without effect on the result."""

    name: str
    """What sets it apart from the other groups."""
    config: Config
    runs: list[Run]
    held_out: bool
    """Whether final returns are those of held-out evaluations, and not training's."""

    @property
    def counted(self) -> list[Run]:
        """The runs that means are made of: those that finished, or all where none did; of one seed the last alone."""
        runs = [run for run in self.runs if run.state == "finished"] or self.runs
        return list({run.experiment.seed: run for run in runs}.values())

    @property
    def finals(self) -> list[float]:
        """Final returns of the runs that count and have one."""
        return [final for final in (run.final(self.held_out) for run in self.counted) if np.isfinite(final)]

    @property
    def mean(self) -> float:
        """Of the final returns; -inf without any, so that these groups come last."""
        return float(np.mean(self.finals)) if self.finals else -np.inf


@dataclass(frozen=True)
class Section:
    """Everything of one mission, or of several that were trained on in turn."""

    title: str
    missions: Missions
    groups: list[Group]
    """Those with the highest final return first."""
    differing: list[str]
    """Keys in which the groups differ."""
    held_out: bool
    evaluations: list[Evaluation]
    references: dict[str, Reference]
    """Returns of baselines on the mission, by their names; none where there are several."""


def sections_of(found: Found) -> list[Section]:
    """A section for each mission, those with most runs first; missions are equal when all but their name is."""
    missions: dict[str, Missions] = {}
    runs: dict[str, list[Run]] = defaultdict(list)
    evaluations: dict[str, list[Evaluation]] = defaultdict(list)
    for run in found.runs:
        runs[_identity(run.experiment.missions, missions)].append(run)
    for evaluation in found.evaluations:
        if evaluation.mission is not None:
            evaluations[_identity((evaluation.mission,), missions)].append(evaluation)
    keys = sorted(missions, key=lambda key: -len(runs[key]))
    titles = _titles([missions[key] for key in keys])
    return [
        _section(title, missions[key], runs[key], evaluations[key]) for key, title in zip(keys, titles, strict=True)
    ]


def written(value: Any) -> str:
    """A value as one writes it on the command line; numbers count as equal when their first six digits are."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def differing_keys(configs: Sequence[Config]) -> list[str]:
    """The keys with an effect whose values differ, or that some configs lack."""
    keys = {key: None for config in configs for key in config if not is_in(key, _WITHOUT_EFFECT)}
    return [key for key in keys if len({written(config.get(key, "")) for config in configs}) > 1]


def naming_keys(configs: Sequence[Config], differing: Iterable[str]) -> list[str]:
    """The differing keys that set configs apart: without those that only follow the choice of a network or trainer."""
    chosen = []
    for key in differing:
        option = f"{key.split('.')[0]}.name"
        within = option in _OPTIONS and key != option
        values = defaultdict(set)
        for config in configs:
            values[config.get(option) if within else None].add(written(config.get(key, "")))
        if any(len(different) > 1 for different in values.values()):
            chosen.append(key)
    return chosen


def finals_are_held_out(runs: Sequence[Run]) -> bool:
    """Whether final returns are those of the last held-out evaluation: where all runs that finished have one.

    Else they are training's for all runs of the section, so that no two measures are compared.
    """
    runs = [run for run in runs if run.state == "finished"] or runs
    runs = [run for run in runs if run.has(RETURN) or run.has(HELD_OUT)]
    return bool(runs) and all(run.has(HELD_OUT) for run in runs)


def _identity(trained_on: Missions, missions: dict[str, Missions]) -> str:
    key = json.dumps([mission.model_dump(exclude={"name"}) for mission in trained_on], sort_keys=True)
    missions.setdefault(key, trained_on)
    return key


def _titles(missions: Sequence[Missions]) -> list[str]:
    """Their names, and where several have the same, what differs between these."""
    names = [", ".join(mission.name for mission in each) for each in missions]
    configs = [
        flat({mission.name: mission.model_dump() for mission in each} if each[1:] else each[0].model_dump())
        for each in missions
    ]
    titles = []
    for name, config in zip(names, configs, strict=True):
        alike = [other for other, its_name in zip(configs, names, strict=True) if its_name == name]
        titles.append(f"{name} {_name(config, differing_keys(alike))}".strip())
    return titles


def _section(title: str, missions: Missions, runs: Sequence[Run], evaluations: list[Evaluation]) -> Section:
    members: dict[str, list[Run]] = defaultdict(list)
    configs: dict[str, Config] = {}
    for run in runs:
        config = flat(run.experiment.model_dump())
        effective = {key: written(value) for key, value in config.items() if not is_in(key, _WITHOUT_EFFECT)}
        key = json.dumps(effective, sort_keys=True)
        members[key].append(run)
        configs[key] = config
    differing = differing_keys(list(configs.values()))
    names = naming_keys(list(configs.values()), differing)
    held_out = finals_are_held_out(runs)
    groups = []
    for number, (key, config) in enumerate(configs.items(), start=1):
        name = _name(config, names) or (runs[0].name if len(runs) == 1 else f"all {len(runs)} runs")
        name = name if len(name) <= _LONGEST_NAME else f"config {number}"
        groups.append(Group(name, config, members[key], held_out))
    groups.sort(key=lambda group: -group.mean)
    found = _references(*missions, evaluations) if len(missions) == 1 else {}
    return Section(title, missions, groups, differing, held_out, evaluations, found)


def _name(config: Config, keys: Iterable[str]) -> str:
    return " ".join(f"{key.removesuffix('.name')}={written(config[key])}" for key in keys if key in config)


def _references(mission: MissionConfig, evaluations: Iterable[Evaluation]) -> dict[str, Reference]:
    """Those that are known of the mission, and the baselines of evaluations; of two the one of more episodes."""
    found = dict(references(mission))
    for evaluation in evaluations:
        for baseline in sorted(evaluation.baselines):
            returns = evaluation.returns[baseline]
            if baseline in found and found[baseline].episodes > len(returns):
                continue
            mean = float(np.mean(returns))
            low, high = bootstrap_interval(returns) or (mean, mean)
            found[baseline] = Reference(mean=mean, low=low, high=high, episodes=len(returns))
    return found
