"""Whatever is written on the command line or stands in a checkpoint: it trains, or one message says what is wrong.

`SCOUT_CASES=5000 make test-all ARGS=tests/test_hostile.py` tries more configs than the usual 50 and 500.
"""

import copy
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_experiment, tiny_overrides
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf.errors import OmegaConfBaseException
from resume_helpers import assert_equal

from scout import cli
from scout.checkpoint import read_checkpoint
from scout.config import Experiment
from scout.config_checks import check_machine
from scout.errors import ScoutError
from scout.progress import TrainingProgress
from scout.training import train
from scout.validation import all_keys

CASES = int(os.environ.get("SCOUT_CASES", 0))
LEAVES = [key for key in all_keys(Experiment) if not any(other.startswith(f"{key}.") for other in all_keys(Experiment))]
VALUES = [
    *(
        "0",
        "1",
        "2",
        "3",
        "7",
        "16",
        "64",
        "1000",
        "-1",
        "0.5",
        "1.0",
        "1.5",
        "-0.1",
        "1e-30",
        "1e30",
        "1e308",
        "1e400",
    ),
    *(
        "9999999999999999999999",
        "65536",
        "4294967296",
        "nan",
        "inf",
        "-inf",
        "null",
        "true",
        "false",
        "''",
        "auto",
        "[]",
    ),
    *("[1]", "[1,2]", "[1,2,3]", "[-1,0]", "{}", "{a:1}", "adam", "gru", "none", "lstm", "easy", "hard", "bfloat16"),
    *(
        "../x",
        "'${seed}'",
        "'${nowhere}'",
        "'???'",
        "äöü",
        "'a b'",
        "'%s'",
        "[scout_rewards,scout_rewards]",
        "[nothing]",
    ),
]
GROUPS = {
    "model": ["cnn_lstm", "conv", "attention", "conv_memoryless", "nothing"],
    "trainer": ["ppo", "pufferl", "''"],
    "optimizer": ["adam", "adamw", "muon", "null"],
    "mission": ["arena", "miner_tutorial", "aligner_tutorial", "scrambler_tutorial", "nowhere"],
    "vecenv": ["multiprocessing", "1"],
    "device": ["cpu", "cuda", "mps", "auto"],
    "experiment": ["smoke", "notebook", "[]", "nothing"],
    "wandb": ["disabled", "cloud"],
}
# Elsewhere: these would reach out of the test's own folder or machine, or measure for seconds.
LEFT_OUT = {"wandb.mode", "wandb.project", "wandb.entity", "wandb.group", "wandb.tags", "wandb.name"}


class Trained(BaseException):
    """One update was made."""


@pytest.fixture
def after_one_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends each training after its first update."""

    def show(*_: Any) -> None:
        raise Trained

    monkeypatch.setattr(TrainingProgress, "show", show)


def outcome(overrides: list[str]) -> str | None:
    """What `python train.py OVERRIDES` would say of a mistake; None when it trains."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            experiment = cli.compose_experiment(*overrides)
            check_machine(experiment)
            train(experiment.model_copy(update={"resume": None}), Path(folder) / "run")
        except Trained:
            return None
        except (ScoutError, HydraException, OmegaConfBaseException) as error:
            return cli._message(error, Experiment, overrides)
        except ValueError as error:
            if "Config group override" not in str(error):
                raise
            return cli._message(error, Experiment, overrides)
    return None


override = st.one_of(
    st.tuples(
        st.sampled_from(["", "", "", "+", "++", "~"]),
        st.sampled_from(sorted({*LEAVES} - LEFT_OUT)),
        st.sampled_from(VALUES),
    ).map(lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"),
    st.sampled_from([f"{group}={option}" for group, options in GROUPS.items() for option in options]),
    st.tuples(st.sampled_from(LEAVES), st.sampled_from(VALUES)).map(lambda parts: f"{parts[0]}x={parts[1]}"),
)


def names_a_key(message: str, overrides: list[str]) -> bool:
    """Whether the message has something of what was typed: a key, its last part, or the value."""
    words = {word for line in overrides for word in line.lstrip("+~").replace("=", ".").split(".") if word}
    return any(word in message for word in words) or any(key in message for key in all_keys(Experiment))


def check(overrides: list[str]) -> None:
    begun = time.monotonic()
    message = outcome([*tiny_overrides(device={"precision": "float32"}), *overrides])
    if message is not None:
        assert time.monotonic() - begun < 5
        assert "Traceback" not in message
        assert names_a_key(message, overrides), message


@pytest.mark.slow
@pytest.mark.usefixtures("after_one_update")
@settings(
    max_examples=CASES or 50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(override, min_size=1, max_size=3))
@example(["mission.team.wealth=1e9"])
@example(["mission.team.initial_hearts=4294967296"])
@example(["mission.heart_limit=65536"])
@example(["mission.rewards.cell_visited=1e308"])
@example(["model.hidden_size=1e9"])
@example(["device.threads=1e9"])
@example(["optimizer.learning_rate=1e308"])
@example(["trainer.bptt_horizon=4294967296"])
def test_mutated_configs_train_or_are_answered_by_one_message(overrides: list[str]) -> None:
    """One to three overrides of any key by any value: an update is made, or within 5 seconds a message names a key."""
    check(overrides)


@pytest.mark.slow
@pytest.mark.usefixtures("after_one_update")
@settings(
    max_examples=CASES or 500,
    deadline=None,
    derandomize=CASES == 0,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(override, min_size=1, max_size=4))
def test_many_mutated_configs_train_or_are_answered_by_one_message(overrides: list[str]) -> None:
    """The same, over more cases; with SCOUT_CASES, others each time."""
    check(overrides)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def resume_with(run_dir: Path, folder: Path, damage: Callable[[Path], object]) -> str | None:
    """What resuming says when the only checkpoint of a copy of the run is damaged; None when it trains."""
    copied = folder / "copied"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(run_dir, copied)
    (copied / "checkpoints" / "000001.pt").unlink()
    damage(copied / "checkpoints" / "000002.pt")
    try:
        train(tiny_experiment(total_timesteps=1024), copied, resumed=True)
    except Trained:
        return None
    except ScoutError as error:
        return str(error)
    return None


@pytest.fixture
def intact(finished_run: Path) -> dict[str, Any]:
    """What the finished run's last checkpoint holds."""
    return read_checkpoint(finished_run / "checkpoints" / "000002.pt")


def test_a_checkpoint_cut_short_is_refused_wherever_it_is_cut(finished_run: Path, tmp_path: Path) -> None:
    """Of twenty lengths from nothing to all but a byte none is taken for a checkpoint."""
    path = finished_run / "checkpoints" / "000002.pt"
    content, cut = path.read_bytes(), tmp_path / "cut.pt"
    for length in [*range(0, len(content), len(content) // 19), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(ScoutError, match="cannot be read as a checkpoint"):
            read_checkpoint(cut)


def test_a_flipped_bit_is_refused_or_changes_nothing(
    finished_run: Path, intact: dict[str, Any], tmp_path: Path
) -> None:
    """Of 400 random bits each is noticed, or lies in padding, so that all that is read is as it was."""
    content, flipped = (finished_run / "checkpoints" / "000002.pt").read_bytes(), tmp_path / "flipped.pt"
    generator, refused = random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(content)
        damaged[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        flipped.write_bytes(damaged)
        try:
            found = read_checkpoint(flipped)
        except ScoutError:
            refused += 1
        else:
            assert_equal(found, intact)
    assert refused > 200


@pytest.mark.parametrize("name", ["model", "optimizer", "scheduler", "trainer", "environments", "generators", "update"])
def test_a_checkpoint_without_a_part_is_refused_by_its_name(
    name: str, finished_run: Path, intact: dict[str, Any], tmp_path: Path
) -> None:
    """A checkpoint that lacks a part cannot be resumed from; the run says that it has no other."""
    partial = {key: value for key, value in intact.items() if key != name}
    message = resume_with(finished_run, tmp_path, lambda path: torch.save(partial, path))
    assert message is not None
    assert "no intact checkpoint" in message


def reshaped(state: dict[str, Any], *path: Any) -> dict[str, Any]:
    """The state with one tensor of another shape."""
    state = copy.deepcopy(state)
    part: Any = state
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = torch.zeros(3, 5)
    return state


@pytest.mark.usefixtures("after_one_update")
@pytest.mark.parametrize(
    "path",
    [
        ("model", "_rnn.weight_ih_l0"),
        ("optimizer", "state", 0, "exp_avg"),
        ("trainer", "lstm_h"),
        ("environments", "actions"),
        ("environments", "steps"),
        ("generators", "torch"),
        ("generators", "numpy"),
    ],
    ids=lambda path: "/".join(map(str, path)),
)
def test_a_tensor_of_a_wrong_shape_is_refused(
    path: tuple[Any, ...], finished_run: Path, intact: dict[str, Any], tmp_path: Path
) -> None:
    """Wherever it is, the message says that the checkpoint does not fit the run's config."""
    message = resume_with(finished_run, tmp_path, lambda file: torch.save(reshaped(intact, *path), file))
    assert message is not None
    assert message.startswith("the checkpoint of update 2 does not fit the run's config: ")


def test_the_checkpoint_of_another_mission_is_refused(
    train_tiny: Callable[..., Path], finished_run: Path, tmp_path: Path
) -> None:
    """One of a mission with two agents does not fit a run of four."""
    other = train_tiny(mission={"num_agents": 2}, trainer={"batch_size": 128}) / "checkpoints" / "000002.pt"
    message = resume_with(finished_run, tmp_path, lambda path: shutil.copy(other, path))
    assert message is not None
    assert "does not fit the run's config: its environments are" in message
