"""Rewards of several missions that are played in turn: each is normalized by its own returns."""

from typing import Any

import pytest
import torch
from curriculum_helpers import in_turn
from ppo_helpers import recorded_ppo
from torch import Tensor

from scout.environment import Turns
from scout.ppo import PPO
from scout.vecenv import Record


def rollout(rollouts: int = 1, **changes: Any) -> tuple[PPO, Tensor]:
    """A trainer after so many rollouts of 16 steps, and the mission of each step of the last one and the step after."""
    trainer, recorder, _ = recorded_ppo(**changes)
    vecenv, played = recorder.vecenv, []
    receive = vecenv.recv

    def noted() -> Any:
        arrived = receive()
        played.append([env._mission for env in vecenv.envs for _ in range(vecenv.num_agents // len(vecenv.envs))])
        return arrived

    vecenv.recv = noted
    for _ in range(rollouts):
        trainer.evaluate()
    trainer.close()
    return trainer, torch.tensor(played[-trainer.config["bptt_horizon"] - 1 :]).T


@pytest.mark.parametrize("turns", [{}, {"episodes": 2}, {"stagger": False}], ids=["turns", "two episodes", "stages"])
def test_the_mission_of_each_step_is_known(turns: dict[str, Any]) -> None:
    """After rollouts in which episodes of 5 steps end, and some early: the missions that the environments had."""
    trainer, played = rollout(rollouts=2, **in_turn(max_steps=5, **turns), vecenv={"num_envs": 4})
    ends = trainer._timeline(trainer.ended.float(), trainer.ahead.terminals + trainer.ahead.truncations)
    assert ends.sum() > 0
    assert torch.equal(trainer.vecenv.record.missions(ends), played)


def test_a_rank_knows_the_missions_of_its_own_environments() -> None:
    """The run's environments 5 and 6, two agents each, before any episode has ended: missions 2 and 0 of three."""
    record = Record(2, 2, False, Turns(3, episodes=1, stagger=True), first=5)
    assert record.missions(torch.zeros(4, 2)).tolist() == [[2, 2], [2, 2], [0, 0], [0, 0]]


def test_each_missions_rewards_are_on_the_scale_of_its_own_returns() -> None:
    """A cell pays 1, 3 or nothing: rewards are divided by three divisors, of which the unpaid mission's stays 1."""
    trainer, played = rollout(rollouts=2, **in_turn(max_steps=5), vecenv={"num_envs": 4})
    raw = trainer._timeline(trainer.rewards, trainer.ahead.rewards)
    scaled, divisors = trainer._rewards(), trainer.reward_scale.divisors
    assert divisors[0] != divisors[1]
    assert divisors[2] == 1
    for mission, divisor in enumerate(divisors):
        ours = played == mission
        assert ours.any()
        torch.testing.assert_close(scaled[ours], raw[ours] / divisor)
