"""`python -m scout.submit`: from a run folder to a leaderboard's server, and what came back."""

import json
import logging
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT, run_script, tiny_experiment, wait_until
from evaluation_helpers import ENV_INFO, network_of, run_folder
from leaderboard_server import TOKEN, LeaderboardServer
from test_tracking import records_in, summary, wandb_folders

from scout.config import Experiment
from scout.contestants import make_contestants
from scout.errors import ScoutError
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.mission import make_game
from scout.models import make_model
from scout.policies import NetworkPolicy
from scout.statistics import bootstrap_interval
from scout.submission.bundle import Bundle
from scout.submission.proof import prove
from scout.submission.steps import submit
from scout.submit_config import SubmitConfig

STEPS = 200
EXPERIMENT = tiny_experiment(mission={"num_agents": 1, "max_steps": 20}, wandb={"mode": "offline"})


def serving(experiment: Experiment) -> LeaderboardServer:
    """A leaderboard's server on loopback, whose season plays the mission of an experiment."""
    return LeaderboardServer(TOKEN, json.loads(make_game(experiment.mission).model_dump_json()))


@pytest.fixture
def server() -> Iterator[LeaderboardServer]:
    """The server of a small mission."""
    with serving(EXPERIMENT) as running:
        yield running
        running.check()


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user whom cogames does not know yet."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def log_in(server: LeaderboardServer) -> None:
    """Stores the token, with cogames' own command."""
    command = [sys.executable, "-m", "cogames", "auth", "set-token", TOKEN, "--server", server.login_url]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run's folder, as far as a submission reads it."""
    folder = run_folder(tmp_path / "run", EXPERIMENT, network_of(1))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "wandb_id": "abcd1234"}))
    return folder


def config_of(server: LeaderboardServer, run_dir: Path, **changes: Any) -> SubmitConfig:
    """A submission of one episode's proof."""
    base = {"checkpoint": str(run_dir), "name": "my-scout", "episodes": 1}
    return SubmitConfig.model_validate(base | {"server": server.url, "login_server": server.login_url} | changes)


def test_a_user_who_is_not_logged_in_is_told_so_before_the_proof(
    server: LeaderboardServer, user: Path, run_dir: Path, tmp_path: Path
) -> None:
    """The bundle is there, nothing was played, and nothing was asked for."""
    (tmp_path / "out").mkdir()
    with pytest.raises(ScoutError, match=r"nobody is logged in: call `cogames login --login-server .*` first"):
        submit(config_of(server, run_dir), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bundle.zip"]
    assert server.requests == []
    assert not (user / ".metta/scout").exists()


def test_bundle_only_stops_at_the_zip(run_dir: Path, tmp_path: Path) -> None:
    """The command asks nobody, says where the bundle is, and may be given again."""
    keys = [f"checkpoint={run_dir}", "bundle_only=true", f"hydra.run.dir={tmp_path / 'out'}"]
    done = run_script("-m", "scout.submit", *keys)
    assert done.returncode == 0, done.stderr
    assert f"Bundle: {tmp_path / 'out/bundle.zip'} (" in done.stderr
    played = f"cogames eval -m cogsguard_arena.scout_tutorial -p {tmp_path / 'out/bundle.zip'} -e 1"
    assert done.stderr.rstrip().endswith(f" MB, scout.policy.ScoutPolicy)\nPlay it: {played}")
    again = submit(SubmitConfig(checkpoint=str(run_dir), bundle_only=True), tmp_path / "out")
    assert again.bundle.path.read_bytes() == (tmp_path / "out/bundle.zip").read_bytes()


def test_a_run_is_not_harmed_by_a_bundle_in_its_own_folder(run_dir: Path) -> None:
    """With hydra.run.dir=RUN_DIR the bundle is one more file, and nothing else changes."""
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    submit(SubmitConfig(checkpoint=str(run_dir), bundle_only=True), run_dir)
    after = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert {path for path in after if path not in before} == {run_dir / "bundle.zip"}
    assert {path: after[path] for path in before} == before


def test_what_cannot_be_written_is_one_message(run_dir: Path, tmp_path: Path) -> None:
    """The system's refusal names the file and what to do."""
    (tmp_path / "bundle.tmp").mkdir()
    with pytest.raises(ScoutError, match=r"bundle\.tmp cannot be written \(Is a directory\): choose another folder"):
        submit(SubmitConfig(checkpoint=str(run_dir), bundle_only=True), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["checkpoint=pretrained"],
            "name=null says nothing: expected what to call the scout, for instance name=my-scout",
        ),
        (
            ["checkpoint=pretrained", "name=a:b"],
            "name=a:b is not valid: expected at most 64 characters, no space and no",
        ),
        (["name=x", "checkpoint="], "checkpoint= says nothing: expected a run folder"),
        (["name=x"], "checkpoint=null says nothing: expected a run folder, for instance checkpoint=RUN_DIR"),
        (["checkpoint=pretrained", "name=x", "server=host"], "server=host is not valid: expected http(s)://HOST"),
        (["checkpoint=pretrained", "bundle_only=true", "season=s"], "season has no effect with bundle_only=true"),
        (["checkpoint=pretrained", "nmae=x"], "nmae=x is not a key at the top level; did you mean name?"),
    ],
)
def test_a_wrong_key_is_one_message(overrides: list[str], message: str, tmp_path: Path) -> None:
    """It names the key and what was expected, and the exit code is 1."""
    done = run_script("-m", "scout.submit", *overrides, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_dry_run_does_everything_but_the_upload(
    server: LeaderboardServer, user: Path, run_dir: Path, tmp_path: Path
) -> None:
    """The bundle is proven and validated on the season's mission; nothing is sent and nothing noted as sent."""
    log_in(server)
    (tmp_path / "out").mkdir()
    found = submit(config_of(server, run_dir, dry_run=True), tmp_path / "out")
    assert found.answer is None
    assert found.proof is not None
    assert "Policy validated successfully" in (tmp_path / "out/proof.log").read_text()
    assert json.loads((tmp_path / "out/proof.json").read_text()) == {
        "config": config_of(server, run_dir, dry_run=True).model_dump(),
        "sha256": found.bundle.sha256,
        **asdict(found.proof),
    }
    assert [request for request in server.requests if not request.startswith("GET ")] == []
    assert not (run_dir / "submissions.jsonl").exists()


@pytest.mark.slow
def test_a_dry_run_proves_the_bundle_where_no_server_would_take_it(
    server: LeaderboardServer, user: Path, run_dir: Path, tmp_path: Path
) -> None:
    """Nobody is logged in: the proof is made and stored all the same, and the message has both."""
    (tmp_path / "out").mkdir()
    with pytest.raises(
        ScoutError, match=r"The bundle is sound, but it could not be sent: login_server=.* nobody is logg"
    ):
        submit(config_of(server, run_dir, dry_run=True), tmp_path / "out")
    assert json.loads((tmp_path / "out/proof.json").read_text())["episodes"][0]["steps"] == 20


@pytest.mark.slow
def test_a_bundle_that_does_not_fit_the_seasons_mission_is_not_sent(
    server: LeaderboardServer, user: Path, run_dir: Path, tmp_path: Path
) -> None:
    """Its own mission it plays, but in the season's it sees less: cogames' validation fails, and the reason is told."""
    log_in(server)
    assert server.game is not None
    server.game["game"]["obs"] |= {"height": 7, "width": 7}
    (tmp_path / "out").mkdir()
    reason = r"RuntimeError: Error\(s\) in loading state_dict for CnnLstm: size mismatch for _cnn_fc.weight"
    with pytest.raises(ScoutError, match=f"The bundle fails on the mission of season open-league: {reason}"):
        submit(config_of(server, run_dir), tmp_path / "out")
    assert server.arrived == []


@pytest.mark.slow
def test_the_answer_is_kept_in_the_run_folder_and_in_wandb(
    server: LeaderboardServer, user: Path, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Id, name, version, pools and season; sent again, the same bundle stays the same version."""
    log_in(server)
    (tmp_path / "out").mkdir()
    with caplog.at_level(logging.DEBUG):
        answer = submit(config_of(server, run_dir), tmp_path / "out").answer
    assert answer is not None
    (version,) = server.versions
    assert (answer.id, answer.version, answer.pools) == (version["id"], 1, ["qualifying"])
    (line,) = (run_dir / "submissions.jsonl").read_text().splitlines()
    assert json.loads(line).items() >= asdict(answer).items()
    (part,) = wandb_folders(run_dir)
    assert part.name.endswith("-abcd1234")
    told = {"id": answer.id, "name": "my-scout", "version": 1, "pools": ["qualifying"], "season": "open-league"}
    in_wandb = summary(records_in(part))
    assert {name: in_wandb[f"submission/{name}"] for name in told} == told
    assert TOKEN not in caplog.text

    (run_dir / "submissions.jsonl").unlink()  # as where a call is killed after the server's answer
    for name in ("again", "once more"):
        (tmp_path / name).mkdir()
        again = submit(config_of(server, run_dir), tmp_path / name)
        assert (again.answer, again.proof) == (answer, None)
        assert len(server.arrived) == len((run_dir / "submissions.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_it_ends_no_process_of_the_proof_is_left(number: signal.Signals, tmp_path: Path) -> None:
    """While a network hangs in an agent's own process the command is ended; its folder goes too, but if killed."""
    model = {"target": "own_network.OwnNetwork", "options": {"fault": "hangs_on_server"}, "hidden_size": 8}
    experiment = tiny_experiment(mission={"num_agents": 1, "max_steps": 20}, model={"name": "conv", **model})
    run_dir = run_folder(tmp_path / "run", experiment, make_model(experiment.model, ENV_INFO))
    keys = [f"checkpoint={run_dir}", "name=x", "dry_run=true", "episodes=2", f"hydra.run.dir={tmp_path / 'out'}"]
    (tmp_path / "tmp").mkdir()
    variables = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT / "tests")}
    process = subprocess.Popen(
        [sys.executable, "-m", "scout.submit", *keys],
        cwd=ROOT,
        env=variables,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's job in the background ignores it
    )

    def players() -> list[int]:
        found = psutil.process_iter(["pid", "environ"])
        return [one.pid for one in found if str(tmp_path / "tmp") in ((one.info["environ"] or {}).get("TMPDIR") or "")]

    wait_until(lambda: len(players()) >= 4)  # the command, what plays, an agent, the episode
    process.send_signal(number)
    assert process.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}.get(number, -9)
    wait_until(lambda: players() == [], seconds=10)
    assert (list((tmp_path / "tmp").iterdir()) == []) == (number != signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "class_path"),
    [
        (["model=cnn_lstm", "model.hidden_size=512"], "cogames.policy.tutorial_policy.TutorialPolicy"),
        (["model=conv"], "scout.policy.ScoutPolicy"),
    ],
)
def test_a_run_arrives_at_the_leaderboard_and_plays_there_as_it_was_judged(
    network: list[str], class_path: str, user: Path, tmp_path: Path
) -> None:
    """Trained, bundled, validated and uploaded by commands; the zip that arrived returns what evaluate.py says.

    That is, the 95% intervals of both on the same six maps overlap. The token is in no file that the commands wrote.
    """
    run_dir, mission = tmp_path / "run", {"num_agents": 2, "max_steps": STEPS}
    smoke = ["experiment=smoke", "device=cpu", "evaluation.film=false", *network]
    smoke += [f"mission.{key}={value}" for key, value in mission.items()]
    trained = run_script("train.py", f"hydra.run.dir={run_dir}", *smoke, timeout=300)
    assert trained.returncode == 0, trained.stderr
    with serving(tiny_experiment(mission=mission)) as server:
        log_in(server)
        urls = [f"server={server.url}", f"login_server={server.login_url}"]
        command = ["-m", "scout.submit", f"checkpoint={run_dir}", "name=my-scout", "episodes=1", *urls]
        done = run_script(*command, f"hydra.run.dir={tmp_path / 'out'}", timeout=400)
        assert done.returncode == 0, done.stderr
        (arrived,) = server.arrived
        server.check()
    assert arrived == (tmp_path / "out/bundle.zip").read_bytes()
    assert "On the leaderboard: my-scout:v1, in qualifying (id " in done.stderr
    assert json.loads((run_dir / "submissions.jsonl").read_text())["version"] == 1

    config = EvaluationConfig(checkpoint=str(run_dir), episodes=6, seed=5)
    judged = evaluate(config, tmp_path / "judged")
    (scout, *_), _, game = make_contestants(config)
    (tmp_path / "arrived.zip").write_bytes(arrived)
    bundle = Bundle(tmp_path / "arrived.zip", class_path, "", len(arrived))
    assert isinstance(scout.policy, NetworkPolicy)
    log_path = tmp_path / "proof.log"
    proof = prove(bundle, scout.policy, game, seed=5, episodes=6, action_timeout_ms=2000, log_path=log_path)
    theirs, ours = bootstrap_interval([episode.bundle_return for episode in proof.episodes]), judged.interval
    assert theirs is not None
    assert ours is not None
    assert theirs[0] <= ours[1]
    assert ours[0] <= theirs[1]

    with zipfile.ZipFile(tmp_path / "arrived.zip") as archive:
        assert json.loads(archive.read("policy_spec.json"))["class_path"] == class_path
        assert [name for name in archive.namelist() if TOKEN.encode() in archive.read(name)] == []
    written = [path for path in tmp_path.rglob("*") if path.is_file() and user not in path.parents]
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in done.stdout + done.stderr
