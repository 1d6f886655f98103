"""The W&B workspace: what it shows is logged, and whatever the server says ends with one message."""

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import run_script
from mettagrid.simulator import Simulation
from test_tracking import metrics_of

from scout.config import MissionConfig
from scout.dashboard import COLUMNS, EACH, EACH_MISSION, SECTIONS
from scout.environment import with_map_seed
from scout.mission import make_game
from scout.training import episode_statistics


class Server(http.server.ThreadingHTTPServer):
    """Answers GraphQL on loopback: who is asking, and, as told, what becomes of a workspace."""

    def __init__(self, status: int, made: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.made = status, made
        self.asked: list[dict[str, Any]] = []
        """The variables of each request to make a workspace."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 200, {"data": {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}"}}}
        if b"upsertView" in body:
            self.server.asked.append(json.loads(body)["variables"])
            status, answer = self.server.status, self.server.made
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output clean."""


@pytest.fixture
def serve() -> Iterator[Callable[[int, dict[str, Any]], Server]]:
    """Starts a server with the status and the JSON that it gives when a workspace is to be made."""
    servers = []

    def start(status: int, made: dict[str, Any]) -> Server:
        servers.append(Server(status, made))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def dashboard(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with no key but what `variables` say."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))}
    return run_script(
        "-m", "scout.dashboard", *arguments, env=environment | {"HOME": str(home)} | variables, timeout=60
    )


def with_key(server: Server) -> dict[str, str]:
    """Variables that lead to the server."""
    port = server.server_address[1]
    return {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "0" * 40, "WANDB_HTTP_TIMEOUT": "2"}


def test_every_metric_of_it_is_logged(train_tiny: Callable[..., Path]) -> None:
    """A run with an evaluation logs them, but for what happens in long episodes: that comes from two of random play."""
    run_dir = train_tiny(total_timesteps=256, evaluation={"every": 256, "episodes": 1})
    logged = {key for line in metrics_of(run_dir) for key in line}
    episodes: dict[str, list[Any]] = {}
    for map_seed in (1, 2):
        simulation, generator = (
            Simulation(with_map_seed(make_game(MissionConfig()), map_seed)),
            np.random.default_rng(0),
        )
        while not simulation.is_done():
            simulation._c_sim.actions()[:] = generator.integers(5, size=4)
            simulation.step()
        for agent in simulation.episode_stats["agent"]:
            for key, value in agent.items():
                episodes.setdefault(f"agent/{key}", []).append(value)
        episodes.setdefault("per_label_rewards/any", []).append(1.0)
        episodes.setdefault("attributes/steps", []).append(simulation.current_step)
        simulation.close()
    logged |= {f"environment/{key}" for key in episode_statistics(episodes, 1000)}
    shown = {metric for charts in SECTIONS.values() for metrics in charts.values() for metric in metrics}
    assert shown | {*COLUMNS} <= logged


def test_without_a_key_it_says_what_it_would_make_and_how(tmp_path: Path) -> None:
    """The exit code is 0, and the YAML has the project, the name and every section."""
    done = dashboard(tmp_path, "--project", "maps", "--entity", "team", "--name", "Ours")
    assert (done.returncode, done.stderr) == (0, "")
    text, _, hint = done.stdout.rpartition("\n\n")
    spec = yaml.safe_load(text)
    assert (spec["project"], spec["name"]) == ("team/maps", "Ours")
    assert [*spec["sections"]] == ["Return", "What the scouts do", "Learning", "Speed", EACH, "Film"]
    assert hint.startswith("Nothing was made: W&B has no key here. Run `wandb login`")


def test_with_a_key_it_makes_a_new_workspace(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Its charts have agent_steps as their axis, runs of a setting are one line, and the address is printed."""
    server = serve(200, {"data": {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}})
    done = dashboard(tmp_path, "--project", "maps", **with_key(server))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Made: {with_key(server)['WANDB_BASE_URL']}/me/maps?nw=abc\n"
    (asked,) = server.asked
    assert (asked["entityName"], asked["projectName"], asked["displayName"]) == ("me", "maps", "Scouts")
    assert "id" not in asked  # so that none that is there is changed
    section = json.loads(asked["spec"])["section"]
    charts = {
        part["name"]: [
            (config["xAxis"], *(config["metrics"] or [config["metricRegex"]]))
            for panel in part["panels"]
            if "Plot" in panel["viewType"]
            for config in [panel["config"]]
        ]
        for part in section["panelBankConfig"]["sections"]
    }
    expected = {name: [("agent_steps", *metrics) for metrics in parts.values()] for name, parts in SECTIONS.items()}
    each = [("agent_steps", regex) for regex in EACH_MISSION.values()]
    assert charts == {**expected, EACH: each, "Film": []}
    assert [part["isOpen"] for part in section["panelBankConfig"]["sections"]] == [*[True] * len(SECTIONS), False, True]
    assert section["runSets"][0]["grouping"] == [{"section": "config", "name": "setting.value"}]


@pytest.mark.parametrize(
    ("status", "made", "reason"),
    [
        (200, {"errors": [{"message": "permission denied"}], "data": {"upsertView": None}}, "permission denied"),
        (200, {"data": {"upsertView": None}}, "'NoneType' object is not subscriptable"),
        (403, {}, "returned error 403"),
    ],
    ids=["refuses", "answers oddly", "forbids"],
)
def test_a_server_that_refuses_is_one_message(
    status: int, made: dict[str, Any], reason: str, serve: Callable[..., Server], tmp_path: Path
) -> None:
    """It names the server and the reason and says what to look at; the exit code is 1."""
    server = serve(status, made)
    done = dashboard(tmp_path, **with_key(server))
    assert (done.returncode, done.stdout) == (1, "")
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"{with_key(server)['WANDB_BASE_URL']} did not make the workspace in --project scout: ")
    assert reason in message
    assert message.endswith("See that the server can be reached, the key is valid and the project is there")


def test_a_server_that_is_gone_is_one_message(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Nobody listens there any more: it ends within the timeout, and asks for nothing."""
    server = serve(200, {})
    server.shutdown()
    server.server_close()
    done = dashboard(tmp_path, **with_key(server))
    assert (done.returncode, done.stdout) == (1, "")
    (message,) = done.stderr.splitlines()
    assert "did not make the workspace" in message


def test_a_key_that_is_none_is_one_message(tmp_path: Path) -> None:
    """W&B itself refuses a key of 5 letters, before it asks a server."""
    done = dashboard(tmp_path, WANDB_API_KEY="short")
    assert (done.returncode, done.stdout) == (1, "")
    (message,) = done.stderr.splitlines()
    assert "WANDB_API_KEY invalid" in message
