"""What an evaluation plays: the run's mission and network, or others that are named beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_experiment
from evaluation_helpers import TINY_MODEL, network_of, run_folder

from scout.config import MissionConfig
from scout.errors import ScoutError
from scout.evaluation import EvaluationResult, evaluate
from scout.evaluation_config import EvaluationConfig
from scout.model_config import CnnLstmConfig


@pytest.mark.parametrize(
    ("mission", "agents", "steps"),
    [
        (None, 2, 9),
        ({"max_steps": 7}, 2, 7),
        ({"team": {"wealth": 1}}, 2, 9),
        (MissionConfig(max_steps=7).model_dump(), 4, 7),
        ({"name": "mine", "max_steps": 7}, 2, 7),
    ],
    ids=["the run's", "one key", "one key of a group", "a whole group", "a name of one's own"],
)
def test_the_mission_is_the_runs_with_single_keys_or_another_one(
    mission: dict[str, Any] | None, agents: int, steps: int, small_run: Path, judge: Callable[..., EvaluationResult]
) -> None:
    """Single keys change the run's mission; a named one takes its place whole, and nothing of the run's remains."""
    config = EvaluationConfig(checkpoint=str(small_run), episodes=1, mission=mission)
    output_dir = small_run.parent / "output"
    output_dir.mkdir()
    (episode,) = evaluate(config, output_dir).episodes
    assert (len(episode["agent_returns"]), episode["steps"]) == (agents, steps)


def test_single_keys_of_a_group_leave_its_other_keys_as_they_were(
    judge: Callable[..., EvaluationResult], tmp_path: Path
) -> None:
    """With the rewards for gear set to 0, only the run's own weight of visits is left: 0.01 for each."""
    weights = {"scout_gained": 2.0, "scout_lost": -2.0, "cell_visited": 0.01}
    run_dir = run_folder(tmp_path / "run", tiny_experiment(mission={"rewards": weights}), network_of(1))
    changes = {"max_steps": 200, "rewards": {"scout_gained": 0.0, "scout_lost": 0.0}}
    result = judge(checkpoint=str(run_dir), mission=changes)
    for episode in result.episodes:
        assert episode["return"] == pytest.approx(0.01 * episode["cell_visited"], rel=1e-4)


@pytest.mark.parametrize(
    ("mission", "message"),
    [
        ({"max_stepz": 7}, r"mission\.max_stepz=7 is not a key in mission; did you mean max_steps\?"),
        ({"max_steps": "seven"}, r"mission\.max_steps=seven is not valid"),
        ({"team": {"welth": 1}}, r"mission\.team\.welth=1 is not a key"),
        ({"max_steps": {"first": 1}}, r"mission\.max_steps="),
    ],
)
def test_a_wrong_key_of_the_mission_is_an_error_that_names_it(
    mission: dict[str, Any], message: str, judge: Callable[..., EvaluationResult]
) -> None:
    """A key of the mission that does not exist or does not fit is told under the name that the user gave it."""
    with pytest.raises(ScoutError, match=message):
        judge(mission=mission)


def test_a_model_beside_a_run_is_refused(judge: Callable[..., EvaluationResult], small_run: Path) -> None:
    """A run folder has the sizes of its network, so model= would have no effect."""
    with pytest.raises(ScoutError, match=r"^model=cnn_lstm has no effect: .*small has its own; leave it out$"):
        judge(checkpoint=str(small_run), model=CnnLstmConfig().model_dump())


def test_a_model_beside_a_baseline_is_refused(judge: Callable[..., EvaluationResult]) -> None:
    """A baseline has no network, so model= would have no effect."""
    with pytest.raises(ScoutError, match=r"^model=cnn_lstm has no effect with policy=noop: leave it out$"):
        judge(policy="noop", model=CnnLstmConfig().model_dump())


def test_a_bare_state_dict_is_played_with_the_sizes_that_are_given(
    judge: Callable[..., EvaluationResult], small_run: Path, tmp_path: Path
) -> None:
    """The weights alone, with model= and mission= beside them, score what the run that made them scores."""
    path = tmp_path / "weights.pt"
    torch.save(network_of(1).state_dict(), path)
    bare = judge(checkpoint=str(path), model=TINY_MODEL.model_dump(), mission={"num_agents": 2, "max_steps": 9})
    of_run = judge(checkpoint=str(small_run), mission=None)
    assert [one["agent_returns"] for one in bare.episodes] == [one["agent_returns"] for one in of_run.episodes]


def test_a_bare_state_dict_of_other_sizes_is_an_error(judge: Callable[..., EvaluationResult], tmp_path: Path) -> None:
    """Without model= the seed's sizes are meant; weights of others are refused with what differs."""
    path = tmp_path / "weights.pt"
    torch.save(network_of(1).state_dict(), path)
    with pytest.raises(ScoutError, match=r"weights\.pt is of another architecture: .* is \[4, .* expected \[64, "):
        judge(checkpoint=str(path))
