"""The examples run as their first lines say."""

from pathlib import Path

from conftest import ROOT, run_script


def test_the_example_trains_from_python_without_hydra() -> None:
    """It ends with the mean return of the scout that it trained, and imports no Hydra."""
    result = run_script("-X", "importtime", "examples/train_from_python.py")
    assert result.returncode == 0, result.stderr
    assert "Mean return per agent: " in result.stdout
    assert " hydra\n" not in result.stderr


def test_a_network_and_a_mission_of_ones_own_are_trained_and_judged(tmp_path: Path) -> None:
    """`model.target` and `mission.target` name code outside of the package, for training and for evaluation."""
    targets = ["model.target=my_scout.GlanceNet", "mission.target=my_scout.long_day"]
    small = [
        "mission.max_steps=100",
        "total_timesteps=2048",
        "model.hidden_size=8",
        "wandb=disabled",
        "evaluation.film=false",
    ]
    run = f"hydra.run.dir={tmp_path / 'run'}"
    trained = run_script("../train.py", "experiment=smoke", *targets, *small, run, cwd=ROOT / "examples")
    assert trained.returncode == 0, trained.stderr
    assert "GlanceNet" in trained.stderr
    judged = run_script(
        "../evaluate.py",
        f"checkpoint={tmp_path / 'run'}",
        "episodes=2",
        f"hydra.run.dir={tmp_path / 'judged'}",
        cwd=ROOT / "examples",
    )
    assert judged.returncode == 0, judged.stderr
    assert "no_weather" in judged.stderr
