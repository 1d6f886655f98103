"""Episodes are the same however many processes play them, and a process that fails is not waited for."""

import os
import signal

import psutil
import pytest
from evaluation_helpers import GAME, STEPS, policy_of, records

from scout.config import MissionConfig
from scout.errors import ScoutError
from scout.mission import make_game
from scout.playing import play_all
from scout.policies import RandomPolicy


class Broken(RandomPolicy):
    """Fails after ten steps: with an error, or as a process that the system kills."""

    def __init__(self, dies: bool) -> None:
        self._dies, self._steps = dies, 0

    def act(self) -> None:
        super().act()
        self._steps += 1
        if self._steps == 10 and self._dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._steps == 10:
            raise ValueError("no more moves")


@pytest.mark.parametrize("kind", ["random", "sampled", "greedy"])
@pytest.mark.parametrize(("episodes", "parallel", "processes"), [(5, 2, 2), (3, 8, 2), (4, 1, 3), (2, 8, 5)])
def test_how_many_processes_play_changes_nothing(kind: str, episodes: int, parallel: int, processes: int) -> None:
    """Episodes that are dealt out to processes come back in their order and are those played one by one here."""
    alone = records(policy_of(kind), episodes=episodes, parallel=1)
    assert records(policy_of(kind), episodes=episodes, parallel=parallel, processes=processes) == alone
    assert [episode["episode"] for episode in alone] == list(range(episodes))


@pytest.mark.parametrize("processes", [1, 2])
def test_every_step_is_reported(processes: int) -> None:
    """What `on_steps` is told sums up to the steps of all episodes."""
    told: list[int] = []
    play_all(RandomPolicy(), GAME, 0, episodes=5, parallel=2, processes=processes, on_steps=told.append)
    assert sum(told) == 5 * STEPS


def test_an_error_of_a_policy_comes_out_of_its_process() -> None:
    """What a policy raises in another process is raised here."""
    with pytest.raises(ValueError, match="no more moves"):
        play_all(Broken(dies=False), GAME, 0, episodes=2, processes=2)


def test_a_process_that_dies_is_an_error_that_says_what_to_do() -> None:
    """A killed process ends the evaluation with a message instead of a wait for ever."""
    with pytest.raises(ScoutError, match=r"exit code -9.*Try again with processes=1 or a smaller parallel"):
        play_all(Broken(dies=True), GAME, 0, episodes=2, processes=2)


class BrokenInTheFirst(RandomPolicy):
    """Fails in the process that plays episode 0, at its first step."""

    def act(self) -> None:
        super().act()
        if self._simulations[0].seed == 0:
            raise ValueError("no more moves")


def test_no_process_plays_on_after_another_has_failed() -> None:
    """The error comes at once, and the process of the other episode, which has a million steps to go, is gone."""
    endless = make_game(MissionConfig(max_steps=1_000_000))
    before = psutil.Process().children()
    with pytest.raises(ValueError, match="no more moves"):
        play_all(BrokenInTheFirst(), endless, 0, episodes=2, processes=2)
    assert psutil.Process().children() == before
