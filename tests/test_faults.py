"""What a run does when its processes, its disk or its user stop it: nothing is lost, nothing hangs, nothing is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT, run_script, tiny_experiment, tiny_overrides, wait_until

from scout.build import build
from scout.checkpoint import newest_state, numbered_checkpoints
from scout.errors import ScoutError
from scout.mission import make_game
from scout.trainer import StockTrainer
from scout.training import train
from scout.vecenv import WorkerFailure

WORKERS: dict[str, Any] = {"vecenv": {"name": "multiprocessing", "num_workers": 2, "worker_timeout": 2.0}}
ENDLESS: dict[str, Any] = {"total_timesteps": 10**9, "checkpoint": {"interval": 10**6}}


def status_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())


def updates_of(run_dir: Path) -> list[int]:
    return [json.loads(line)["update"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


class Run:
    """A training in a process of its own, after its second update."""

    def __init__(self, run_dir: Path, **changes: Any) -> None:
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            [sys.executable, "train.py", *tiny_overrides(**changes), f"hydra.run.dir={run_dir}"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.wait_for_updates(2)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def wait_for_updates(self, more: int) -> None:
        """Waits until so many more updates are recorded."""
        metrics = self.run_dir / "metrics.jsonl"

        def count() -> int:
            return len(metrics.read_text().splitlines()) if metrics.exists() else 0

        aim = count() + more
        wait_until(lambda: count() >= aim or self.process.poll() is not None)

    def end(self, timeout: float = 30) -> tuple[int, str]:
        """Waits for its end: exit code and what it printed."""
        _, shown = self.process.communicate(timeout=timeout)
        return self.process.returncode, shown


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts trainings that would go on for ever, and ends what is left of them."""
    runs: list[Run] = []

    def begin(**changes: Any) -> Run:
        runs.append(Run(tmp_path / f"run{len(runs)}", **{**ENDLESS, **changes}))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.communicate()


def assert_gone(processes: list[psutil.Process], seconds: float = 5) -> None:
    """None of the processes is alive any more."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_its_update_with_a_checkpoint(
    number: signal.Signals, code: int, start: Callable[..., Run]
) -> None:
    """The exit code is 128 + the signal; the checkpoint is of the last recorded update; the log says how to go on."""
    run = start(**WORKERS, wandb={"mode": "offline"})
    os.killpg(run.process.pid, number)  # the whole group, as a terminal and a scheduler send it
    returned, shown = run.end()
    assert returned == code, shown
    assert "Traceback" not in shown
    assert f"resume={run.run_dir} goes on" in shown
    status = status_of(run.run_dir)
    assert (status["state"], status["reason"]) == ("interrupted", number.name)
    (checkpoint,) = numbered_checkpoints(run.run_dir)
    assert int(checkpoint.stem) == updates_of(run.run_dir)[-1]
    assert_gone(run.family)


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once(start: Callable[..., Run]) -> None:
    """In an update of seconds two SIGINTs end process and workers with 130: no update, no checkpoint is waited for."""
    run = start(**WORKERS, trainer={"batch_size": 4096})
    os.kill(run.process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(run.process.pid, signal.SIGINT)
    returned, _ = run.end(timeout=10)
    assert returned == 130
    assert status_of(run.run_dir)["state"] == "running"
    assert numbered_checkpoints(run.run_dir) == []
    assert_gone(run.family)


def test_a_schedulers_warning_writes_a_checkpoint_and_the_run_goes_on(start: Callable[..., Run]) -> None:
    """SIGUSR1 leaves one checkpoint, though none was due, and updates go on being made."""
    run = start(**WORKERS)
    os.killpg(run.process.pid, signal.SIGUSR1)
    wait_until(lambda: len(numbered_checkpoints(run.run_dir)) == 1)
    run.wait_for_updates(3)
    assert run.process.poll() is None
    assert len(numbered_checkpoints(run.run_dir)) == 1


# -- worker processes --------------------------------------------------------------------------------------------------


def test_no_process_outlives_a_killed_run(start: Callable[..., Run]) -> None:
    """After kill -9 of the trainer its workers are gone within seconds."""
    run = start(**WORKERS)
    assert len(run.family) >= 2
    run.process.kill()
    run.process.communicate()
    assert_gone(run.family)


def trained(trainer: StockTrainer, updates: int) -> list[dict[str, float]]:
    """The losses of some updates."""
    losses = []
    for _ in range(updates):
        trainer.evaluate()
        trainer.train()
        losses.append(dict(trainer.losses))
    return losses


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_worker_that_dies_or_hangs_is_replaced_and_nothing_changes(
    fault: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """The losses of four updates are those of a run whose workers live, and the message names worker and reason."""
    experiment = tiny_experiment(**WORKERS)
    game = make_game(experiment.mission)
    undisturbed = build(experiment, game, "cpu")
    expected = trained(undisturbed, 4)
    undisturbed.close()

    trainer = build(experiment, game, "cpu")
    losses = trained(trainer, 2)
    process = trainer.vecenv.processes[1]
    os.kill(process.pid, fault)
    begun = time.monotonic()
    losses += trained(trainer, 2)
    assert time.monotonic() - begun < 10
    trainer.close()
    assert losses == expected
    (warning,) = [record.message for record in caplog.records if "started anew" in record.message]
    reason = "died with exit code -9" if fault == signal.SIGKILL else "has not answered for 2.4 seconds"
    assert warning.startswith(f"worker 1 (process {process.pid}, environments 2 to 3) {reason}")


def test_a_worker_that_dies_again_and_again_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its replacement dies before it has answered there is no use in a third: the error says so."""
    experiment = tiny_experiment(**WORKERS)
    trainer = build(experiment, make_game(experiment.mission), "cpu")
    try:
        trainer.evaluate()
        restart = trainer.vecenv._restart

        def stillborn(worker: int) -> None:
            restart(worker)
            trainer.vecenv.processes[worker].kill()

        monkeypatch.setattr(trainer.vecenv, "_restart", stillborn)
        trainer.vecenv.processes[0].kill()
        with pytest.raises(WorkerFailure, match=r"^worker 0 .* died with exit code -9.*starting it anew is no use$"):
            trainer.evaluate()
    finally:
        trainer.close()


@pytest.mark.parametrize(
    "fault",
    [pytest.param(signal.SIGKILL, id="dies"), pytest.param(signal.SIGSTOP, id="hangs", marks=pytest.mark.slow)],
)
def test_a_run_can_stop_at_a_failed_worker_and_be_resumed(
    fault: signal.Signals, start: Callable[..., Run], tmp_path: Path
) -> None:
    """With on_worker_failure=stop the run ends within 10 seconds, exit code 1, with a checkpoint of its last update."""
    changes = {"vecenv": {**WORKERS["vecenv"], "on_worker_failure": "stop"}}
    run = start(**changes)
    begun = time.monotonic()
    os.kill(run.family[0].pid, fault)
    returned, shown = run.end()
    assert time.monotonic() - begun < 10
    assert returned == 1
    assert "worker " in shown
    assert "Traceback" not in shown
    assert status_of(run.run_dir)["state"] == "failed"
    last = updates_of(run.run_dir)[-1]
    state = newest_state(run.run_dir)
    assert state is not None
    assert state["update"] == last
    total = (last + 2) * 256
    done = run_script("train.py", f"resume={run.run_dir}", f"total_timesteps={total}")
    assert done.returncode == 0, done.stderr
    assert updates_of(run.run_dir) == list(range(1, last + 3))


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_error_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    """After the first checkpoint no file may grow beyond half its size: the second fails, and the first is intact."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "import scout.scribe as s; from scout.training import train\n"
        "from conftest import tiny_experiment; from scout.errors import ScoutError\n"
        "save = s.save_checkpoint\n"
        "def limited(run_dir, state, update, keep):\n"
        "    path = save(run_dir, state, update, keep)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2,) * 2)\n"
        "    return path\n"
        "s.save_checkpoint = limited\n"
        "try: train(tiny_experiment(), Path(sys.argv[1]))\n"
        "except ScoutError as error: print(error); sys.exit(1)\n"
    )
    run_dir = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}"}
    done = run_script("-c", program, str(run_dir), env=environment)
    assert done.returncode == 1, done.stderr
    assert "000002.pt: the checkpoint cannot be written" in done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["000001.pt"]
    state = newest_state(run_dir)
    assert state is not None
    assert state["update"] == 1
    assert status_of(run_dir)["state"] == "failed"


def test_too_little_memory_is_one_error_that_names_the_keys_to_lower(tmp_path: Path) -> None:
    """A rollout of 2.6 GB, where the process may have 1 GB more than it has, ends with a message and no traceback."""
    program = (
        "import resource, sys; from pathlib import Path; import psutil\n"
        "from conftest import tiny_experiment; from scout.training import train; from scout.errors import ScoutError\n"
        "limit = psutil.Process().memory_info().vms + 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try: train(tiny_experiment(total_timesteps=2**40, trainer={'batch_size': 2**22}), Path(sys.argv[1]))\n"
        "except ScoutError as error: print(error); sys.exit(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}"}
    done = run_script("-c", program, str(tmp_path / "run"), env=environment)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("Out of memory (")
    for key in ("vecenv.num_envs", "trainer.batch_size", "trainer.max_minibatch_size"):
        assert key in done.stdout
    assert "Traceback" not in done.stderr


def test_a_folder_that_vanishes_ends_the_run_with_one_error(start: Callable[..., Run]) -> None:
    """The next update notices, long before a checkpoint is due."""
    run = start()
    shutil.rmtree(run.run_dir)
    returned, shown = run.end()
    assert returned == 1
    assert "metrics.jsonl cannot be written (the folder was removed while the run was writing to it)" in shown
    assert "Traceback" not in shown


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_error(tmp_path: Path) -> None:
    """A run folder that cannot be written is named before training begins."""
    tmp_path.chmod(0o500)
    with pytest.raises(ScoutError, match="cannot be written"):
        train(tiny_experiment(), tmp_path / "run")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount")
@pytest.mark.parametrize("options", ["size=300k", "ro"], ids=["full", "read-only"])
def test_a_real_small_or_read_only_file_system_is_one_error(options: str, tmp_path: Path) -> None:
    """On a tmpfs of 300 kB the second checkpoint finds no room; on one that is read-only nothing begins."""
    mount = tmp_path / "mount"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        run_dir = mount / "run"
        done = run_script("train.py", *tiny_overrides(total_timesteps=10**6), f"hydra.run.dir={run_dir}")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert done.stderr.count("cannot be written") + done.stderr.count("Read-only file system") >= 1
        if options != "ro":
            assert newest_state(run_dir) is not None
    finally:
        subprocess.run(["umount", str(mount)], check=True)
