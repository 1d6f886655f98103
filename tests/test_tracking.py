"""W&B mirrors metrics.jsonl, and shows what a run is, how good it was and what it looked like."""

import base64
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio
import numpy as np
import pytest
from conftest import run_script, tiny_experiment, tiny_overrides
from evaluation_helpers import config_of

from scout.checkpoint import load_weights
from scout.errors import ScoutError
from scout.naming import run_name, setting
from scout.tracking import Tracker
from scout.training import train


def wandb_folders(run_dir: Path) -> list[Path]:
    """The folders of the offline W&B runs in a run folder."""
    return sorted((run_dir / "wandb").glob("offline-run-*"))


def records_of(run_dir: Path) -> list[dict[str, Any]]:
    """What W&B has on disk of the one run in a run folder, read back with W&B's own reader, record by record."""
    (folder,) = wandb_folders(run_dir)
    return records_in(folder)


def records_in(folder: Path) -> list[dict[str, Any]]:
    """What W&B has on disk of one offline run, or one part of it."""
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def only(records: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one record of a kind."""
    (record,) = [record[kind] for record in records if record["type"] == kind]
    return record


def history(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The logged metrics, without the film and what W&B adds: `_step`, `_runtime` and `_timestamp`."""
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{key: value for key, value in item.items() if not key.startswith(("_", "film."))} for item in items]


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary as W&B has it at the end: each record of it adds to those before."""
    merged: dict[str, Any] = {}
    for record in records:
        if record["type"] == "summary":
            merged |= record["summary"]["update"]
    return merged


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def records(finished_run: Path) -> list[dict[str, Any]]:
    """W&B's records of the finished run."""
    return records_of(finished_run)


def test_wandb_has_every_metric_of_every_update(records: list[dict[str, Any]], finished_run: Path) -> None:
    """W&B's history is metrics.jsonl: the same updates in the same order, the same names, the same values."""
    assert history(records) == metrics_of(finished_run)


def test_agent_steps_are_the_axis_of_every_metric(records: list[dict[str, Any]]) -> None:
    """All metrics are defined with agent_steps as their step metric, which is itself not a chart."""
    defined = {
        record["metric"].get("name") or record["metric"].get("glob_name"): record["metric"]
        for record in records
        if record["type"] == "metric"
    }
    assert defined.keys() == {"agent_steps", "*"}
    assert defined["*"]["step_metric"] == "agent_steps"
    assert defined["agent_steps"]["options"]["hidden"]


def test_the_whole_config_lies_under_the_key_experiment(records: list[dict[str, Any]]) -> None:
    """W&B's config has the whole experiment under one key, and beside it the setting that the run's seeds share."""
    config, experiment = only(records, "run")["config"]["update"], tiny_experiment(wandb={"mode": "offline"})
    assert config.keys() - {"_wandb"} == {"experiment", "setting"}
    assert config["experiment"] == experiment.model_dump()
    assert config["setting"] == setting(experiment)


def test_the_best_checkpoint_is_the_runs_model_artifact(records: list[dict[str, Any]], finished_run: Path) -> None:
    """One artifact of type model, named after the run, holds a checkpoint: its size and MD5 are the file's."""
    artifact = only(records, "artifact")
    assert (artifact["type"], artifact["name"]) == ("model", f"scout-{only(records, 'run')['run_id']}")
    (entry,) = artifact["manifest"]["contents"]
    checkpoint = load_weights(str(finished_run)).path
    assert (entry["path"], int(entry["size"])) == (checkpoint.name, checkpoint.stat().st_size)
    assert base64.b64decode(entry["digest"]) == hashlib.md5(checkpoint.read_bytes()).digest()


def test_a_finished_run_ends_with_exit_code_0(records: list[dict[str, Any]]) -> None:
    """W&B shows a finished run as finished."""
    assert only(records, "exit")["exit_code"] == 0


def test_a_failed_run_ends_with_exit_code_1(tmp_path: Path) -> None:
    """W&B shows a run whose second checkpoint cannot be written as failed, with both of its updates."""
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints" / "000002.pt" / "in the way").mkdir(parents=True)
    with pytest.raises(ScoutError, match=r"000002\.pt: the checkpoint cannot be written"):
        train(tiny_experiment(wandb={"mode": "offline"}), run_dir)
    records = records_of(run_dir)
    assert only(records, "exit")["exit_code"] == 1
    assert history(records) == metrics_of(run_dir)


def test_project_entity_group_tags_and_name_are_those_of_the_config(tmp_path: Path) -> None:
    """Every key of the group `wandb` reaches W&B, and the job type says that this is training.

    The tags are the mission's, the network's and the trainer's names, then the user's.
    """
    keys = {"project": "maps", "entity": "team", "group": "mine", "tags": ["a", "b"], "name": "first"}
    (tmp_path / "multirun.yaml").touch()  # the user's group is taken within a sweep, too
    Tracker(tiny_experiment(wandb={"mode": "offline", **keys}), tmp_path / "0", "run1").finish("finished")
    run = only(records_of(tmp_path / "0"), "run")
    expected = {"project": "maps", "entity": "team", "run_group": "mine", "display_name": "first"}
    assert {key: run.get(key) for key in expected} == expected
    assert run["job_type"] == "train"
    assert run["tags"] == ["scout_tutorial", "cnn_lstm", "ppo", "a", "b"]


def test_a_run_of_its_own_has_a_telling_name_and_no_group(records: list[dict[str, Any]]) -> None:
    """Without a name of the user's the run is called by its differences to the defaults."""
    run = only(records, "run")
    assert run["display_name"] == run_name(tiny_experiment())
    assert "run_group" not in run


@pytest.mark.slow
def test_the_runs_of_a_sweep_are_a_group(tmp_path: Path) -> None:
    """Both runs of a sweep have the name of its folder as their group, and names that say which is which."""
    sweep = tmp_path / "my_sweep"
    overrides = tiny_overrides(wandb={"mode": "offline"})
    done = run_script("train.py", "-m", f"hydra.sweep.dir={sweep}", *overrides, "seed=1,2")
    assert done.returncode == 0, done.stderr
    runs = [only(records_of(sweep / job), "run") for job in ("0", "1")]
    assert [run["run_group"] for run in runs] == ["my_sweep", "my_sweep"]
    assert [run["display_name"].rpartition(" ")[2] for run in runs] == ["seed=1", "seed=2"]


def test_the_summary_has_the_last_and_the_best_return_also_after_a_resume(tmp_path: Path) -> None:
    """Of returns 1, 5 and 3, then, after a resume, 2 and 4: best 5 and last 3, then best 5 and last 4.

    The second part is a record of its own, since the runs are offline: it is told the best of the first.
    """
    experiment = tiny_experiment(wandb={"mode": "offline"})
    found = []
    for part, returns, before in (("first", [1.0, 5.0, 3.0], -math.inf), ("second", [2.0, 4.0], 5.0)):
        tracker = Tracker(experiment, tmp_path / part, "run1")
        tracker.best_return = before
        for update, value in enumerate(returns, start=1):
            tracker.log({"agent_steps": 256 * update, "update": update, "environment/episode_return": value})
        tracker.log({"agent_steps": 2048, "update": 8})  # in which no episode ended
        tracker.finish("finished")
        whole = summary(records_of(tmp_path / part))
        found.append((whole["environment/best_episode_return"], whole["environment/episode_return"]))
    assert found == [(5, 3), (5, 4)]


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A film in both formats and a picture, all of 2 noisy frames; W&B stages its tables beside them."""
    frames = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    for name in ("film.mp4", "film.gif"):
        imageio.mimsave(tmp_path / name, list(frames))
    imageio.imwrite(tmp_path / "picture.png", frames[0])
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    return tmp_path


def test_films_pictures_and_tables_stand_beside_the_last_update(shown: Path) -> None:
    """All are in the row of the update before them, with the files' own bytes; the update after them is not lost."""
    tracker = Tracker(tiny_experiment(wandb={"mode": "offline"}), shown / "run", "run1")
    tracker.log({"agent_steps": 256, "update": 1})
    tracker.log_film(shown / "film.mp4")
    tracker.log_film(shown / "film.gif", "small")
    tracker.log_picture("where", shown / "picture.png")
    tracker.log_table("episodes", ["policy", "return"], [["random", 1.5], ["noop", None]])
    tracker.log({"agent_steps": 512, "update": 2})
    tracker.finish("finished")
    rows = [record["history"]["item"] for record in records_of(shown / "run") if record["type"] == "history"]
    assert [row["update"] for row in rows] == [1, 2]
    (folder,) = wandb_folders(shown / "run")
    for name, kind, file in (
        ("film", "video-file", "film.mp4"),
        ("small", "video-file", "film.gif"),
        ("where", "image-file", "picture.png"),
    ):
        assert rows[0][f"{name}._type"] == kind
        assert (folder / "files" / rows[0][f"{name}.path"]).read_bytes() == (shown / file).read_bytes()
    table = json.loads((folder / "files" / rows[0]["episodes.path"]).read_text())
    assert table == {"columns": ["policy", "return"], "data": [["random", 1.5], ["noop", None]]}


def test_an_evaluation_is_a_run_of_its_own_kind(tmp_path: Path) -> None:
    """It has its job type, its config under `evaluation`, the tags it is given, and what it found as its summary."""
    config = config_of(wandb={"mode": "offline", "tags": ["mine"]})
    tracker = Tracker(config, tmp_path, tags=["scout_tutorial"])
    tracker.summarize({"random/return": 1.5})
    tracker.finish("finished")
    records = records_of(tmp_path)
    run = only(records, "run")
    assert (run["job_type"], run["tags"]) == ("evaluate", ["scout_tutorial", "mine"])
    assert run["display_name"] == "evaluate policy=random mission.max_steps=20 episodes=3"
    assert run["config"]["update"]["evaluation"] == config.model_dump()
    assert summary(records)["random/return"] == 1.5
    assert not [record for record in records if record["type"] == "metric"]


def test_wandb_is_imported_by_nothing_before_it_is_needed() -> None:
    """Neither wandb nor wandb_workspaces, which take seconds, is loaded with the modules that use them."""
    program = (
        "import sys, scout.naming, scout.tracking, scout.dashboard\n"
        "print([name for name in ('wandb', 'wandb_workspaces', 'torch') if name in sys.modules])"
    )
    assert run_script("-c", program).stdout.strip() == "[]"


def test_two_runs_in_one_process_are_two_wandb_runs(tmp_path: Path) -> None:
    """The runs of a sweep share a process: each has an id, a config and a history of its own, even side by side."""
    trackers = {
        seed: Tracker(tiny_experiment(seed=seed, wandb={"mode": "offline"}), tmp_path / str(seed), f"run{seed}")
        for seed in (1, 2)
    }
    for seed, tracker in trackers.items():
        tracker.log({"agent_steps": 256 * seed, "update": seed})
    for tracker in trackers.values():
        tracker.finish("finished")
    first, second = records_of(tmp_path / "1"), records_of(tmp_path / "2")
    assert only(first, "run")["run_id"] != only(second, "run")["run_id"]
    assert [only(one, "run")["config"]["update"]["experiment"]["seed"] for one in (first, second)] == [1, 2]
    assert [history(one) for one in (first, second)] == [
        [{"agent_steps": 256, "update": 1}],
        [{"agent_steps": 512, "update": 2}],
    ]
