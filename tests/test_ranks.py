"""One run on several processes: the same as one process with the environments of all, one record, one end for all."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, run_script, tiny_experiment, tiny_overrides, wait_until
from rank_helpers import UPDATES, VARIANTS, Job, experiment_of, updates

from scout.checkpoint import newest_state, numbered_checkpoints
from scout.ranks import ALONE
from scout.run_folder import load_experiment

EXCURSIONS: dict[str, Any] = {"trainer": {"excursion_share": 0.3, "excursion_length": 5}}
LONG: dict[str, Any] = {**EXCURSIONS, "total_timesteps": 30 * 512, "checkpoint": {"interval": 4, "keep": 100}}


def metrics_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    path = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if not key.startswith("performance/")} for line in lines]


def status_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "status.json").read_text())


@pytest.fixture
def start() -> Iterator[Callable[..., Job]]:
    """Starts `torchrun train.py` with two processes, and ends what is left of it."""
    jobs: list[Job] = []

    def begin(*overrides: str, restarts: int = 0) -> Job:
        jobs.append(Job("train.py", *overrides, restarts=restarts))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.kill()


# -- learning ----------------------------------------------------------------------------------------------------------


Found = list[list[dict[str, Any]]]
"""Of each rank, what it has after each update."""


def of_both_ranks(folder: Path, variant: str) -> Found:
    """Five updates of two ranks, with excursions and episodes that end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    code, shown = Job(str(ROOT / "tests" / "rank_helpers.py"), str(folder), variant, env=environment).end()
    assert code == 0, shown
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return of_both_ranks(tmp_path_factory.mktemp("ranks"), "plain")


def assert_in_step(both: Found) -> None:
    """All is the same on both ranks after each update, but for the environments."""
    assert len(both[0]) == UPDATES
    for first, second in zip(*both, strict=True):
        for name, parameter in first["parameters"].items():
            assert torch.equal(parameter, second["parameters"][name]), name
        assert torch.equal(first["generator"], second["generator"])
        assert first["losses"] == second["losses"]
        assert first["reward_scale"] == second["reward_scale"]
        assert not torch.equal(first["first_observations"], second["first_observations"])
        assert first["excursion"].any()
    assert sum(int(update["ended"].sum()) for rank in both for update in rank) > 0


def test_both_ranks_have_the_same_parameters_after_every_update(both: Found) -> None:
    """Bit for bit, though each played other environments; losses, scale of rewards and generators are alike too."""
    assert_in_step(both)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "plain"])
def test_ranks_stay_in_step_under_other_settings(variant: str, tmp_path: Path) -> None:
    """The same bits with worker processes, priorities and an early end, parts of minibatches, and in bfloat16."""
    both = of_both_ranks(tmp_path, variant)
    assert_in_step(both)
    if "target_kl" in VARIANTS[variant].get("trainer", {}):
        assert any(update["losses"]["minibatches"] < 8 for update in both[0])


def test_two_ranks_are_one_process_with_the_environments_of_both(both: Found) -> None:
    """After five updates on the same minibatches all parameters and losses agree to 1e-5, and all actions."""
    alone = updates(ALONE, experiment_of(1))
    for first, second, whole in zip(*both, alone, strict=True):
        for name, parameter in first["parameters"].items():
            torch.testing.assert_close(parameter, whole["parameters"][name], rtol=0, atol=1e-5)
        assert first["losses"] == pytest.approx(whole["losses"], abs=1e-5)
        assert first["reward_scale"] == pytest.approx(whole["reward_scale"])
        for part in (
            "actions",
            "excursion",
            "ended",
        ):  # segments of the whole: both agents' first ones, then their second
            pairs = zip(first[part].chunk(2), second[part].chunk(2), strict=True)
            assert torch.equal(torch.cat([half for pair in pairs for half in pair]), whole[part]), part
        assert first["agent_steps"] == second["agent_steps"] == whole["agent_steps"]
        assert (first["episodes"], second["episodes"]) == (whole["episodes"], 0)  # the first rank logs those of both
    moved = [
        (alone[0]["parameters"][name] - alone[-1]["parameters"][name]).abs().max() for name in alone[0]["parameters"]
    ]
    assert max(moved) > 1e-3


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_of_two_makes_one_run(start: Callable[..., Job], tmp_path: Path) -> None:
    """One folder, one line an update, the steps of both; held-out evaluation, and all that one process leaves."""
    run_dir = tmp_path / "runs" / "run"
    changes = {**EXCURSIONS, "total_timesteps": 1024, "evaluation": {"every": 512, "episodes": 1}}
    code, shown = start(*tiny_overrides(**changes), f"hydra.run.dir={run_dir}").end()
    assert code == 0, shown
    assert [path.name for path in run_dir.parent.iterdir()] == ["run"]
    assert {path.name for path in run_dir.iterdir()} == {
        *("checkpoints", "config.yaml", "metrics.jsonl", "status.json", "train.log", "versions.json")
    }
    lines = metrics_of(run_dir)
    assert [(line["update"], line["agent_steps"]) for line in lines] == [(1, 512), (2, 1024)]
    assert all("evaluation/return" in line for line in lines)
    assert shown.count("Run folder:") == 1
    assert "Processes: 2, each with 4 environments" in shown
    assert "Traceback" not in shown
    assert status_of(run_dir)["state"] == "finished"
    assert load_experiment(run_dir) == tiny_experiment(**changes)
    state = newest_state(run_dir)
    assert state is not None
    assert state["trainer"]["lstm_h"].shape == (2 * 16, 16)  # of the agents of both
    assert state["environments"]["actions"].shape[::2] == (8, 4)
    assert len(state["trainer"]["excursions"]["left"]) == 32
    played = [state["environments"]["actions"][i, : state["environments"]["steps"][i]] for i in range(8)]
    assert not any(torch.equal(played[i], played[i + 4]) for i in range(4))


@pytest.mark.slow
def test_a_mistake_is_said_once(start: Callable[..., Job], tmp_path: Path) -> None:
    """What no job of several processes can be is refused in one message, with what to take instead; nothing is left."""
    run_dir = tmp_path / "run"
    names = ["trainer=pufferl", "vecenv.num_envs=auto"]
    overrides = [
        line for line in tiny_overrides(wandb={"mode": "disabled"}) if not line.startswith(("trainer", "vecenv"))
    ]
    code, shown = start(*overrides, *names, f"hydra.run.dir={run_dir}").end()
    assert code == 1
    assert shown.count("trainer=pufferl trains in one process, not in 2: take trainer=ppo") == 1
    assert shown.count("vecenv.num_envs=auto is measured in one process") == 1
    assert "scout/" not in shown
    assert not (run_dir / "status.json").exists()


@pytest.mark.slow
def test_what_one_rank_alone_cannot_build_ends_the_job_at_once(tmp_path: Path) -> None:
    """A mission that only the first rank can make: the reason is said, with the rank that has it, and nobody waits."""
    (tmp_path / "half_a_mission.py").write_text(
        "import os\n"
        "from scout.errors import ScoutError\n"
        "from scout.mission import make_game\n"
        "def mission(config):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise ScoutError('there is no mission here')\n"
        "    return make_game(config.model_copy(update={'target': None}))\n"
    )
    command = ("train.py", *tiny_overrides(), "mission.target=half_a_mission.mission")
    job = Job(*command, f"hydra.run.dir={tmp_path / 'run'}", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    code, shown = job.end(timeout=60)
    assert code == 1
    assert shown.count("rank 1: there is no mission here") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("train.py", "-m", "seed=1,2"), "A sweep makes runs of one process each"),
        (("train.py", "sweep=seeds"), "A sweep makes runs of one process each"),
        (("train.py", "seeed=1"), "seeed=1 is not a key"),
        (("train.py", "seed=x"), "seed=x is not valid"),
        (("evaluate.py", "policy=noop"), "evaluate.py is no job for torchrun"),
    ],
)
def test_mistakes_before_the_ranks_meet_are_the_first_ones_to_say(
    command: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """The first one's message is all that is printed; the other waits until torchrun ends it, or for some seconds."""
    ends: list[subprocess.Popen[str]] = []
    for rank in (0, 1):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        whole = [sys.executable, *command, f"hydra.run.dir={tmp_path}"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        ends.append(subprocess.Popen(whole, cwd=ROOT, env=environment, **pipes))
    out, err = ends[0].communicate(timeout=60)
    assert (ends[0].returncode, out, len(err.splitlines())) == (1, "", 1), err
    assert said in err
    assert ends[1].poll() is None
    ends[1].terminate()
    assert ends[1].communicate(timeout=60) == ("", "")


# -- death -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_job_with_a_checkpoint(start: Callable[..., Job], tmp_path: Path) -> None:
    """After kill -9 of the second rank all is over within 30 seconds; the first says what to go on from."""
    run_dir = tmp_path / "run"
    endless = tiny_overrides(**EXCURSIONS, total_timesteps=10**9, checkpoint={"interval": 10**6})
    job = start(*endless, f"hydra.run.dir={run_dir}")
    wait_until(lambda: len(metrics_of(run_dir)) > 2)
    job.rank(1).kill()
    code, shown = job.end(timeout=30)
    assert code == 1
    assert shown.count("another rank is gone (") == 1
    assert f"resume={run_dir} goes on from checkpoint 000000.pt" in shown
    assert "scout/" not in shown  # no traceback of ours
    status = status_of(run_dir)
    assert status["state"] == "failed"
    assert "another rank is gone" in status["reason"]
    state = newest_state(run_dir)
    assert state is not None
    assert state["agent_steps"] == 0


@pytest.mark.slow
def test_nobody_waits_for_ever_for_a_rank_that_hangs(start: Callable[..., Job], tmp_path: Path) -> None:
    """With the second rank stopped and SIGTERM for the job, the first one has recorded it and left after 10 seconds."""
    run_dir = tmp_path / "run"
    job = start(*tiny_overrides(total_timesteps=10**9, checkpoint={"interval": 3}), f"hydra.run.dir={run_dir}")
    wait_until(lambda: len(metrics_of(run_dir)) > 3)
    first, second = job.rank(0), job.rank(1)
    second.suspend()
    job.process.send_signal(signal.SIGTERM)
    first.wait(timeout=15)
    status = status_of(run_dir)
    assert status["state"] == "failed"
    assert "another rank is gone (nothing came for 10 seconds)" in status["reason"]
    second.kill()
    _, shown = job.end(timeout=30)
    assert f"resume={run_dir} goes on from checkpoint 00000" in shown


@pytest.mark.slow
def test_the_last_one_speaks_where_the_first_is_gone(start: Callable[..., Job], tmp_path: Path) -> None:
    """After kill -9 of the first rank the second says once what to go on from."""
    run_dir = tmp_path / "run"
    job = start(*tiny_overrides(total_timesteps=10**9, checkpoint={"interval": 10**6}), f"hydra.run.dir={run_dir}")
    wait_until(lambda: len(metrics_of(run_dir)) > 2)
    job.rank(0).kill()
    code, shown = job.end(timeout=30)
    assert code == 1
    assert shown.count("rank 1: another rank is gone (") == 1
    assert f"resume={run_dir} goes on from checkpoint 000000.pt" in shown


@pytest.mark.slow
def test_torchrun_starts_the_job_again_and_it_goes_on(start: Callable[..., Job], tmp_path: Path) -> None:
    """With --max-restarts=1 and a rank killed, the run is finished in its folder, each update once.

    An unfinished run of the same config beside it is left alone.
    """
    run_dir = tmp_path / "runs" / "run"
    other = start(*tiny_overrides(**LONG), f"hydra.run.dir={run_dir.with_name('yesterday')}")
    wait_until(lambda: len(metrics_of(run_dir.with_name("yesterday"))) > 1)
    other.process.send_signal(signal.SIGTERM)
    other.end()
    job = start(*tiny_overrides(**LONG), f"hydra.run.dir={run_dir}", restarts=1)
    wait_until(lambda: len(metrics_of(run_dir)) > 5)
    job.rank(1).kill()
    code, shown = job.end()
    assert code == 0, shown
    assert sorted(path.name for path in run_dir.parent.iterdir()) == ["run", "yesterday"]
    assert "resumed" not in status_of(run_dir.with_name("yesterday"))
    assert [line["update"] for line in metrics_of(run_dir)] == list(range(1, 31))
    status = status_of(run_dir)
    assert (status["state"], status["resumed"][0]["update"]) == ("finished", 4)


# -- stopping and going on ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_job_goes_on_exactly(start: Callable[..., Job], tmp_path: Path) -> None:
    """Stopped by SIGTERM and resumed with as many processes, it has the numbers of one left alone, to the last bit.

    Resumed in one process it goes on too, says so, and follows the schedule of its agent steps.
    """
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    assert start(*tiny_overrides(**LONG), f"hydra.run.dir={whole}").end()[0] == 0
    job = start(*tiny_overrides(**LONG), f"hydra.run.dir={run_dir}")
    wait_until(lambda: len(metrics_of(run_dir)) > 5)
    job.process.send_signal(signal.SIGTERM)
    _, shown = job.end()
    assert f"resume={run_dir} goes on" in shown
    status = status_of(run_dir)
    assert (status["state"], status["reason"]) == ("interrupted", "SIGTERM")
    stopped = numbered_checkpoints(run_dir)[-1]
    assert int(stopped.stem) == len(metrics_of(run_dir)) < 30
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(run_dir), str(copy)], check=True)

    # It fits the run's own horizon of 16, and not the default of 64, which the other rank must not care about.
    code, shown = start(f"resume={run_dir}", "trainer.max_minibatch_size=144").end()
    assert code == 0, shown
    assert metrics_of(run_dir) == metrics_of(whole)
    first, second = newest_state(run_dir), newest_state(whole)
    assert first is not None
    assert second is not None
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name])

    done = run_script("train.py", f"resume={copy}", "checkpoint.interval=1")
    assert done.returncode == 0, done.stderr
    assert "had 2 processes of 4 environments and goes on with 1: environments 4 to 7 are left out" in done.stderr
    assert "Changed: processes: 2 -> 1" in done.stderr
    updates_of_both = int(stopped.stem)
    lines = metrics_of(copy)
    assert [line["update"] for line in lines] == list(range(1, updates_of_both + (30 - updates_of_both) * 2 + 1))
    assert lines[-1]["agent_steps"] == 30 * 512
    # The cosine at the same agent steps: what two ranks do in one update takes one process two.
    rates = {line["agent_steps"]: line["optimizer/learning_rate"] for line in metrics_of(whole)}
    for line in lines[updates_of_both + 1 :: 2]:
        assert line["optimizer/learning_rate"] < rates[line["agent_steps"]]
    for line in lines[updates_of_both::2]:
        assert line["optimizer/learning_rate"] == pytest.approx(rates[line["agent_steps"] + 256], rel=1e-6)
