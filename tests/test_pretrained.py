"""The scouts that come with the project."""

from pathlib import Path

import pytest
from conftest import run_script

from scout.checkpoint import load_weights
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.pretrained import PRETRAINED


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
    """Less than 15 MB together, without the state of an optimizer or of environments."""
    folder = PRETRAINED["pretrained"].parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 15e6
    contents = load_weights("pretrained")
    assert contents.path.is_relative_to(folder)
    assert contents.experiment is not None
    assert (folder / "README.md").read_text().count("python train.py") == len(PRETRAINED)
