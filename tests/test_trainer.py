"""Running PuffeRL safely: what its import and its training must not do to the process or to the run."""

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import run_script, tiny_experiment
from ppo_helpers import trainer_of

from scout.errors import ScoutError
from scout.training import episode_statistics, train

TRAINERS = ["ppo", "pufferl"]


def test_importing_pufferl_leaves_signals_warnings_and_tracebacks_as_they_were() -> None:
    """After our import SIGINT does what it did, a RuntimeWarning is a warning, and Python prints the tracebacks."""
    check = (
        "import signal, sys, warnings; before = signal.getsignal(signal.SIGINT); import scout.trainer\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
        "assert sys.excepthook is sys.__excepthook__\n"
        "warnings.warn('harmless', RuntimeWarning)\n"
        "print('as they were')"
    )
    result = run_script("-c", check)
    assert result.stdout == "as they were\n", result.stderr


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_starts_no_thread_that_keeps_the_process_alive(name: str) -> None:
    """PuffeRL's utilization thread is no daemon and never ends after an exception: none is started."""
    before = set(threading.enumerate())
    experiment = tiny_experiment(trainer={"name": name})
    trainer = trainer_of(experiment)
    started = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    trainer.close()
    assert started == []


@pytest.mark.parametrize("name", TRAINERS)
def test_every_update_has_its_own_losses(name: str) -> None:
    """However fast the updates come, each leaves finite losses, which differ from those of the update before."""
    experiment = tiny_experiment(trainer={"name": name}, total_timesteps=1024)
    trainer = trainer_of(experiment)
    seen = []
    while trainer.global_step < 1024:
        trainer.evaluate()
        trainer.train()
        seen.append(trainer.losses["policy_loss"])
    trainer.close()
    assert len(seen) == len(set(seen)) == 4
    assert all(math.isfinite(loss) for loss in seen)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_gradient_that_is_not_finite_stops_the_update_before_the_weights_change(name: str) -> None:
    """Probabilities that are not numbers raise ScoutError naming a gradient, and no parameter has moved."""
    experiment = tiny_experiment(trainer={"name": name})
    trainer = trainer_of(experiment)
    trainer.evaluate()
    trainer.logprobs[:] = float("nan")
    before = [parameter.clone() for parameter in trainer.uncompiled_policy.parameters()]
    with pytest.raises(ScoutError, match=r"diverged in update 1: the gradient of .* is not finite"):
        trainer.train()
    trainer.close()
    for parameter, old in zip(trainer.uncompiled_policy.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_a_parameter_that_is_not_finite_is_named() -> None:
    """An infinite weight stops the run with its name."""
    experiment = tiny_experiment()
    trainer = trainer_of(experiment)
    with torch.no_grad():
        trainer.uncompiled_policy._value_head.bias.fill_(math.inf)  # pyright: ignore
    with pytest.raises(ScoutError, match=r"the parameter _value_head\.bias is not finite"):
        trainer.check_finite()
    trainer.close()


@pytest.mark.parametrize("name", TRAINERS)
def test_a_diverged_run_saves_no_garbage(name: str, tmp_path: Path) -> None:
    """With an absurd learning rate the run fails with the reason, and every checkpoint that it left is finite."""
    experiment = tiny_experiment(
        trainer={"name": name}, optimizer={"learning_rate": 1e30, "anneal_lr": False}, total_timesteps=4096
    )
    with pytest.raises(ScoutError, match="diverged"):
        train(experiment, tmp_path / "run")
    assert "diverged" in (tmp_path / "run/status.json").read_text()
    for path in (tmp_path / "run").glob("checkpoints/*.pt"):
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["model"].values()), path


@pytest.mark.parametrize("name", TRAINERS)
def test_the_same_seed_gives_the_same_run(name: str, train_tiny: Callable[..., Path]) -> None:
    """Two runs of seed 0 end with equal weights, and seed 1 with others: 0 is a seed like any other."""
    first, again, other = (
        torch.load(train_tiny(run, seed=seed, trainer={"name": name}) / "checkpoints/000002.pt", weights_only=True)
        for run, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    for weight, value in first["model"].items():
        assert torch.equal(again["model"][weight], value), weight
    assert not torch.equal(other["model"]["_rnn.weight_hh_l0"], first["model"]["_rnn.weight_hh_l0"])


def test_episode_statistics_by_hand() -> None:
    """The return is of whole episodes alone; a statistic that an episode lacks counts as 0 there."""
    episodes = {
        "per_label_rewards/some.label": [1.0, 4.0, 6.0],
        "attributes/steps": [7, 10, 10],
        "agent/death": [3.0],
        "game/objects.wall": [2.0, 4.0, 6.0],
        "timing_per_epoch/msec/x": [1.0, 1.0, 1.0],
    }
    assert episode_statistics(episodes, max_steps=10) == {
        "episodes": 3.0,
        "episode_return": 5.0,
        "agent/death": 1.0,
        "game/objects.wall": 4.0,
    }


def test_no_episode_gives_no_return() -> None:
    """Where none ended there is a count of 0 and no mean."""
    assert episode_statistics({}, max_steps=10) == {"episodes": 0.0}


def test_whole_episodes_are_those_of_the_games_own_length(train_tiny: Callable[..., Path]) -> None:
    """A mission that sets its own number of steps, as the variant speed_run does with 600, has whole episodes too."""
    mission = {"variants": ["scout_rewards", "speed_run"], "max_steps": 1000}
    run_dir = train_tiny(mission=mission, total_timesteps=16 * 640, vecenv={"early_reset": False})
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[600 // 16])
    assert last["environment/episodes"] == 4
    assert last["environment/episode_return"] > 0
