"""Which run to go on with, under which config: `resume=RUN_DIR` and `resume=auto`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from scout.config import AUTO, Experiment
from scout.errors import ScoutError
from scout.files import CONFIG, ENDED, STATUS
from scout.naming import NONE_BY_DEFAULT, is_in
from scout.run_folder import is_running, load_experiment
from scout.validation import flat, validate

_EPISODES = "its environments are in the middle of episodes"
_FIXED = {
    "seed": "its maps and environments come from it",
    "mission": f"{_EPISODES}, and its network fits the mission's spaces",
    "curriculum": f"{_EPISODES}, each of the mission whose turn it was",
    "model": "the network is the one that was trained",
    "initial_weights": "the network has weights of its own by now",
    "trainer.batch_size": "its updates and its learning rate are counted in batches of this size",
    "trainer.bptt_horizon": "its updates and its learning rate are counted in batches made of it",
    "trainer.name": "the algorithms do not share their state",
    "optimizer.name": "the optimizers do not share their state",
    "vecenv.num_envs": _EPISODES,
    "vecenv.map_seeds": _EPISODES,
    "vecenv.early_reset": _EPISODES,
    "vecenv.stale_first_action": _EPISODES,
}


def with_overrides(run_dir: Path, composed: dict[str, Any], keys: Iterable[str]) -> Experiment:
    """A run's experiment with the keys that the command line names, dotted, as they are in the composed config.

    Of another option of a group, such as vecenv=multiprocessing, all keys are taken but those that cannot change.
    Raises ScoutError when the run's config cannot be read, or does not fit together with those keys.
    """
    values = load_experiment(run_dir).model_dump()
    for key in keys:
        *groups, leaf = key.split(".")
        source, target = composed, values
        for group in groups:
            source, target = source.get(group) or {}, target.setdefault(group, {})
        if leaf in source and isinstance(source[leaf], dict) and key not in _FIXED:  # a group's option
            keeps = {name for name in target[leaf] if f"{key}.{name}" in _FIXED and name != "name"}
            target[leaf] = {**source[leaf], **{name: target[leaf][name] for name in keeps}}
        elif leaf in source:
            target[leaf] = source[leaf]
        else:  # removed with ~
            target.pop(leaf, None)
    return validate(Experiment, {**values, "resume": None})


def changes(before: Experiment, after: Experiment) -> list[str]:
    """What differs, as `key: old -> new`. Raises ScoutError for what cannot change within a run, with the reason."""
    old, new = flat(before.model_dump()), flat(after.model_dump())
    differing = [key for key in {**old, **new} if key != "resume" and old.get(key) != new.get(key)]
    ours, theirs = (list(each.curriculum.missions) for each in (before, after))
    if ours != theirs:  # else a line for each of its keys
        differing = [key for key in differing if not key.startswith("curriculum.missions")] + ["curriculum.missions"]
        old["curriculum.missions"], new["curriculum.missions"] = ours, theirs
    refused = [
        f"{key}={new.get(key)} cannot be resumed with, the run has {old.get(key)}: {reason}"
        for key in differing
        for fixed, reason in _FIXED.items()
        if key == fixed or key.startswith(f"{fixed}.")
    ]
    if refused:
        hint = "Leave it out, or start a new run from this one's network with initial_weights=RUN_DIR"
        raise ScoutError("\n".join([*refused, hint]))
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in differing]


def unfinished_run(asked: Experiment, folders: Iterable[Path]) -> Path | None:
    """The newest of the folders that holds an unfinished run of the same config, which no process is training."""
    candidates = []
    for folder in folders:
        state, started = run_of(asked, folder)
        if state not in (None, *ENDED) and not is_running(folder):
            candidates.append((started, folder))
    return max(candidates)[1] if candidates else None


def run_of(asked: Experiment, folder: Path) -> tuple[str | None, str]:
    """State and start of a folder's run of the same config; None where there is no such run."""
    try:
        status = json.loads((folder / STATUS).read_text())
        same = is_same(asked, flat(yaml.safe_load((folder / CONFIG).read_text())))
        return (str(status["state"]), str(status["started"])) if same else (None, "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None, ""


def is_same(asked: Experiment, theirs: dict[str, Any]) -> bool:
    """Whether a stored config, as dotted keys, is what was asked for.

    What is left to the machine (`auto`) has been chosen in it.
    """
    ours = flat(asked.model_dump())
    for group in NONE_BY_DEFAULT:
        if not any(is_in(key, (group,)) for key in theirs):
            theirs = theirs | {
                key: value for key, value in flat(Experiment().model_dump()).items() if is_in(key, (group,))
            }
    free = {"resume", *(key for key in {**ours, **theirs} if key.startswith("sweep."))}
    if asked.vecenv.num_envs == AUTO:
        free |= {"vecenv.num_envs", "device.threads"}
    if asked.device.precision == "auto":
        free.add("device.precision")
    return all(ours.get(key) == theirs.get(key) for key in {**ours, **theirs} if key not in free)
