"""`python train.py` and `python evaluate.py` from the shell: what they print, their exit codes, and Ctrl-C."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import run_script, tiny_experiment, tiny_overrides

from scout.checkpoint import load_experiment


def status_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def contents_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_training_exits_0_and_ends_by_saying_how_to_judge_and_to_watch(tmp_path: Path) -> None:
    """`python train.py` makes the run that its overrides describe; terminal and log end with commands to type next."""
    run_dir = tmp_path / "run"
    done = run_script("train.py", *tiny_overrides(), f"hydra.run.dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert status_of(run_dir)["state"] == "finished"
    assert load_experiment(run_dir) == tiny_experiment()
    *_, trained, judge, watch = done.stderr.splitlines()
    assert trained.startswith("Trained 512 agent steps")
    assert re.fullmatch(rf"Judge it: \S*python evaluate\.py checkpoint={run_dir}", judge)
    assert re.fullmatch(rf"Watch it: \S*python evaluate\.py checkpoint={run_dir} render=true", watch)
    date = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO "
    assert re.sub(date, "", (run_dir / "train.log").read_text(), flags=re.MULTILINE) == done.stderr


def test_an_evaluation_exits_0_and_prints_the_table(finished_run: Path, tmp_path: Path) -> None:
    """`python evaluate.py checkpoint=RUN episodes=2` writes two episodes, and prints one row with their mean."""
    done = run_script("evaluate.py", f"checkpoint={finished_run}", "episodes=2", f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    header = next(line for line in done.stdout.splitlines() if "95% interval" in line)
    for column in ("episodes", "return", "95% interval", "IQM", "gear", "deaths", "cells"):
        assert column in header
    first, second = json.loads((tmp_path / "episodes.json").read_text())
    mean = (first["return"] + second["return"]) / 2
    assert re.search(rf" 2 +{mean:.2f} ", done.stdout, flags=re.MULTILINE) is not None


def test_a_missing_checkpoint_exits_1_with_one_message(tmp_path: Path) -> None:
    """The message names the path and what was expected; there is no traceback and nothing on stdout."""
    done = run_script("evaluate.py", f"checkpoint={tmp_path / 'nowhere'}", f"hydra.run.dir={tmp_path / 'evaluation'}")
    expected = (
        f"{tmp_path / 'nowhere'} does not exist: expected a run folder, a checkpoint, a state_dict or pretrained\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_training_into_the_folder_of_a_run_exits_1_and_changes_nothing(finished_run: Path, tmp_path: Path) -> None:
    """The earlier run is named, without a traceback, and not a byte in its folder changes, its log included."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    (run_dir / "train.log").write_text("the first run's log\n")
    before = contents_of(run_dir)
    done = run_script("train.py", *tiny_overrides(seed=2), f"hydra.run.dir={run_dir}")
    assert done.returncode == 1
    message = (
        f"{run_dir} already holds a run: choose another folder with hydra.run.dir=DIR, "
        "or go on with that run with resume=DIR"
    )
    assert done.stderr.splitlines()[-1] == message
    assert "Traceback" not in done.stderr
    assert contents_of(run_dir) == before


def test_a_sweep_makes_one_complete_run_folder_per_value(train_tiny: Callable[..., Path], tmp_path: Path) -> None:
    """`-m seed=1,2` trains both seeds, each into a folder of its own, where it learns what it would learn alone."""
    sweep = ("-m", "seed=1,2", "model=cnn_lstm", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    done = run_script("train.py", *sweep, *tiny_overrides())
    assert done.returncode == 0, done.stderr

    def losses(run_dir: Path) -> list[float]:
        return [value for line in metrics_of(run_dir) for key, value in line.items() if key.startswith("losses/")]

    for seed in (1, 2):
        run_dir = tmp_path / "sweep" / str(seed - 1)
        assert {path.name for path in run_dir.iterdir()} == {
            *("checkpoints", "config.yaml", "metrics.jsonl", "status.json", "train.log", "versions.json")
        }
        assert status_of(run_dir)["state"] == "finished"
        assert load_experiment(run_dir) == tiny_experiment(seed=seed)
        assert losses(run_dir) == losses(train_tiny(f"alone_{seed}", seed=seed))
    assert losses(tmp_path / "sweep" / "0") != losses(tmp_path / "sweep" / "1")
