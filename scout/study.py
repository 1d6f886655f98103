"""An Optuna study in a sweep's folder: which trials it has, which are missing, and when one is hopeless.

The study is a journal file, study.log. A trial's number is the name of its run folder. A trial whose process was killed
stays `running` there until its run has come to an end, so that a sweep that is called again finishes it first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from scout.errors import ScoutError
from scout.files import STUDY

NAME = "study"
CONTENTS = "scout"  # the study's attribute that says what it searches

optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.logging.disable_propagation()


@dataclass(frozen=True)
class Search:
    """What a study looks for, and how."""

    space: Mapping[str, BaseDistribution]
    """By key."""
    contents: Mapping[str, str]
    """All that its trials' results depend on, in words: a study with others is another study."""
    direction: Literal["maximize", "minimize"]
    n_trials: int
    """Of the whole study, however often it is interrupted."""
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    """Of the trial with that number: each has a seed of its own, so that an interruption changes no trial."""


class Study:
    """The study of one sweep."""

    def __init__(self, folder: Path, search: Search) -> None:
        """Goes on with the study in the folder, or begins it.

        Raises ScoutError, with the differences, when it is the study of something else.
        """
        self._search = search
        self._study = optuna.create_study(
            storage=storage_in(folder), study_name=NAME, direction=search.direction, load_if_exists=True
        )
        had: dict[str, str] | None = self._study.user_attrs.get(CONTENTS)
        if had is None:
            self._study.set_user_attr(CONTENTS, dict(search.contents))
        elif had != search.contents:
            now = search.contents
            differences = [
                f"{key}: {had.get(key, 'not there')} -> {now.get(key, 'not there')}"
                for key in sorted({*had, *now})
                if had.get(key) != now.get(key)
            ]
            raise ScoutError(
                f"{folder} holds the study of another search (it has -> you ask for):\n  "
                + "\n  ".join(differences)
                + "\nAsk for the same, or begin another study with sweep.name=NAME"
            )

    def next_trials(self, most: int) -> list[tuple[int, dict[str, Any]]]:
        """Number and parameters of up to `most` trials to run now: those that were interrupted, then new ones."""
        trials = self._study.get_trials(deepcopy=False)
        found = [Trial(self._study, trial._trial_id) for trial in trials if not trial.state.is_finished()][:most]
        for number in range(len(trials), min(self._search.n_trials, len(trials) + most - len(found))):
            self._study.sampler = self._search.sampler(number)
            found.append(self._study.ask())
        return [(trial.number, self._parameters(trial)) for trial in found]

    def _parameters(self, trial: Trial) -> dict[str, Any]:
        """Those that the trial has, and draws of the others: a process can die between any two."""
        self._study.sampler = self._search.sampler(trial.number)
        return {key: trial._suggest(key, distribution) for key, distribution in self._search.space.items()}

    def tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Stores how a trial ended."""
        self._study.tell(number, value, state)

    def finished(self, *states: TrialState) -> int:
        """How many trials ended so."""
        return len(self._study.get_trials(deepcopy=False, states=states))


def hopeless_in(folder: Path, number: int, pruner: optuna.pruners.BasePruner) -> Callable[[int, float], bool]:
    """For the job that is a trial: takes each evaluation's number and return; true when the pruner would end it."""
    study = optuna.load_study(storage=storage_in(folder), study_name=NAME, pruner=pruner)
    stored = study.get_trials(deepcopy=False)[number]
    trial, reported = Trial(study, stored._trial_id), set(stored.intermediate_values)

    def hopeless(evaluation: int, value: float) -> bool:
        if evaluation not in reported:  # a run that goes on makes some again
            trial.report(value, evaluation)
        return trial.should_prune()

    return hopeless


def storage_in(folder: Path) -> JournalStorage:
    """Where a sweep's folder keeps its study."""
    return JournalStorage(JournalFileBackend(str(folder / STUDY)))
