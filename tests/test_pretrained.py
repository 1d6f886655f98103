"""The scouts that come with the project."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_script
from evaluation_helpers import ENV_INFO

from scout.checkpoint import load_weights
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.model_config import CnnLstmConfig
from scout.models.cnn_lstm import CnnLstm
from scout.pretrained import PRETRAINED

FOLDER = PRETRAINED["pretrained"].parent


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_pretrained_scout_explores(name: str, tmp_path: Path) -> None:
    """By its name it is found from any folder, and on two maps it earns far more than random moves, which earn 7."""
    result = evaluate(EvaluationConfig(checkpoint=name, episodes=2), tmp_path)
    assert [episode["policy"] for episode in result.episodes] == [name, name]
    assert min(episode["return"] for episode in result.episodes) > 20


def test_evaluate_finds_it_by_name(tmp_path: Path) -> None:
    """`policies=[pretrained,random]` judges it beside a baseline; its own mission is taken."""
    done = run_script("evaluate.py", "policies=[pretrained,random]", "episodes=1", f"hydra.run.dir={tmp_path / 'e'}")
    assert done.returncode == 0, done.stderr
    assert "pretrained" in done.stdout


def test_they_are_small_and_hold_weights_alone() -> None:
    """Less than 15 MB together, without the state of an optimizer or of environments; one has its config."""
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 15e6
    contents = load_weights("pretrained")
    assert contents.path.is_relative_to(FOLDER)
    assert contents.experiment is not None
    assert torch.load(contents.path, weights_only=True).keys() == {"model", "agent_steps"}
    assert (
        torch.load(PRETRAINED["pretrained/cnn_lstm"], weights_only=True).keys()
        == CnnLstm(ENV_INFO, CnnLstmConfig()).state_dict().keys()
    )


def test_it_is_told_how_each_was_made() -> None:
    """README.md beside them has the command of each."""
    assert (FOLDER / "README.md").read_text().count("    python train.py") == len(PRETRAINED)


@pytest.mark.slow
def test_cogames_itself_plays_the_seeds_network() -> None:
    """`cogames eval` with its own tutorial policy takes the file, and an episode earns far more than random moves."""
    cogames = Path(sys.executable).with_name("cogames")
    policy = f"class=tutorial,data={PRETRAINED['pretrained/cnn_lstm']}"
    command = [cogames, "eval", "-m", "scout_tutorial", "-p", policy, "-e", "1", "--format", "json"]
    done = subprocess.run([*command, "--action-timeout-ms", "10000"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout[done.stdout.index("{") :])
    ((returns,),) = (
        mission["mission_summary"]["per_episode_per_policy_avg_rewards"].values() for mission in result["missions"]
    )
    assert returns[0] > 20
