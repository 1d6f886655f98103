"""The run folder: the record of one run, complete, never overwritten, and honest about how the run ended."""

import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, tiny_experiment

from scout.checkpoint import load_experiment
from scout.errors import ScoutError
from scout.run_folder import RunFolder
from scout.training import train


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """One object per line of metrics.jsonl, read as strict JSON: NaN and Infinity are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def status_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())


def begun(run_dir: Path) -> RunFolder:
    """The folder of a run that has begun."""
    folder = RunFolder(run_dir)
    folder.start(tiny_experiment())
    return folder


def contents_of(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of each file, None for folders."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def test_a_finished_run_leaves_its_files_and_no_others(finished_run: Path) -> None:
    """The folder holds the record, the checkpoints and W&B's files, and nothing half-written lies about."""
    expected = {"checkpoints", "config.yaml", "metrics.jsonl", "status.json", "versions.json", "wandb"}
    assert {path.name for path in finished_run.iterdir()} == expected
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"000001.pt", "000002.pt"}


def test_the_config_loads_back_to_the_same_experiment(finished_run: Path) -> None:
    """config.yaml holds every key of the run, so that reading it gives an equal experiment."""
    assert load_experiment(finished_run) == tiny_experiment(wandb={"mode": "offline"})


def test_the_versions_are_those_of_this_python_its_packages_and_this_checkout(tmp_path: Path) -> None:
    """versions.json names python, the installed packages, and the commit and changed files that git itself names."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.rstrip() if done.returncode == 0 else None

    RunFolder(tmp_path / "run")
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["python"] == platform.python_version()
    assert {"cogames", "mettagrid", "pufferlib-core", "torch", "wandb"} <= versions["packages"].keys()
    assert versions["packages"] == {name: metadata.version(name) for name in versions["packages"]}
    assert versions["git"]["commit"] == git("rev-parse", "HEAD")
    assert versions["git"]["changed_files"] == (git("status", "--porcelain") or "").splitlines()


def test_a_finished_run_says_so(finished_run: Path) -> None:
    """status.json says finished, how far the run came, when, and in which process; there is no reason."""
    status = status_of(finished_run)
    assert status.keys() == {"state", "started", "process", "ended", "agent_steps", "wandb_id"}
    assert status["state"] == "finished"
    assert status["agent_steps"] == 512
    assert status["process"] == os.getpid()
    assert datetime.fromisoformat(status["started"]) <= datetime.fromisoformat(status["ended"])


def test_a_run_that_is_on_its_way_says_so(tmp_path: Path) -> None:
    """status.json says running from the start until the run ends."""
    folder = begun(tmp_path / "run")
    assert status_of(folder.path)["state"] == "running"
    folder.finish("finished")
    assert status_of(folder.path)["state"] == "finished"


def test_there_is_one_line_of_metrics_per_update(train_tiny: Callable[..., Path]) -> None:
    """600 steps are 3 updates of 256: each has its line, once and in order, and the last goes beyond the total."""
    lines = metrics_of(train_tiny(total_timesteps=600))
    assert [line["update"] for line in lines] == [1, 2, 3]
    assert [line["agent_steps"] for line in lines] == [256, 512, 768]


def test_each_line_has_losses_statistics_of_episodes_and_timings(finished_run: Path) -> None:
    """Every update has the trainer's losses, the environment's statistics and its timings, which agree."""
    for line in metrics_of(finished_run):
        for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance"):
            assert isinstance(line[f"losses/{name}"], float)
        assert line["environment/episodes"] >= 1
        assert line["environment/agent/cell.visited"] > 0
        assert line["performance/peak_memory_mb"] > 0
        seconds = line["performance/rollout_seconds"] + line["performance/update_seconds"]
        assert line["performance/SPS"] == pytest.approx(256 / seconds)


def test_each_line_has_the_learning_rate_that_its_update_used(finished_run: Path) -> None:
    """The cosine over two updates starts at the configured rate, and is half-way down for the second."""
    rates = [line["optimizer/learning_rate"] for line in metrics_of(finished_run)]
    assert rates == pytest.approx([0.00092, 0.00092 / 2])


def test_a_metric_that_is_not_finite_is_null(tmp_path: Path) -> None:
    """nan and both infinities become null, other values stay as they are, and the line is valid JSON."""
    folder = begun(tmp_path / "run")
    folder.log({"update": 1, "nan": math.nan, "up": math.inf, "down": -math.inf, "half": 0.5})
    assert metrics_of(folder.path) == [{"update": 1, "nan": None, "up": None, "down": None, "half": 0.5}]


def test_a_line_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    """A reader sees each update's line while the run is still on its way."""
    folder = begun(tmp_path / "run")
    for update in (1, 2):
        folder.log({"update": update})
        assert metrics_of(folder.path)[-1] == {"update": update}


def test_a_folder_that_holds_a_run_is_refused_and_stays_as_it_was(finished_run: Path, tmp_path: Path) -> None:
    """Training into the folder of an earlier run is an error that names it, and not a byte in it changes."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    before = contents_of(run_dir)
    with pytest.raises(ScoutError, match=r"run already holds a run: choose another folder with hydra\.run\.dir=DIR"):
        train(tiny_experiment(seed=2), run_dir)
    assert contents_of(run_dir) == before


def test_a_folder_that_holds_only_a_log_is_taken(tmp_path: Path) -> None:
    """Hydra opens train.log in the folder before the run begins, which does not make it the folder of a run."""
    (tmp_path / "train.log").write_text("so far\n")
    begun(tmp_path)
    assert status_of(tmp_path)["state"] == "running"
    assert (tmp_path / "train.log").read_text() == "so far\n"


@pytest.mark.parametrize("below", [".", "run", "deep/run"])
def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(below: str, tmp_path: Path) -> None:
    """No folder can be made where, or below where, a regular file lies; the file stays as it was."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ScoutError, match=r"file.* cannot be written .*: choose another folder with hydra\.run\.dir="):
        RunFolder(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_ends_the_run_as_failed(tmp_path: Path) -> None:
    """When metrics.jsonl cannot be written any more, the run fails with that as its reason."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(ScoutError, match=r"metrics\.jsonl cannot be written \(No space left on device\)") as caught:
        train(tiny_experiment(), run_dir)
    assert status_of(run_dir)["state"] == "failed"
    assert status_of(run_dir)["reason"] == str(caught.value)


def test_a_run_that_cannot_begin_leaves_its_folder_free(tmp_path: Path) -> None:
    """A mistake that shows only when the network is built makes no run of the folder: the next try may use it."""
    run_dir = tmp_path / "run"
    with pytest.raises(ScoutError, match="nowhere does not exist"):
        train(tiny_experiment(initial_weights=str(tmp_path / "nowhere")), run_dir)
    assert not (run_dir / "status.json").exists()
    train(tiny_experiment(), run_dir)
    assert status_of(run_dir)["state"] == "finished"


def test_a_run_that_breaks_midway_keeps_what_it_had(tmp_path: Path) -> None:
    """A run whose second checkpoint cannot be written fails with that as its reason; its lines and the first remain."""
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints" / "000002.pt").mkdir(parents=True)  # no file can take a folder's place
    (run_dir / "checkpoints" / "000002.pt" / "inhabited").touch()
    with pytest.raises(ScoutError, match=r"000002\.pt: the checkpoint cannot be written") as caught:
        train(tiny_experiment(), run_dir)
    status = status_of(run_dir)
    assert (status["state"], status["reason"], status["agent_steps"]) == ("failed", str(caught.value), 512)
    assert [line["update"] for line in metrics_of(run_dir)] == [1, 2]
    assert torch.load(run_dir / "checkpoints" / "000001.pt", weights_only=True)["agent_steps"] == 256


def test_an_interrupted_run_is_recorded_as_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the first update leaves the state interrupted, the steps so far, and is raised again."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scout.scribe.save_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_experiment(), tmp_path / "run")
    status = status_of(tmp_path / "run")
    assert (status["state"], status["reason"], status["agent_steps"]) == ("interrupted", "SIGINT", 256)
