"""A W&B server that is slow, gone or unwilling: the run neither waits for it nor loses what it should have got."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_experiment
from test_tracking import history, metrics_of, records_of

from scout import tracking
from scout.run_folder import RunFolder
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


@pytest.fixture(params=["hangs", "refuses", "gone"])
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


def test_a_server_that_does_not_answer_costs_the_training_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No update waits for a second, all are in metrics.jsonl and in an offline record of W&B, and the log says so."""
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
    assert max(after - before for before, after in pairwise(times)) < 1
    assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
    assert [line["update"] for line in metrics_of(run_dir)] == list(range(1, 13))
    assert any("this run is recorded offline" in record.message for record in caplog.records)
    assert history(records_of(run_dir)) == metrics_of(run_dir)
