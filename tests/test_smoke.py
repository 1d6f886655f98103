"""The smoke experiment, as composed: trained, judged, and judged again after a move."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from scout.cli import compose_experiment
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.training import train

# The seed's run is trained by test_notebook.py, update by update; scout_gpu wants a GPU and many cores.
EXPERIMENTS = {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")} - {"notebook", "scout_gpu"}
SHORTER = {"scout": ["total_timesteps=8192"]}  # two updates of a run of most of an hour


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_an_experiment_is_trained_and_its_reloaded_policy_scores_what_it_scored(name: str, tmp_path: Path) -> None:
    """Every experiment found in conf/ runs to its end, and its run folder, moved, scores exactly the same again."""
    overrides = ["device=cpu", "wandb=disabled", "evaluation.film=false", *SHORTER.get(name, [])]
    experiment = compose_experiment(f"experiment={name}", *overrides)
    result = train(experiment, tmp_path / "run")
    assert result.agent_steps >= experiment.total_timesteps
    assert result.episode_return is not None or name in SHORTER
    first = evaluate(EvaluationConfig(checkpoint=str(tmp_path / "run"), episodes=2), tmp_path / "first")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    again = evaluate(EvaluationConfig(checkpoint=str(tmp_path / "elsewhere"), episodes=2), tmp_path / "again")
    scores = [[episode | {"policy": ""} for episode in found.episodes] for found in (first, again)]
    assert scores[0] == scores[1]
    assert [episode["steps"] for episode in first.episodes] == [1000, 1000]
