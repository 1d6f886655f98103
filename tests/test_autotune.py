"""vecenv.num_envs=auto: what is chosen, said and stored."""

import json
import logging
from pathlib import Path

import pytest
import yaml
from conftest import TINY, merge, tiny_experiment

from scout import autotune
from scout.config import AUTO, Experiment
from scout.errors import ScoutError
from scout.training import train
from scout.validation import validate

ROLLOUT = {"trainer": {"batch_size": None, "minibatch_size": 64, "bptt_horizon": 16}}


@pytest.mark.slow
def test_a_run_takes_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run has one of the numbers that were tried, says so, and keeps the choice and all speeds in its folder."""
    monkeypatch.setattr(autotune, "CANDIDATES", (1, 2))
    caplog.set_level(logging.INFO)
    train(tiny_experiment(**ROLLOUT, vecenv={"num_envs": "auto"}), tmp_path / "run")
    record = json.loads((tmp_path / "run/autotune.json").read_text())
    chosen = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["vecenv"]["num_envs"]
    assert record["num_envs"] == chosen
    assert chosen in (1, 2)
    assert set(record["steps_per_second"]["num_envs"]) == {"1", "2"}
    assert f"Chosen: num_envs={chosen}" in caplog.text


def test_the_smallest_that_is_nearly_the_fastest_is_chosen() -> None:
    """Within 5% of the fastest the smaller number is taken; below that it is not."""
    assert autotune._smallest({4: 500.0, 8: 960.0, 16: 990.0, 32: 1000.0}) == 8
    assert autotune._smallest({4: 940.0, 8: 1000.0}) == 8


def test_sizes_that_fit_no_number_are_refused(tmp_path: Path) -> None:
    """A batch that no number of environments divides is one message, which names the key and the sizes."""
    experiment = tiny_experiment(trainer={"batch_size": 16, "minibatch_size": 16}, vecenv={"num_envs": "auto"})
    with pytest.raises(ScoutError, match=r"vecenv\.num_envs=auto finds no number that fits.*trainer\.batch_size=16"):
        train(experiment, tmp_path / "run")


@pytest.mark.parametrize("value", [0, -1, 8193, 1.5, True, "many", None])
def test_only_numbers_and_auto_are_numbers_of_environments(value: object) -> None:
    """Anything else is refused with what was expected."""
    with pytest.raises(ScoutError, match=rf"vecenv\.num_envs={value} is not valid: expected an integer from 1 to 8192"):
        validate(Experiment, merge(TINY, {"vecenv": {"num_envs": value}}))
    assert validate(Experiment, merge(TINY, {"vecenv": {"num_envs": "auto"}})).vecenv.num_envs == AUTO
