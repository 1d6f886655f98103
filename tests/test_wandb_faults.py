"""A W&B that is not installed, has no key, refuses, breaks, or whose server is slow, gone or unwilling.

What the user can mend is one message at once; all else costs the run nothing, and what W&B should have got is kept.
"""

import contextlib
import json
import logging
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, tiny_experiment
from test_tracking import history, metrics_of, records_of

from scout import tracking
from scout.errors import ScoutError
from scout.run_folder import RunFolder
from scout.tracking import Tracker
from scout.training import train


class Server:
    """A TCP server on loopback that answers every request with the same bytes, or never."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer, self._open = answer, []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                self.asked += 1
                if self._answer is not None:
                    connection.recv(65536)
                    connection.sendall(self._answer)
                    connection.close()

    def close(self) -> None:
        self._socket.close()
        for connection in self._open:
            connection.close()


REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


@pytest.fixture(params=["hangs", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("refuses", "gone"))])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """W&B's server, as the environment names it; patience is cut to seconds."""
    server = Server(REFUSAL if request.param == "refuses" else None)
    if request.param == "gone":
        server.close()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(tracking, "START_SECONDS", 4)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 4)
    yield server
    server.close()


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_the_training_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No update waits as long as W&B does, 4 seconds; all are in metrics.jsonl and in an offline record of W&B."""
    times: list[float] = []
    log = RunFolder.log

    def timed(folder: RunFolder, metrics: dict[str, Any]) -> None:
        log(folder, metrics)
        times.append(time.monotonic())

    monkeypatch.setattr(RunFolder, "log", timed)
    begun = time.monotonic()
    experiment = tiny_experiment(total_timesteps=256 * 12, wandb={"mode": "online"})
    run_dir = train(experiment, tmp_path / "run").run_dir
    assert time.monotonic() - begun < 60
    assert max(after - before for before, after in pairwise(times)) < 3
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
    assert [line["update"] for line in metrics_of(run_dir)] == list(range(1, 13))
    assert any("this run is recorded offline" in record.message for record in caplog.records)
    assert history(records_of(run_dir)) == metrics_of(run_dir)


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
    assert warnings == ["W&B stopped working (the service is gone); the run goes on, and its folder has everything"]


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


def test_what_wandb_does_not_take_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A film that is not there, one in a format unknown to W&B and a crooked table: the updates go on to W&B."""
    tracker = Tracker(tiny_experiment(wandb={"mode": "offline"}), tmp_path, "run1")
    tracker.log_film(tmp_path / "none.mp4")
    tracker.log_film(tmp_path / "film.avi", "other")
    tracker.log_table("crooked", ["one"], [[1, 2]])
    tracker.log({"agent_steps": 256, "update": 1})
    tracker.finish("finished")
    warnings = [record.getMessage() for record in caplog.records if record.name == "scout.tracking"]
    assert [warning.split(" (")[0] for warning in warnings] == [
        f"W&B does not take {name}" for name in ("film", "other", "crooked")
    ]
    assert history(records_of(tmp_path)) == [{"agent_steps": 256, "update": 1}]
