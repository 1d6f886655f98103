"""Who is judged: checkpoints, sweeps and baselines by name, all on one mission."""

from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_experiment
from evaluation_helpers import network_of, run_folder

from scout.contestants import make_contestants
from scout.errors import ScoutError
from scout.evaluation_config import EvaluationConfig


def make_run(path: Path, **changes: Any) -> Path:
    """A run folder with a checkpoint and a status, as a finished run leaves it."""
    folder = run_folder(path, tiny_experiment(**changes), network_of(1))
    (folder / "status.json").write_text('{"state": "finished"}')
    return folder


def names_of(*policies: object, **changes: Any) -> list[str]:
    """The names of those whom `policies=[...]` makes, in their order."""
    config = EvaluationConfig(policies=[str(policy) for policy in policies], **changes)
    return [contestant.name for contestant in make_contestants(config)[0]]


def test_checkpoints_and_baselines_keep_their_order(tmp_path: Path) -> None:
    """Runs, single checkpoints and baselines come in the order in which they were named, under those names."""
    run = make_run(tmp_path / "run")
    policies = ["random", run, run / "checkpoints/000001.pt", "cogames/starter", "noop"]
    assert names_of(*policies) == [str(policy) for policy in policies]


def test_a_sweeps_folder_is_all_its_runs_in_their_order(tmp_path: Path) -> None:
    """Run 10 comes after run 2, and a run that has no checkpoint yet is left out."""
    (tmp_path / "sweep").mkdir()
    for number in (10, 0, 2):
        make_run(tmp_path / f"sweep/{number}", seed=number)
    (tmp_path / "sweep/3").mkdir()
    (tmp_path / "sweep/3/status.json").write_text('{"state": "failed"}')
    assert names_of(tmp_path / "sweep") == [str(tmp_path / f"sweep/{number}") for number in (0, 2, 10)]


def test_both_judges_each_network_either_way(tmp_path: Path) -> None:
    """greedy=both makes two of each network, and one of a baseline, which has no logits."""
    run = make_run(tmp_path / "run")
    assert names_of(run, "random", greedy="both") == [str(run), f"{run} (greedy)", "random"]


def test_runs_of_different_missions_need_one_to_be_chosen(tmp_path: Path) -> None:
    """Runs of 25 and of 30 steps are refused with their missions, unless a mission is named for all of them."""
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two", mission={"max_steps": 30, "name": "long"})]
    with pytest.raises(ScoutError, match=r"different missions \(.*one: scout_tutorial, .*two: long\); choose"):
        names_of(*runs)
    with pytest.raises(ScoutError, match="different missions"):
        names_of(*runs, mission={"heart_limit": 3})
    assert len(names_of(*runs, mission=tiny_experiment().mission.model_dump())) == 2


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (
            ["randm"],
            r"policies=randm is neither a baseline nor a run folder.*did you mean random\? valid: cogames/NAME",
        ),
        (["random", "noop", "random"], "random is in it more than once"),
        (["cogames/startr"], r"policy=cogames/startr is unknown; did you mean cogames/starter\?"),
        (["."], r"policies=\. has no run with a checkpoint in it"),
    ],
)
def test_whom_nobody_knows_is_an_error(
    policies: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is neither a baseline nor a path, a repeated one and a folder without runs are each one message."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScoutError, match=message):
        names_of(*policies)


def test_a_model_is_for_a_bare_state_dict_alone(tmp_path: Path) -> None:
    """model= beside runs, which have their own networks, has no effect and is refused."""
    with pytest.raises(ScoutError, match=r"model=cnn_lstm has no effect: .*run has its own; leave it out"):
        names_of(make_run(tmp_path / "run"), "random", model=tiny_experiment().model)
