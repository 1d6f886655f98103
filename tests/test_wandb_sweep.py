"""W&B's own sweeps: its two commands with conf/wandb_sweep.yaml, against a small server on loopback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, run_script, tiny_overrides
from test_tracking import history, metrics_of, records_of
from wandb_server import ENTITY, PROJECT, SWEEP, WandbServer

from scout.checkpoint import numbered_checkpoints
from scout.cli import compose_experiment
from scout.naming import setting
from scout.run_folder import load_experiment
from scout.validation import flat

SHIPPED = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())
TRIALS: dict[str, dict[str, Any]] = {
    "trial1": {
        "optimizer.learning_rate": 0.00017,
        "trainer.ent_coef": 0.0012345678901234567,
        "trainer.gamma": 0.98,
        "model": "conv",
        "seed": 2,
    },
    "trial2": {
        "optimizer.learning_rate": 0.0021,
        "trainer.ent_coef": 0.05,
        "trainer.gamma": 0.9951,
        "model": "cnn_lstm",
        "seed": 3,
    },
}
SIZES = ["model.conv_channels=[4,8]", "model.hidden_size=16"]  # which both networks have
TINY = [
    *(line for line in tiny_overrides() if not line.startswith(("model", "wandb", "evaluation", "total_timesteps"))),
    *(*SIZES, "evaluation.every=256", "evaluation.episodes=1", "evaluation.film=false"),
]


@dataclass(frozen=True)
class Sweep:
    """A sweep that is over: what both commands said, what the server has, and the run folders in their order."""

    made: subprocess.CompletedProcess[str]
    agent: subprocess.CompletedProcess[str]
    server: WandbServer
    run_dirs: list[Path]


def environment_of(home: Path, **variables: str) -> dict[str, str]:
    """Variables under which W&B has nothing of this machine's user, and finds this Python."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))}
    folders = {f"WANDB_{kind}_DIR": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"
    ours |= {"HOME": str(home), "WANDB_DIR": str(home), "PATH": path, "WANDB_ERROR_REPORTING": "false"}
    ours |= {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}  # instead of 15 seconds
    return ours | folders | variables


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sweep]]:
    """Makes the shipped sweep, with keys that make its runs tiny after its command, and lets an agent do its trials."""
    servers = []

    def run(trials: dict[str, dict[str, Any]], *keys: str, stops: bool = False) -> Sweep:
        home = tmp_path_factory.mktemp("sweep")
        run_dirs = f"hydra.run.dir={home}/runs/${{now:%Y-%m-%d_%H-%M-%S-%f}}"
        tiny = {**SHIPPED, "command": [*SHIPPED["command"], *TINY, run_dirs, *keys]}
        (home / "sweep.yaml").write_text(yaml.safe_dump(tiny))
        server = WandbServer(trials, stops)
        servers.append(server)
        environment = environment_of(home, **server.variables)
        made = run_script("-m", "wandb", "sweep", "--project", PROJECT, str(home / "sweep.yaml"), env=environment)
        agent = run_script("-m", "wandb", *made.stderr.split()[-2:], env=environment)  # as it says
        return Sweep(made, agent, server, sorted((home / "runs").iterdir()))

    yield run
    for server in servers:
        server.close()


def keys_of(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial's parameters by the names that they have in an experiment, where an option of a group is its name."""
    return {"model.name" if key == "model" else key: value for key, value in trial.items()}


@pytest.fixture(scope="module")
def finished(sweep: Callable[..., Sweep]) -> Sweep:
    """A sweep of which both trials were trained to their end."""
    return sweep(TRIALS, "total_timesteps=512")


@pytest.mark.slow
def test_the_shipped_file_makes_a_sweep_and_names_the_second_command(finished: Sweep) -> None:
    """`wandb sweep` sends conf/wandb_sweep.yaml as it is, and says which `wandb agent` to start."""
    assert finished.made.returncode == 0, finished.made.stderr
    assert finished.made.stderr.endswith(f"Run sweep agent with: wandb agent {ENTITY}/{PROJECT}/{SWEEP}\n")
    sent = yaml.safe_load(finished.server.sweep["config"])
    length = len(SHIPPED["command"])
    assert {**sent, "command": sent["command"][:length]} == SHIPPED


@pytest.mark.slow
def test_each_trial_trains_what_the_server_chose(finished: Sweep) -> None:
    """The agent ends well, and each run folder's config has the trial's values, to the last digit, and its project."""
    assert finished.agent.returncode == 0, finished.agent.stderr
    assert len(finished.run_dirs) == len(TRIALS)
    for run_dir, trial in zip(finished.run_dirs, TRIALS.values(), strict=True):
        assert json.loads((run_dir / "status.json").read_text())["state"] == "finished"
        config = flat(load_experiment(run_dir).model_dump())
        assert config.items() >= keys_of(trial).items()
        assert (config["wandb.entity"], config["wandb.project"]) == (ENTITY, PROJECT)


@pytest.mark.slow
def test_each_trial_is_the_run_that_the_server_waits_for(finished: Sweep) -> None:
    """The server knows of no other runs than those it handed out; the run folders have their ids, for a resume."""
    ids = [json.loads((run_dir / "status.json").read_text())["wandb_id"] for run_dir in finished.run_dirs]
    assert ids == [*TRIALS] == [*finished.server.runs]
    for run in finished.server.runs.values():
        assert {(made["entity"], made["project"], made["sweep"]) for made in run.made[:1]} == {(ENTITY, PROJECT, SWEEP)}


@pytest.mark.slow
def test_the_metric_of_the_sweep_arrives_at_the_server(finished: Sweep) -> None:
    """Each row that a run logged is there under the name that the file maximises, and the run ends with exit code 0."""
    metric = SHIPPED["metric"]["name"]
    for run_dir, run in zip(finished.run_dirs, finished.server.runs.values(), strict=True):
        judged = [line[metric] for line in metrics_of(run_dir)]
        assert len(judged) == 2
        assert run.logged(metric) == judged
        assert run.exit_code == 0


@pytest.mark.slow
def test_the_servers_config_has_the_swept_values_beside_the_experiment(finished: Sweep) -> None:
    """They have the sweep's names, so that `model` is a name there and the whole network lies under `experiment`."""
    for run_dir, (run_id, trial) in zip(finished.run_dirs, TRIALS.items(), strict=True):
        config = finished.server.runs[run_id].config
        assert config.keys() - {"_wandb"} == {*trial, "experiment", "setting"}
        assert config.items() >= trial.items()
        assert flat(config["experiment"]).items() >= keys_of(trial).items()
        assert config["setting"] == setting(load_experiment(run_dir))


@pytest.mark.parametrize("end", [0, -1], ids=["smallest", "largest"])
def test_every_parameter_of_the_file_is_a_key_of_train_py(end: int) -> None:
    """Both ends of each range, and first and last of the values, pass every check of the config together."""
    chosen = {key: spec.get("values") or [spec["min"], spec["max"]] for key, spec in SHIPPED["parameters"].items()}
    assert all(isinstance(values[0], int | float) for key, values in chosen.items() if key != "model")  # 1e-4 is a text
    experiment = compose_experiment("wandb=online", *(f"{key}={values[end]}" for key, values in chosen.items()))
    assert experiment.optimizer.learning_rate == chosen["optimizer.learning_rate"][end]
    assert experiment.evaluation.every is not None
    assert experiment.total_timesteps // experiment.evaluation.every == SHIPPED["early_terminate"]["max_iter"]


@pytest.fixture(scope="module")
def stopped(sweep: Callable[..., Sweep]) -> Sweep:
    """A sweep of which the server stopped both trials after their first return."""
    return sweep(TRIALS, "total_timesteps=1e8", stops=True)


@pytest.mark.slow
def test_a_trial_that_the_server_stops_ends_in_order(stopped: Sweep) -> None:
    """The agent's SIGTERM leaves a checkpoint of the last update, W&B has all that was logged, the agent goes on."""
    assert stopped.agent.returncode == 0, stopped.agent.stderr
    assert len(stopped.run_dirs) == len(TRIALS)
    for run_dir, run in zip(stopped.run_dirs, stopped.server.runs.values(), strict=True):
        status = json.loads((run_dir / "status.json").read_text())
        assert (status["state"], status["reason"]) == ("interrupted", "SIGTERM")
        update = metrics_of(run_dir)[-1]["update"]
        assert numbered_checkpoints(run_dir)[-1].stem == f"{update:06}"
        assert run.history[-1]["update"] == update
        assert run.exit_code == 1


@pytest.mark.slow
def test_a_stopped_trial_is_resumed_in_its_own_run(stopped: Sweep, tmp_path: Path) -> None:
    """Outside of the agent, with nothing but the run folder, the same run of the same project goes on to its end."""
    run_dir, (run_id, run) = stopped.run_dirs[-1], [*stopped.server.runs.items()][-1]
    done_before, requests_before = metrics_of(run_dir)[-1], len(run.made)
    keys = [f"resume={run_dir}", f"total_timesteps={done_before['agent_steps'] + 256}"]
    done = run_script("train.py", *keys, env=environment_of(tmp_path, **stopped.server.variables))
    assert done.returncode == 0, done.stderr
    assert [*stopped.server.runs] == [*TRIALS]
    made = run.made[requests_before]
    assert (made["name"], made["entity"], made["project"]) == (run_id, ENTITY, PROJECT)
    assert run.history[-1]["update"] == done_before["update"] + 1
    assert run.exit_code == 0


@pytest.mark.slow
def test_a_run_that_is_stopped_on_the_servers_page_ends_in_order(tmp_path: Path) -> None:
    """What W&B itself does to a stopped run is as a SIGTERM: a checkpoint, and exit code 143."""
    program = (
        "import sys, pathlib; from wandb.sdk.lib import run_stopping; from scout.cli import compose_experiment\n"
        "from scout.signals import Interrupted; from scout.training import train\n"
        "run_stopping.RunStopChecker.__init__.__kwdefaults__['poll_interval'] = 0.1  # instead of 15 seconds\n"
        "try: train(compose_experiment(*sys.argv[2:]), pathlib.Path(sys.argv[1]))\n"
        "except Interrupted as interruption: sys.exit(interruption.exit_code)"
    )
    server = WandbServer({}, stops=True)
    keys = [*TINY, "wandb=online", "total_timesteps=1e8", *SIZES]
    environment = environment_of(tmp_path, **server.variables)
    done = run_script("-c", program, str(tmp_path / "run"), *keys, env=environment)
    server.close()
    assert done.returncode == 143, done.stderr
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("interrupted", "SIGTERM")
    assert numbered_checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_a_trial_whose_server_is_gone_is_recorded_offline(tmp_path: Path) -> None:
    """In a sweep, too, a server that has gone costs the run nothing: its updates are in a record to be synced."""
    program = (
        "import os, sys, pathlib; from conftest import tiny_experiment; from scout import tracking\n"
        "tracking.START_SECONDS = 4\n"
        "tracker = tracking.Tracker(tiny_experiment(wandb={'mode': 'online'}), pathlib.Path(sys.argv[1]), 'trial1')\n"
        "tracker.log({'agent_steps': 256, 'update': 1})\n"
        "tracker.finish('finished')\n"
        "os._exit(0)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    (tmp_path / "parameters.yaml").write_text("seed:\n  value: 3\n")
    told = {"WANDB_SWEEP_ID": SWEEP, "WANDB_RUN_ID": "trial1", "WANDB_ENTITY": ENTITY, "WANDB_PROJECT": PROJECT}
    told |= {"WANDB_SWEEP_PARAM_PATH": str(tmp_path / "parameters.yaml"), "PYTHONPATH": f"{ROOT / 'tests'}"}
    environment = environment_of(tmp_path, **told, WANDB_BASE_URL=address, WANDB_API_KEY="0" * 40)
    done = run_script("-c", program, str(tmp_path / "run"), env=environment)
    assert done.returncode == 0, done.stderr
    assert "this run is recorded offline" in done.stderr
    assert history(records_of(tmp_path / "run")) == [{"agent_steps": 256, "update": 1}]
