"""Sweeps by Optuna: which trials a study makes, when it gives one up, and what it does after it was killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import run_script, wait_until
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from test_sweeps import begin, has_checkpoint, status_of, summary_of

from scout.errors import ScoutError
from scout.search import distribution_of
from scout.study import Search, Study, hopeless_in, storage_in

SPACE: dict[str, BaseDistribution] = {
    "trainer.gamma": FloatDistribution(0.5, 1.0),
    "model": CategoricalDistribution(("conv", "cnn_lstm")),
}


def search_for(n_trials: int, **contents: str) -> Search:
    """A search by TPE that draws four trials at random before it begins to learn."""

    def sampler(number: int) -> optuna.samplers.TPESampler:
        return optuna.samplers.TPESampler(seed=7 + number, n_startup_trials=4)

    return Search(SPACE, contents, "maximize", n_trials, sampler)


def value_of(parameters: dict[str, Any]) -> float:
    """What a trial would return: best at gamma 0.8 with conv."""
    return -((parameters["trainer.gamma"] - 0.8) ** 2) + (parameters["model"] == "conv")


# -- which trials ------------------------------------------------------------------------------------------------------


def test_a_study_makes_as_many_trials_as_it_was_asked_for_and_learns(tmp_path: Path) -> None:
    """Twelve trials one by one, and no thirteenth; the best of those after the random ones is the best of all."""
    study, values = Study(tmp_path, search_for(12)), []
    while trials := study.next_trials(1):
        ((number, parameters),) = trials
        values.append(value_of(parameters))
        study.tell(number, TrialState.COMPLETE, values[-1])
    assert len(values) == 12
    assert max(values[4:]) > max(values[:4])
    assert study.finished(TrialState.COMPLETE) == 12


def test_a_study_that_was_killed_makes_the_missing_trials_and_those_alone(tmp_path: Path) -> None:
    """Killed before, and after, each trial's end, it comes to the very trials of a study that was left alone."""
    alone = Study(tmp_path, search_for(8))
    expected = []
    while trials := alone.next_trials(1):
        expected += trials
        alone.tell(trials[0][0], TrialState.COMPLETE, value_of(trials[0][1]))
    folder = tmp_path / "killed"
    folder.mkdir()
    found = []
    while trials := Study(folder, search_for(8)).next_trials(1):
        assert Study(folder, search_for(8)).next_trials(1) == trials  # what was begun is gone on with
        found += trials
        Study(folder, search_for(8)).tell(trials[0][0], TrialState.COMPLETE, value_of(trials[0][1]))
    assert found == expected


def test_trials_that_failed_or_were_given_up_count(tmp_path: Path) -> None:
    """A failed trial is not made again and ends nothing; a study that is asked for more makes the difference."""
    study = Study(tmp_path, search_for(3))
    for state in (TrialState.FAIL, TrialState.PRUNED):
        ((number, _),) = study.next_trials(1)
        study.tell(number, state)
    assert [number for number, _ in study.next_trials(5)] == [2]
    assert [number for number, _ in Study(tmp_path, search_for(5)).next_trials(5)] == [2, 3, 4]


def test_a_study_of_another_search_is_refused_with_the_differences(tmp_path: Path) -> None:
    """What it has and what is asked for, of each key that differs or that one of them lacks."""
    Study(tmp_path, search_for(3, seed="1", model="conv,cnn_lstm"))
    with pytest.raises(ScoutError) as refusal:
        Study(tmp_path, search_for(3, model="conv,attention", gamma="interval(0.9,1)"))
    assert str(refusal.value).splitlines() == [
        f"{tmp_path} holds the study of another search (it has -> you ask for):",
        "  gamma: not there -> interval(0.9,1)",
        "  model: conv,cnn_lstm -> conv,attention",
        "  seed: 1 -> not there",
        "Ask for the same, or begin another study with sweep.name=NAME",
    ]


# -- when a trial is hopeless ------------------------------------------------------------------------------------------


def test_a_trial_below_the_median_of_the_others_is_hopeless(tmp_path: Path) -> None:
    """Three trials had 1, 2 and 3 in their second evaluation: 1.9 is given up there, 2.1 is not."""
    study, pruner = Study(tmp_path, search_for(5)), optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    for value in (1.0, 2.0, 3.0):
        ((number, _),) = study.next_trials(1)
        report = hopeless_in(tmp_path, number, pruner)
        assert not report(1, 0.0)
        assert not report(2, value)
        study.tell(number, TrialState.COMPLETE, value)
    verdicts = []
    for value in (1.9, 2.1):
        ((number, _),) = study.next_trials(1)
        report = hopeless_in(tmp_path, number, pruner)
        verdicts += [report(1, -9.0), report(2, value)]
        study.tell(number, TrialState.PRUNED)
    assert verdicts == [False, True, False, False]


def test_a_run_that_goes_on_may_make_an_evaluation_again(tmp_path: Path) -> None:
    """What was reported before stays, and there is no warning about it."""
    number = Study(tmp_path, search_for(1)).next_trials(1)[0][0]
    pruner = optuna.pruners.NopPruner()
    hopeless_in(tmp_path, number, pruner)(1, 0.5)
    assert not hopeless_in(tmp_path, number, pruner)(1, 0.7)
    stored = optuna.load_study(study_name="study", storage=storage_in(tmp_path)).trials[0]
    assert stored.intermediate_values == {1: 0.5}


# -- what is searched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("a=1,x", CategoricalDistribution(("1", "x"))),
        ("a=choice(conv,cnn_lstm)", CategoricalDistribution(("conv", "cnn_lstm"))),
        ("a=interval(0.5,2.0)", FloatDistribution(0.5, 2.0)),
        ("a=tag(log,interval(1e-4,0.01))", FloatDistribution(1e-4, 0.01, log=True)),
        ("a=int(interval(2,8))", IntDistribution(2, 8)),
        ("a=interval(2,8)", FloatDistribution(2.0, 8.0)),
        ("a=range(1,10,4)", IntDistribution(1, 9, step=4)),
        ("a=range(3)", IntDistribution(0, 2)),
    ],
)
def test_hydras_words_for_values_are_optunas_distributions(override: str, distribution: BaseDistribution) -> None:
    """Each way to write several values is the distribution that it says."""
    assert distribution_of(OverridesParser.create().parse_override(override)) == distribution


def test_an_interval_without_numbers_in_it_is_refused() -> None:
    """The message names the override."""
    with pytest.raises(ScoutError, match=r"a=interval\(2,1\) is not valid"):
        distribution_of(OverridesParser.create().parse_override("a=interval(2,1)"))


# -- from the shell ----------------------------------------------------------------------------------------------------

KEYS = ("optimizer.learning_rate", "trainer.ent_coef", "trainer.gamma")  # of conf/sweep/optuna.yaml, and model


def test_mistakes_are_answered_before_the_first_trial(tmp_path: Path) -> None:
    """A search without values, with an unknown key, and for a metric that is never logged: one message each."""
    messages = {
        (*(f"{key}=0.9" for key in KEYS), "model=conv"): "sweep=optuna has nothing to search: give a key several",
        ("trainer.gama=interval(0.9,0.99)",): "trainer.gama=interval(0.9,0.99) is not a key in trainer; did you mean",
        ("evaluation.every=null",): "sweep.objective=evaluation/return needs evaluations: set evaluation.every",
        ("model=choice(conv,cnn_lsm)",): "Could not find 'model/cnn_lsm'",
        ("trainer.gamma=interval(0.9,1.5)",): "trainer.gamma=1.5 is not valid",
        ("hydra.sweeper.pruner._target_=optuna.pruners.NopPruner",): "hydra.sweeper.pruner cannot be made (TypeError: ",
        ("hydra.sweeper.seed=null",): "hydra.sweeper.seed=None is not valid: expected an integer from 0 on",
        ("hydra.sweeper.n_trials=0",): "hydra.sweeper.n_trials=0 is not valid: expected an integer from 1 on",
    }
    for overrides, message in messages.items():
        done = run_script("train.py", "sweep=optuna", *overrides, f"hydra.sweep.dir={tmp_path / 'sweep'}")
        assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
        assert not (tmp_path / "sweep").exists()


SEARCH = (
    *("sweep=optuna", *(f"{key}=0.001" for key in KEYS[1:]), "model=cnn_lstm", "hydra.sweeper.n_trials=4"),
    *("evaluation.every=1024", "evaluation.episodes=2", "hydra.sweeper.pruner.n_startup_trials=2"),
    "hydra.sweeper.pruner.n_warmup_steps=0",
)


def parameters_of(sweep: Path) -> dict[str, str]:
    """The learning rate of each trial, as it was given to the job."""
    jobs = json.loads((sweep / "jobs.json").read_text())
    return {name: next(line for line in job if line.startswith(KEYS[0])) for name, job in jobs.items()}


@pytest.mark.slow
def test_a_search_that_was_killed_finishes_the_trials_that_are_missing(tmp_path: Path) -> None:
    """Killed in its second trial and called again, a search comes to what one that was left alone comes to.

    The same four trials, the interrupted one gone on with, each with the same end and the same objective.
    """
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert begin(alone, *SEARCH).wait(180) == 0
    process = begin(killed, *SEARCH)
    wait_until(lambda: has_checkpoint(killed / "1"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert begin(killed, *SEARCH).wait(180) == 0
    assert "resumed" not in status_of(killed / "0")
    assert len(status_of(killed / "1")["resumed"]) == 1
    assert parameters_of(killed) == parameters_of(alone)
    assert len(parameters_of(killed)) == 4
    rows = [
        [(row["folder"], row["status"], row["evaluation/return"]) for row in summary_of(at)] for at in (alone, killed)
    ]
    assert rows[0] == rows[1]
    states = [trial.state for trial in optuna.load_study(study_name="study", storage=storage_in(killed)).trials]
    assert [state.is_finished() for state in states] == [True] * 4
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.slow
def test_an_interrupted_trial_is_finished_when_the_search_is_called_again(tmp_path: Path) -> None:
    """Ctrl-C, with a launcher that runs a single job in the sweep's process: exit code 130, and no trial is lost."""
    search = (*SEARCH, "hydra/launcher=joblib", "hydra.sweeper.n_trials=2")
    process = begin(tmp_path, *search)
    wait_until(lambda: has_checkpoint(tmp_path / "0"))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert [trial.state for trial in optuna.load_study(study_name="study", storage=storage_in(tmp_path)).trials] == [
        TrialState.RUNNING
    ]
    assert begin(tmp_path, *search).wait(120) == 0
    assert len(status_of(tmp_path / "0")["resumed"]) == 1
    assert len(optuna.load_study(study_name="study", storage=storage_in(tmp_path)).trials) == 2


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(tmp_path: Path) -> None:
    """A search over difficulties, one of which does not exist, ends well, with its failed trials in the summary."""
    fixed = ("optimizer.learning_rate=0.001", *SEARCH[:4], "hydra.sweeper.n_trials=5", "evaluation.every=1024")
    process = begin(tmp_path, *fixed, "evaluation.episodes=2", "mission.difficulty=choice(easy,brutal)")
    assert process.wait(180) == 0
    rows = summary_of(tmp_path)
    assert {row["status"] for row in rows} == {"finished", "failed"}
    assert len(rows) == 5
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["error"] for row in failed} == {"mission.difficulty=brutal is unknown; valid: easy, hard, medium"}
