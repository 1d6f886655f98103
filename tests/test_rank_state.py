"""What a rank is and has, without any others."""

import os

import pytest
import torch
from conftest import tiny_experiment

from scout.config_checks import check_machine, check_ranks
from scout.errors import ScoutError
from scout.rank_state import own_state, ranks_of
from scout.ranks import ALONE, Ranks


def test_what_torchrun_says_is_read_and_nothing_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables make the third of four ranks, the second of its machine; without them a process is alone."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.from_environment() == ALONE
    values = {"RANK": 2, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RESTART_COUNT": 3}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    assert Ranks.from_environment() == Ranks(2, 4, 1, 2, 3)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ScoutError, match="RANK=4 is not below WORLD_SIZE=4"):
        Ranks.from_environment()


def test_each_rank_has_its_own_rows_of_what_is_drawn() -> None:
    """Of six rows for three ranks of two agents each the last has the last two; alone one has all."""
    drawn = torch.arange(12).view(6, 2)
    assert Ranks(2, 3).own(drawn).tolist() == [[8, 9], [10, 11]]
    assert torch.equal(ALONE.own(drawn), drawn)


def test_a_state_is_taken_apart_for_the_ranks_that_there_are() -> None:
    """Of the state of two ranks each has its half, a third begins anew, and numbers that all share stay whole."""
    state = {
        "model": {"weight": torch.ones(6)},
        "environments": {"episodes": torch.tensor([5, 6, 7, 8])},
        "trainer": {"lstm_h": torch.arange(8.0).view(4, 2), "reward_scale": {"mean": torch.tensor(3.0)}},
    }
    assert ranks_of(state, environments=2) == 2
    second = own_state(state, Ranks(1, 3), 2)
    assert second["environments"]["episodes"].tolist() == [7, 8]
    assert second["trainer"]["lstm_h"].tolist() == [[4, 5], [6, 7]]
    third = own_state(state, Ranks(2, 3), 2)
    assert third["environments"] is None
    assert third["trainer"]["lstm_h"].tolist() == [[0, 0], [0, 0]]
    for part in (second, third):
        assert part["model"] is state["model"]
        assert part["trainer"]["reward_scale"]["mean"] == 3
    assert own_state(state, ALONE, 4) is state


def test_what_the_ranks_of_a_job_cannot_do_together_is_refused() -> None:
    """More environments than have maps of their own, less than a batch of each, more workers than a share of cores."""
    with pytest.raises(ScoutError, match="more than the 8192 environments of a run: take 2 or fewer"):
        check_ranks(tiny_experiment(), Ranks(0, 4096))
    with pytest.raises(ScoutError, match="set total_timesteps=1024 or more"):
        check_ranks(tiny_experiment(), Ranks(0, 4))
    check_ranks(tiny_experiment(), Ranks(0, 2))
    cores = os.cpu_count() or 1
    workers = tiny_experiment(vecenv={"name": "multiprocessing", "num_workers": 2, "num_envs": 2 * cores})
    with pytest.raises(ScoutError, match=rf"vecenv.num_workers=2 .* for each of {cores} processes: take 1 or fewer"):
        check_machine(workers, Ranks(0, cores, 0, cores))
