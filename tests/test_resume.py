"""Which run is resumed and with what changed, what it says of it, and what is refused."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script, tiny_experiment, tiny_overrides
from curriculum_helpers import in_turn
from resume_helpers import assert_equal, lines_of, metrics_of, resumed

from scout import cli
from scout.checkpoint import newest_state
from scout.config import Experiment
from scout.errors import ScoutError
from scout.resume import is_same, unfinished_run, with_overrides
from scout.run_folder import RunFolder, load_experiment
from scout.validation import flat


@pytest.fixture
def unfinished(finished_run: Path, tmp_path: Path) -> Path:
    """A run of two updates that was killed after its first: metrics of both, one checkpoint."""
    copy = tmp_path / "runs" / "unfinished"
    shutil.copytree(finished_run, copy)
    (copy / "checkpoints" / "000002.pt").unlink()
    return as_if_running(copy)


def as_if_running(run_dir: Path) -> Path:
    """The run's status as it was while it trained."""
    status = json.loads((run_dir / "status.json").read_text())
    (run_dir / "status.json").write_text(json.dumps({**status, "state": "running"}))
    return run_dir


def test_excursions_can_begin_and_end_with_a_resume(unfinished: Path) -> None:
    """A run without any goes on with some, and is made longer without again."""
    resumed(unfinished, trainer={"excursion_share": 0.4, "excursion_length": 5})
    with_some = newest_state(unfinished)
    assert with_some is not None
    assert with_some["trainer"]["excursions"]["left"].any()
    resumed(unfinished, total_timesteps=3 * 256, trainer={"excursion_share": 0.0, "excursion_length": 60})
    without = newest_state(unfinished)
    assert without is not None
    assert "excursions" not in without["trainer"]
    assert [line["update"] for line in metrics_of(unfinished)] == [1, 2, 3]


def test_a_run_goes_on_in_its_folder_and_its_wandb_run(unfinished: Path) -> None:
    """Resumed, a run has its two updates once each, its state says finished, and W&B's second part has the same id."""
    resumed(unfinished)
    status = json.loads((unfinished / "status.json").read_text())
    assert status["state"] == "finished"
    assert [(entry["update"], entry["changes"]) for entry in status["resumed"]] == [(1, [])]
    assert [line["update"] for line in metrics_of(unfinished)] == [1, 2]
    names = [path.name for path in (unfinished / "wandb").glob("offline-run-*")]
    assert len(names) == 2
    assert {name.rpartition("-")[2] for name in names} == {status["wandb_id"]}


def test_the_command_lines_keys_win_and_the_difference_is_printed(unfinished: Path) -> None:
    """`resume=RUN optimizer.learning_rate=1e-5` trains on at that rate, says so, and keeps all that was not named."""
    keys = ("optimizer.learning_rate=1e-5", "optimizer.anneal_lr=false", "device.threads=1", "wandb=disabled")
    done = run_script("train.py", f"resume={unfinished}", *keys)
    assert done.returncode == 0, done.stderr
    assert "Changed: optimizer.learning_rate: 0.00092 -> 1e-05\n" in done.stderr
    assert metrics_of(unfinished)[1]["optimizer/learning_rate"] == 1e-5
    expected = tiny_experiment(
        optimizer={"learning_rate": 1e-5, "anneal_lr": False}, device={"threads": 1}, wandb={"mode": "disabled"}
    )
    assert load_experiment(unfinished) == expected
    assert [line["update"] for line in metrics_of(unfinished)] == [1, 2]
    assert done.stderr in without_dates((unfinished / "train.log").read_text())  # and not in a folder of its own


def without_dates(log: str) -> str:
    return re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ", "", log, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"hidden_size": 32}}, "model.hidden_size=32 cannot be resumed with, the run has 16"),
        ({"mission": {"max_steps": 30}}, "mission.max_steps=30 cannot be resumed with, the run has 25"),
        ({"mission": {"num_agents": 2}}, "mission.num_agents=2 cannot be resumed with"),
        ({"vecenv": {"num_envs": 2}}, "vecenv.num_envs=2 cannot be resumed with"),
        ({"trainer": {"batch_size": 512}}, "trainer.batch_size=512 cannot be resumed with"),
        ({"seed": 5}, "seed=5 cannot be resumed with"),
        ({"optimizer": {"name": "muon"}}, "optimizer.name=muon cannot be resumed with"),
        ({"curriculum": in_turn(25)["curriculum"]}, "curriculum.name=three cannot be resumed with, the run has none"),
    ],
)
def test_what_cannot_change_is_refused_with_the_reason(changes: dict[str, Any], named: str, unfinished: Path) -> None:
    """Architecture, mission, seed and the like: an error names the key, both values, why, and what to do instead."""
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    with pytest.raises(ScoutError) as refused:
        resumed(unfinished, **changes)
    assert named in str(refused.value)
    assert "initial_weights=RUN_DIR" in str(refused.value)
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


def test_a_run_from_before_there_were_curricula_is_found() -> None:
    """A stored config without the group is what the defaults ask for, and not what asks for a curriculum."""
    stored = {key: value for key, value in flat(tiny_experiment().model_dump()).items() if "curriculum" not in key}
    assert is_same(tiny_experiment(), stored)
    assert not is_same(tiny_experiment(**in_turn(25)), stored)
    assert not is_same(tiny_experiment(seed=5), stored)


def test_a_finished_run_says_that_it_is_finished(finished_run: Path, tmp_path: Path) -> None:
    """`resume=RUN` of a finished run changes nothing, says that it is finished and how to extend it, and exits 0."""
    run_dir = shutil.copytree(finished_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    done = run_script("train.py", f"resume={run_dir}")
    assert done.returncode == 0
    assert "is finished: it has 512 of 512 agent steps. A larger total_timesteps makes it go on" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_killed_after_its_last_checkpoint_is_finished_by_a_resume(finished_run: Path, tmp_path: Path) -> None:
    """Its status still said running: resuming it makes nothing anew, and `resume=auto` no longer finds it."""
    run_dir = as_if_running(Path(shutil.copytree(finished_run, tmp_path / "run")))
    resumed(run_dir)
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["agent_steps"], "resumed" in status) == ("finished", 512, False)
    assert unfinished_run(tiny_experiment(wandb={"mode": "offline"}), [run_dir]) is None


def test_a_larger_total_extends_a_finished_run_along_the_new_schedule(train_tiny: Callable[..., Path]) -> None:
    """Two updates extended to four: the third has the learning rate of the third of four, by hand.

    The cosine over 4 updates at update 2 of 0 to 3: 0.00092 x (1 + cos(pi x 2/4)) / 2 = 0.00046.
    """
    run_dir = train_tiny()
    resumed(run_dir, total_timesteps=1024)
    rates = [line["optimizer/learning_rate"] for line in metrics_of(run_dir)]
    assert rates == pytest.approx([0.00092, 0.00046, 0.00046, 0.00092 * (1 + math.cos(math.pi * 3 / 4)) / 2])
    assert json.loads((run_dir / "status.json").read_text())["resumed"][0]["changes"] == [
        "total_timesteps: 512 -> 1024"
    ]


def test_pufferls_schedule_is_extended_as_well(train_tiny: Callable[..., Path]) -> None:
    """Under trainer=pufferl the extended run's third update has half of the first rate, as in one run of four."""
    run_dir = train_tiny(trainer={"name": "pufferl"})
    resumed(run_dir, total_timesteps=1024)
    assert metrics_of(run_dir)[2]["optimizer/learning_rate"] == pytest.approx(0.00046)


def test_a_run_killed_before_its_first_checkpoint_starts_again(unfinished: Path, finished_run: Path) -> None:
    """Without a checkpoint the run begins from its config, and drops what it had recorded."""
    (unfinished / "checkpoints" / "000001.pt").unlink()
    resumed(unfinished)
    assert metrics_of(unfinished) == metrics_of(finished_run)
    assert_equal(newest_state(unfinished), newest_state(finished_run))


def test_resume_auto_takes_the_newest_unfinished_run_of_the_same_config(unfinished: Path, tmp_path: Path) -> None:
    """Not a finished run, an older one, one of another seed, or one that a process is training; else none."""
    runs = unfinished.parent
    for name, changes in {
        "finished": {"state": "finished"},
        "older": {"started": "2001-01-01T00:00:00+00:00"},
        "trained": {"started": "2999-01-01T00:00:00+00:00"},
        "other": {},
    }.items():
        shutil.copytree(unfinished, runs / name)
        status = json.loads((runs / name / "status.json").read_text())
        (runs / name / "status.json").write_text(json.dumps({**status, **changes}))
    config = (runs / "other" / "config.yaml").read_text()
    (runs / "other" / "config.yaml").write_text(config.replace("seed: 1", "seed: 2"))
    (runs / "broken").mkdir()
    (runs / "broken" / "status.json").write_text("{")
    asked = tiny_experiment(wandb={"mode": "offline"}, device={"precision": "auto"})
    holder = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", holder, str(runs / "trained" / "metrics.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert unfinished_run(asked, runs.iterdir()) == unfinished
        with pytest.raises(ScoutError, match=r"is being trained by process \d+: wait for it, or end it first"):
            resumed(runs / "trained")
        process.kill()
    assert unfinished_run(tiny_experiment(seed=3), runs.iterdir()) is None


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_taken(
    train_tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """With bits of the third checkpoint flipped the run goes on from the second, and ends as it did before."""
    whole = train_tiny(total_timesteps=768)
    expected, metrics = newest_state(whole), metrics_of(whole)
    newest = as_if_running(whole) / "checkpoints" / "000003.pt"
    content = bytearray(newest.read_bytes())
    for position in range(500, len(content), 1000):
        content[position] ^= 1
    newest.write_bytes(content)
    resumed(whole)
    assert any(
        "000003.pt" in record.message and "the one before it is taken" in record.message for record in caplog.records
    )
    assert_equal(newest_state(whole), expected)
    assert metrics_of(whole) == metrics


def test_a_run_without_an_intact_checkpoint_is_refused(unfinished: Path) -> None:
    """When its only checkpoint is cut short the error says that there is none to go on from; nothing is lost."""
    only = unfinished / "checkpoints" / "000001.pt"
    only.write_bytes(only.read_bytes()[:1000])
    with pytest.raises(ScoutError, match="has no intact checkpoint to resume from, of 1"):
        resumed(unfinished)
    assert len(lines_of(unfinished)) == 2


def test_resuming_what_is_not_a_run_is_one_message(tmp_path: Path) -> None:
    """A folder that is not there, or holds no run, is named, with what was expected; the exit code is 1."""
    done = run_script("train.py", f"resume={tmp_path / 'nowhere'}", f"hydra.run.dir={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr == (
        f"{tmp_path / 'nowhere'} has no config.yaml, so it is not a run folder: expected what train.py left behind\n"
    )


def test_a_resumed_run_holds_its_lock(unfinished: Path) -> None:
    """While a resumed run goes on, a second process is told so: going on reads the very file that is locked."""
    folder = RunFolder.of(unfinished)
    folder.go_on(load_experiment(unfinished), 1, [])
    folder.returns()
    probe = "import sys, pathlib; from scout.run_folder import is_running; print(is_running(pathlib.Path(sys.argv[1])))"
    assert run_script("-c", probe, str(unfinished)).stdout == "True\n"
    folder.finish("interrupted")
    assert run_script("-c", probe, str(unfinished)).stdout == "False\n"


def test_resume_auto_in_a_folder_of_its_own_says_when_it_has_finished(finished_run: Path, tmp_path: Path) -> None:
    """The same command once more, after the run in hydra.run.dir has finished, exits 0 and changes no result."""
    run_dir = shutil.copytree(finished_run, tmp_path / "run")
    again = [*tiny_overrides(wandb={"mode": "offline"}), "resume=auto", f"hydra.run.dir={run_dir}"]
    done = run_script("train.py", *again)
    assert (done.returncode, "is finished: it has 512 of 512 agent steps" in done.stderr) == (0, True), done.stderr
    assert metrics_of(run_dir) == metrics_of(finished_run)


def test_another_option_of_a_group_keeps_what_cannot_change(unfinished: Path) -> None:
    """`vecenv=multiprocessing` on a run with 4 environments of its own takes its workers and leaves the 4."""
    composed: dict[str, Any] = {
        "vecenv": {**Experiment().vecenv.model_dump(), "name": "multiprocessing", "num_workers": 2}
    }
    experiment = with_overrides(unfinished, composed, ["vecenv"])
    assert (experiment.vecenv.name, experiment.vecenv.num_workers, experiment.vecenv.num_envs) == (
        "multiprocessing",
        2,
        4,
    )


def test_an_experiment_named_on_resume_sets_its_keys(unfinished: Path) -> None:
    """`experiment=NAME resume=RUN` takes every key that the recipe sets, and the groups that it chooses."""
    keys = cli._overridden_keys(
        [f"resume={unfinished}", "experiment=notebook", "optimizer.adam_eps=1e-7", "wandb=disabled"]
    )
    assert {"mission", "trainer", "total_timesteps", "trainer.gamma", "optimizer.adam_eps", "wandb"} <= set(keys)
    assert not any(key.startswith(("resume", "experiment")) for key in keys)
