"""Sweeps from the shell: which jobs run, which do not run again, and what a sweep leaves in its folder."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest
from conftest import ROOT, run_script, tiny_overrides, wait_until

from scout.config import Experiment
from scout.errors import ScoutError
from scout.launching import check_launcher
from scout.run_folder import load_experiment
from scout.sweep_folder import open_sweep


def status_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text()) if (run_dir / "status.json").exists() else {}


def losses_of(run_dir: Path) -> list[float]:
    """All losses of a run, in their order."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key.startswith("losses/")]


def summary_of(sweep: Path) -> list[dict[str, str]]:
    """The rows of summary.csv."""
    with (sweep / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sweep_of(folder: Path, *overrides: str) -> CompletedProcess[str]:
    """`python train.py -m overrides...` into a folder, with the small experiment, judged at its end."""
    judged = tiny_overrides(evaluation={"every": 512, "episodes": 2})
    return run_script("train.py", "-m", *judged, *overrides, f"hydra.sweep.dir={folder}")


class Calls(NamedTuple):
    """Two calls of one sweep, and its folder after each."""

    first: CompletedProcess[str]
    second: CompletedProcess[str]
    sweep: Path
    summary: list[dict[str, str]]
    untouched: tuple[bytes, bytes]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    """A sweep over a difficulty that cogames does not have, and again over others in another order."""
    sweep = tmp_path_factory.mktemp("sweeps") / "difficulty"
    first = sweep_of(sweep, "mission.difficulty=easy,brutal")
    summary = summary_of(sweep)
    before = (sweep / "0/status.json").read_bytes()
    second = sweep_of(sweep, "mission.difficulty=hard,brutal,easy")
    return Calls(first, second, sweep, summary, (before, (sweep / "0/status.json").read_bytes()))


def test_a_sweep_called_again_leaves_finished_jobs_alone_and_does_the_rest(calls: Calls) -> None:
    """The finished job is not run again, the failed one is, and what is new gets the next folder."""
    assert calls.untouched[0] == calls.untouched[1]
    difficulties = {name: load_experiment(calls.sweep / name).mission.difficulty for name in ("0", "2")}
    assert difficulties == {"0": "easy", "2": "hard"}
    assert "Done already: 0\n" in calls.second.stderr
    log = (calls.sweep / "1/train.log").read_text().splitlines()
    assert [line.partition("ERROR ")[2] for line in log if "ERROR" in line] == [
        "mission.difficulty=brutal is unknown; valid: easy, hard, medium"
    ] * 2
    assert (status_of(calls.sweep / "1"), status_of(calls.sweep / "2")["state"]) == ({}, "finished")


def test_a_sweep_with_failed_jobs_exits_1_and_says_how_to_do_them_again(calls: Calls) -> None:
    """The last line names the failed jobs and the key that calls the sweep again; there is no traceback."""
    assert (calls.first.returncode, calls.second.returncode) == (1, 1)
    assert calls.first.stderr.splitlines()[-1] == (
        f"1 of 2 jobs did not finish: 1 in {calls.sweep}. Once the reason is mended, the same command with "
        "sweep.name=difficulty does them alone"
    )
    assert "Traceback" not in calls.first.stderr + calls.first.stdout


def test_the_summary_has_a_row_for_each_job_the_best_first(calls: Calls) -> None:
    """Overrides that differ, status, objective with its interval, and the last line of an error, in the CSV file."""
    best, failed = calls.summary
    last = json.loads((calls.sweep / "0/metrics.jsonl").read_text().splitlines()[-1])
    assert (best["folder"], best["overrides"], best["status"]) == ("0", "mission.difficulty=easy", "finished")
    for column, metric in (("evaluation/return", "return"), ("interval_low", "interval_low")):
        assert float(best[column]) == pytest.approx(last[f"evaluation/{metric}"])
    assert float(best["minutes"]) > 0
    assert (failed["folder"], failed["overrides"], failed["status"]) == ("1", "mission.difficulty=brutal", "failed")
    assert failed["evaluation/return"] == ""
    assert failed["error"] == "mission.difficulty=brutal is unknown; valid: easy, hard, medium"


def test_the_summary_is_shown_when_the_sweep_ends_and_is_a_page_too(calls: Calls) -> None:
    """The terminal has the table; summary.html has it too, with the curves of the runs."""
    lines = calls.first.stdout.splitlines()
    assert next(line.split() for line in lines if "overrides" in line) == [
        *("folder", "overrides", "status", "held-out", "95%", "time")
    ]
    assert [line.split()[:3] for line in lines if "difficulty=" in line] == [
        ["0", "difficulty=easy", "finished"],
        ["1", "difficulty=brutal", "failed"],
        ["mission.difficulty=brutal", "is"],
    ]
    page = (calls.sweep / "summary.html").read_text()
    assert "mission.difficulty=brutal is unknown; valid: easy, hard, medium" in page
    assert page.count("<img src=") >= 3
    assert str(calls.sweep / "summary.html") in calls.first.stdout.replace("\n", "")


# -- which folder a job has --------------------------------------------------------------------------------------------


def test_two_jobs_with_the_same_config_have_a_folder_each(tmp_path: Path) -> None:
    """`seed=1,1` is two runs, and two runs it stays when the sweep is called again."""
    jobs = [(Experiment(), ["seed=1"]), (Experiment(), ["seed=1"])]
    for _ in range(2):
        with open_sweep(tmp_path) as folder:
            assert folder.place(jobs) == ["0", "1"]
    assert json.loads((tmp_path / "jobs.json").read_text()) == {"0": ["seed=1"], "1": ["seed=1"]}


def test_a_sweep_that_is_given_its_name_later_has_the_same_jobs(tmp_path: Path) -> None:
    """A job that failed before its run began is found again, whatever the sweep is called and in whatever order."""
    with open_sweep(tmp_path) as folder:
        assert folder.place([(Experiment(), ["seed=1", "trainer.gamma=0.9"])]) == ["0"]
    with open_sweep(tmp_path) as folder:
        assert folder.place([(Experiment(), ["trainer.gamma=0.9", "sweep.name=lr", "seed=1"])]) == ["0"]


def test_a_sweep_that_is_running_is_not_run_a_second_time(tmp_path: Path) -> None:
    """While a process has the folder of a sweep another one is refused, with what to do instead."""
    with open_sweep(tmp_path):
        script = "import sys; from pathlib import Path; from scout.sweep_folder import open_sweep\n"
        script += "with open_sweep(Path(sys.argv[1])): pass"
        other = run_script("-c", script, str(tmp_path))
    assert other.returncode == 1
    assert f"{tmp_path} belongs to a sweep that is running: wait for it, or choose another" in other.stderr


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.gama=0.9,0.99", "trainer.gama=0.9,0.99 is not a key in trainer; did you mean gamma? "),
        ("+trainer.gama=0.9,0.99", "trainer.gama=0.9 is not a key in trainer; did you mean gamma? "),
        ("trainer.gamma=0.9,2", "trainer.gamma=2 is not valid: expected less than or equal to 1"),
        ("trainer.gamma=interval(0.9,0.99)", "trainer.gamma=interval(0.9,0.99) has no end of values: list some, or"),
        (
            "resume=auto",
            "resume=auto is not for a sweep, which goes on by itself when it is called again with its name",
        ),
        ("sweep.name=a/b", "sweep.name=a/b is not valid: expected letters, digits, _, - and ., "),
        ("hydra.launcher.n_job=2", "hydra.launcher.n_job is not a key here; `--cfg hydra -p hydra.launcher` shows"),
        ("hydra/launcher=jobs", "In 'hydra/config': Could not find 'hydra/launcher/jobs'"),
        (
            "hydra/launcher=submitit_slurm",
            "hydra/launcher=submitit_slurm calls sbatch, srun, and there is no sbatch, srun on this machine: ",
        ),
    ],
    ids=["unknown key", "added key", "value", "interval", "resume", "name", "hydra's key", "launcher", "no SLURM"],
)
def test_a_wrong_sweep_fails_before_its_first_job(override: str, message: str, tmp_path: Path) -> None:
    """One message, exit code 1, and no folder: the second of two values is enough for that."""
    done = run_script("train.py", "-m", "seed=1,2", override, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_an_unknown_launcher_is_answered_with_the_extras_that_bring_some(tmp_path: Path) -> None:
    """The message lists the launchers and the extras to install."""
    done = run_script("train.py", "-m", "seed=1,2", "hydra/launcher=ray", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.stderr.splitlines()[2:] == [
        "Available options in 'hydra/launcher':",
        *("\tbasic", "\tjoblib", "\tsubmitit_local", "\tsubmitit_slurm"),
        "joblib is in the extra joblib, the others in the extra slurm; `make setup` installs all extras",
    ]


@pytest.mark.parametrize(("name", "extra"), [("joblib", "joblib"), ("submitit_local", "slurm")])
def test_a_launcher_that_is_not_installed_names_its_extra(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its package a launcher is refused with the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = rf"hydra/launcher={name} needs the extra {extra}: `pip install -e '\.\[{extra}\]'`"
    with pytest.raises(ScoutError, match=message):
        check_launcher(name)


# -- killed, interrupted, in parallel ----------------------------------------------------------------------------------

LONG = {"total_timesteps": 256 * 24, "checkpoint": {"interval": 4}}


def begin(folder: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """The same as a process of a group of its own, which a test can signal: 24 updates a job."""
    return subprocess.Popen(
        [sys.executable, "train.py", "-m", *tiny_overrides(**LONG), *overrides, f"hydra.sweep.dir={folder}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def is_alive(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def has_checkpoint(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob("*.pt"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over two seeds that was left alone."""
    sweep = tmp_path_factory.mktemp("sweeps") / "unbroken"
    assert begin(sweep, "seed=1,2").wait(120) == 0
    return sweep


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_exactly_when_it_is_called_again(unbroken: Path, tmp_path: Path) -> None:
    """After kill -9 in the first job the same command finishes it from its checkpoint and does the second."""
    process = begin(tmp_path, "seed=1,2")
    wait_until(lambda: has_checkpoint(tmp_path / "0"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert status_of(tmp_path / "0")["state"] == "running"
    assert begin(tmp_path, "seed=1,2").wait(120) == 0
    assert len(status_of(tmp_path / "0")["resumed"]) == 1
    for name in ("0", "1"):
        assert losses_of(tmp_path / name) == losses_of(unbroken / name)


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_with_a_checkpoint_and_its_summary(tmp_path: Path) -> None:
    """Exit code 130, the job under way is interrupted in order, the other has not begun, and the table says so."""
    process = begin(tmp_path, "seed=1,2")
    wait_until(lambda: has_checkpoint(tmp_path / "0"))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert status_of(tmp_path / "0")["state"] == "interrupted"
    states = [(row["folder"], row["status"]) for row in summary_of(tmp_path)]
    assert states == [("0", "interrupted"), ("1", "not begun")]


@pytest.mark.slow
def test_joblib_runs_jobs_side_by_side_with_a_part_of_the_cores_each(unbroken: Path, tmp_path: Path) -> None:
    """Two jobs in two processes at the same time learn what they learn alone, with half of the cores' threads each."""
    environment = {"OMP_NUM_THREADS": ""}  # as a user's, who sets none
    process = begin(tmp_path, "seed=1,2", "hydra/launcher=joblib", **environment)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    statuses = [status_of(tmp_path / name) for name in ("0", "1")]
    assert len({status["process"] for status in statuses}) == 2
    assert max(status["started"] for status in statuses) <= min(status["ended"] for status in statuses)
    threads = max((os.cpu_count() or 1) // 2, 1)
    for name in ("0", "1"):
        assert f"Device: cpu ({threads} threads)" in (tmp_path / name / "train.log").read_text()
        assert losses_of(tmp_path / name) == pytest.approx(losses_of(unbroken / name), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_ctrl_c_ends_all_jobs_of_joblib_with_checkpoints(kill: Callable[[int], None], tmp_path: Path) -> None:
    """No process stays behind, both jobs can go on, and a third one does not begin."""
    process = begin(tmp_path, "seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    wait_until(lambda: has_checkpoint(tmp_path / "0") and has_checkpoint(tmp_path / "1"))
    kill(process.pid)
    output, _ = process.communicate(timeout=60)
    assert process.returncode in (130, 143), output
    assert [status_of(tmp_path / name).get("state") for name in ("0", "1", "2")] == ["interrupted"] * 2 + [None]
    wait_until(lambda: not is_alive(process.pid), seconds=30)


@pytest.mark.slow
def test_a_process_of_joblib_that_is_killed_costs_no_other_job(tmp_path: Path) -> None:
    """joblib ends all its processes then: what they had begun goes on, and what had not begun is run."""
    process = begin(tmp_path, "seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    wait_until(lambda: has_checkpoint(tmp_path / "0") and has_checkpoint(tmp_path / "1"))
    os.kill(status_of(tmp_path / "0")["process"], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert [status_of(tmp_path / name)["state"] for name in ("0", "1", "2")] == ["finished"] * 3


@pytest.mark.slow
def test_jobs_of_joblib_have_environments_in_processes_of_their_own(tmp_path: Path) -> None:
    """vecenv=multiprocessing works in joblib's processes, too."""
    workers = ("vecenv=multiprocessing", "vecenv.num_workers=2", "total_timesteps=512")
    process = begin(tmp_path, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *workers)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
