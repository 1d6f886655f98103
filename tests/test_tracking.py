"""W&B mirrors metrics.jsonl, asks for nothing, and never takes a run down with it."""

import base64
import hashlib
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, tiny_experiment

from scout.errors import ScoutError
from scout.tracking import Tracker
from scout.training import train


def wandb_folders(run_dir: Path) -> list[Path]:
    """The folders of the offline W&B runs in a run folder."""
    return sorted((run_dir / "wandb").glob("offline-run-*"))


def records_of(run_dir: Path) -> list[dict[str, Any]]:
    """What W&B has on disk of the one run in a run folder, read back with W&B's own reader, record by record."""
    (folder,) = wandb_folders(run_dir)
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
    """The logged metrics, without those that W&B adds: `_step`, `_runtime` and `_timestamp`."""
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    return [{key: value for key, value in item.items() if not key.startswith("_")} for item in items]


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
    """W&B's config has the one key `experiment` (and its own), which holds the whole experiment."""
    config = only(records, "run")["config"]["update"]
    assert config.keys() - {"_wandb"} == {"experiment"}
    assert config["experiment"] == tiny_experiment(wandb={"mode": "offline"}).model_dump()


def test_the_last_checkpoint_is_the_runs_model_artifact(records: list[dict[str, Any]], finished_run: Path) -> None:
    """One artifact of type model, named after the run, holds the last checkpoint: its size and MD5 are the file's."""
    artifact = only(records, "artifact")
    last = finished_run / "checkpoints" / "000002.pt"
    assert (artifact["type"], artifact["name"]) == ("model", f"scout-{only(records, 'run')['run_id']}")
    (entry,) = artifact["manifest"]["contents"]
    assert (entry["path"], int(entry["size"])) == (last.name, last.stat().st_size)
    assert base64.b64decode(entry["digest"]) == hashlib.md5(last.read_bytes()).digest()


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
    """Every key of the group `wandb` reaches W&B, and the job type says that this is training."""
    keys = {"project": "maps", "entity": "team", "group": "sweep", "tags": ["a", "b"], "name": "first"}
    Tracker(tiny_experiment(wandb={"mode": "offline", **keys}), tmp_path, "run1").finish("finished")
    run = only(records_of(tmp_path), "run")
    expected = {"project": "maps", "entity": "team", "run_group": "sweep", "tags": ["a", "b"], "display_name": "first"}
    assert {key: run.get(key) for key in expected} == expected
    assert run["job_type"] == "train"


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


@pytest.fixture
def without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `import wandb` fail, as it does where the package is not installed."""
    monkeypatch.setitem(sys.modules, "wandb", None)


@pytest.mark.usefixtures("without_wandb")
def test_a_disabled_run_needs_no_wandb_and_leaves_nothing_of_it(train_tiny: Callable[..., Path]) -> None:
    """With wandb=disabled a whole run neither imports the package nor makes a wandb folder."""
    run_dir = train_tiny(wandb={"mode": "disabled"})
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
    assert not (run_dir / "wandb").exists()


@pytest.mark.usefixtures("without_wandb")
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_wandb_that_is_not_installed_is_an_error_with_both_ways_out(mode: str, tmp_path: Path) -> None:
    """Without the package the error names the mode that needs it, and says: install it, or take wandb=disabled."""
    with pytest.raises(
        ScoutError, match=rf"^wandb={mode} needs the package wandb.*: install it, or take wandb=disabled$"
    ):
        Tracker(tiny_experiment(wandb={"mode": mode}), tmp_path, "run1")


NETRC_OF_ANOTHER = "machine example.com login me password secret\n"


@pytest.mark.parametrize("netrc", [None, NETRC_OF_ANOTHER], ids=["no netrc", "netrc without W&B"])
def test_online_without_a_key_is_an_error_at_once_and_never_a_prompt(netrc: str | None, tmp_path: Path) -> None:
    """Even on a terminal, where W&B would ask, wandb=online without a key ends with the three ways out."""
    if netrc is not None:
        (tmp_path / ".netrc").write_text(netrc)
    program = (
        "import pathlib, sys; from conftest import tiny_experiment; from scout.tracking import Tracker\n"
        "try: Tracker(tiny_experiment(wandb={'mode': 'online'}), pathlib.Path(sys.argv[1]) / 'run', 'run1')\n"
        "except Exception as error: print(f'{type(error).__name__}: {error}')"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "tests")}
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    assert process.wait(timeout=30) == 0  # a prompt would wait for an answer that never comes
    os.close(its_end)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)
    expected = "ScoutError: wandb=online needs a key: run `wandb login`, set WANDB_API_KEY, or take wandb=offline"
    assert shown.strip() == expected


@pytest.fixture
def broken_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """W&B runs that break when the second update is logged; gives the agent steps of each attempt to log."""
    attempts: list[int] = []
    opened: list[Any] = []

    class Breaking(Tracker):
        def _begin(self, wandb: Any, mode: str, run_id: str | None = None) -> Any:
            run = super()._begin(wandb, mode, run_id)
            opened.append(run)
            works = run.log

            def breaks(metrics: dict[str, float], step: int) -> None:
                attempts.append(int(metrics["agent_steps"]))
                if len(attempts) == 2:
                    raise ConnectionResetError("the service is gone")
                works(metrics, step=step)

            run.log = breaks
            return run

    monkeypatch.setattr("scout.training.Tracker", Breaking)
    yield attempts
    for run in opened:
        run.finish()


def test_a_wandb_that_breaks_midway_does_not_stop_the_run(
    broken_wandb: list[int], train_tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on to its end with every line in metrics.jsonl; W&B is given up with a single warning."""
    run_dir = train_tiny(total_timesteps=768, wandb={"mode": "offline"})
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
    assert [line["agent_steps"] for line in metrics_of(run_dir)] == [256, 512, 768]
    assert broken_wandb == [256, 512]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["W&B stopped working (the service is gone); the run goes on, and metrics.jsonl has everything"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project", "a/b"),
        ("tags", ["x" * 65]),
    ],
)
def test_a_key_that_wandb_refuses_is_an_error_and_no_fault(key: str, value: Any, tmp_path: Path) -> None:
    """What W&B's own checks refuse is told as the user's mistake, with W&B's words."""
    with pytest.raises(ScoutError, match=r"(?s)^wandb=offline failed: .*(Invalid project name|65 characters)"):
        Tracker(tiny_experiment(wandb={"mode": "offline", key: value}), tmp_path, "run1")
