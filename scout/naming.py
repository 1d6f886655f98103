"""What a run is called in W&B: by what sets it apart from the plain run of its mission, network, trainer and so on."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scout.config import Experiment
from scout.evaluation_config import EvaluationConfig
from scout.group import Group
from scout.validation import flat, merged

LONGEST = 128  # characters of a name in W&B
_LONGEST_SEED = len(" seed=4294967295")
_LONGEST_WORD = 60

_OPTIONS = (
    "mission",
    "curriculum",
    "model",
    "trainer",
    "optimizer",
    "vecenv",
)  # groups of which one option is chosen, by its name
_MISSIONS = "curriculum.missions"
WITHOUT_EFFECT = (
    *("seed", "resume", "log_interval", "checkpoint", "evaluation", "wandb", "sweep", "device.threads"),
    *("vecenv.worker_timeout", "vecenv.on_worker_failure"),
)
"""Keys and groups that change neither what a run learns, but for chance, nor how."""
NONE_BY_DEFAULT = ("curriculum",)
"""Groups that runs of earlier versions lack, and whose defaults are that there is nothing of them."""
_LEFT_OUT = (*WITHOUT_EFFECT, "device.name", "device.precision")  # left to the machine, and then in the run's config
_SHOWN = ("checkpoint", "policy", "policies", "mission", "episodes", "seed", "greedy")  # of an evaluation

_CONF = Path(__file__).resolve().parent.parent / "conf"


def run_name(experiment: Experiment) -> str:
    """The name that the user gave, else the setting and the seed, in at most 128 characters."""
    return experiment.wandb.name or f"{setting(experiment)} seed={experiment.seed}"


def setting(experiment: Experiment) -> str:
    """All that sets a run apart but its seed; the seeds of one setting share it.

    Mission and network, then each key that is not as its group's option has it: `scout_tutorial conv gamma=0.99`.
    Keys from which nothing is learned are left out: of logging, checkpoints, evaluations, and what `auto` became.
    """
    return _joined([*_options(experiment), *_differences(experiment)], LONGEST - _LONGEST_SEED)


def tags(experiment: Experiment) -> list[str]:
    """Words to find a run by: its mission, network and trainer, and the user's own."""
    names = [getattr(experiment, group).name for group in ("mission", "model", "trainer")]
    names += [experiment.curriculum.name] if experiment.curriculum.missions else []
    ours = [name[:64] for name in names if name]  # W&B takes 1 to 64 characters
    return list(dict.fromkeys([*ours, *experiment.wandb.tags]))


def evaluation_name(config: EvaluationConfig) -> str:
    """The name that the user gave, else what is judged and how, in at most 128 characters: `evaluate policy=random`."""
    usual = EvaluationConfig(policy="-")
    chosen = {key: getattr(config, key) for key in _SHOWN}
    if "name" in (config.mission or {}):  # a mission as a whole
        chosen["mission"] = chosen["mission"]["name"]
    given = flat({key: value for key, value in chosen.items() if value and value != getattr(usual, key)})
    words = ["evaluate", *(_word(key, value) for key, value in given.items())]
    return config.wandb.name or _joined(words, LONGEST)


def _options(experiment: Experiment) -> list[str]:
    """The names of mission and network, and of the other groups' options where they are not the usual ones."""
    usual = Experiment()
    names = {group: getattr(experiment, group).name for group in _OPTIONS}
    return [
        name for group, name in names.items() if group in ("mission", "model") or name != getattr(usual, group).name
    ]


def _differences(experiment: Experiment) -> Iterator[str]:
    """Each key that is not as its group's option has it, as `key=value`, or `~key` where it was taken out."""
    ours, usual = flat(experiment.model_dump()), flat(Experiment().model_dump())
    ours["vecenv.num_envs"] = ours["vecenv.num_envs"] or "auto"
    for group in _OPTIONS:
        chosen = getattr(experiment, group)
        usual = {key: value for key, value in usual.items() if not is_in(key, (group,))}
        usual |= flat({group: _option(group, chosen.name, type(chosen))})
    leaves = [_leaf(key) for key in ours]
    left_out = (*_LEFT_OUT, *(f"{group}.name" for group in _OPTIONS))
    for sign, some, others in (("~", usual, ours), ("+", ours, usual)):  # whole missions of a curriculum
        names = [
            {".".join(key.split(".")[:3]): None for key in keys if is_in(key, (_MISSIONS,))} for keys in (some, others)
        ]
        lacking = [name for name in names[0] if name not in names[1] and name != _MISSIONS]
        yield from (f"{sign}{name}" for name in lacking)
        left_out += tuple(lacking)
    for key in {**ours, **usual}:
        name = _leaf(key) if leaves.count(_leaf(key)) <= 1 else key
        standard = usual.get(key)
        if isinstance(standard, str) and standard.startswith("${"):  # as another key, such as ${mission.num_agents}
            standard = ours.get(standard[2:-1])
        if is_in(key, left_out) or (key not in ours and standard == {}):  # options: {}, into which keys were put
            continue
        if key not in ours:
            yield f"~{name}"
        elif key not in usual or ours[key] != standard:
            yield _word(name, ours[key])


def _option(group: str, name: str, schema: type[Group]) -> dict[str, Any]:
    """The keys of a group's option as conf/ has them; the schema's own where conf/ has no such option."""
    return {**schema().model_dump(), **_read(_options_of(group), name)}


def _options_of(group: str) -> dict[str, Path]:
    return {path.stem: path for path in (_CONF / group).glob("*.yaml")}


def _read(options: dict[str, Path], name: str) -> dict[str, Any]:
    """An option's file over those that it extends."""
    if name not in options:
        return {}
    values = yaml.safe_load(options[name].read_text())
    found: dict[str, Any] = {}
    for base in values.pop("defaults", []):
        if isinstance(base, dict):  # a mission of a curriculum: {/mission@missions.NAME: OPTION}
            ((place, option),) = base.items()
            group, _, package = place.removeprefix("/").partition("@")
            for part in reversed(package.split(".")):
                option = {part: option if isinstance(option, dict) else _read(_options_of(group), option)}
            found = merged(found, option)
        elif base != "_self_":
            found = merged(found, _read(options, base))
    return merged(found, values)


def is_in(key: str, groups: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of these, or in one of these groups."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _word(key: str, value: Any) -> str:
    """A key and its value as one would type them: true, null, 0.0003, [a,b]."""
    return f"{key}={json.dumps(value, separators=(',', ':'), ensure_ascii=False).replace('"', '')}"


def _joined(words: list[str], longest: int) -> str:
    """The words that fit, and how many more there are, with a hash of them all: so no two lists look alike by it."""
    whole = " ".join(words)
    if len(whole) <= longest:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:6]
    words = [word if len(word) <= _LONGEST_WORD else f"{word[: _LONGEST_WORD - 3]}..." for word in words]
    for kept in range(len(words), 0, -1):
        more = f" +{len(words) - kept} more" if kept < len(words) else ""
        name = f"{' '.join(words[:kept])}{more} #{digest}"
        if len(name) <= longest:
            return name
    raise AssertionError("a single word fits")
