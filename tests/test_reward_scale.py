"""Rewards divided by the standard deviation of the discounted return."""

import numpy as np
import pytest
import torch

from scout.reward_scale import RewardScale


def test_the_divisor_by_hand() -> None:
    """Rewards 2, 0, 4 with gamma 0.5 make discounted returns 2, 1, 4.5: their standard deviation is sqrt(6.5 / 3)."""
    scale = RewardScale(agents=1, gamma=0.5)
    scale.update(torch.tensor([[2.0, 0.0, 4.0]]), torch.zeros(1, 3))
    assert scale.divisors[0] == pytest.approx((6.5 / 3) ** 0.5)


def test_the_discounted_return_begins_anew_after_an_episodes_end() -> None:
    """With an end arriving with the first reward, the returns are 2, 0, 4: their standard deviation is sqrt(8 / 3)."""
    scale = RewardScale(agents=1, gamma=0.5)
    scale.update(torch.tensor([[2.0, 0.0, 4.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert scale.divisors[0] == pytest.approx((8 / 3) ** 0.5)


def test_before_returns_differ_rewards_stay_as_they_are() -> None:
    """Without any reward yet the divisor is 1, not 0."""
    scale = RewardScale(agents=2, gamma=0.9)
    assert scale.divisors[0] == 1
    scale.update(torch.zeros(2, 4), torch.zeros(2, 4))
    assert scale.divisors[0] == 1


def test_several_rollouts_count_as_one_long_one() -> None:
    """Three updates give the divisor of all steps taken together, computed by a plain loop, to 1e-9."""
    generator = np.random.default_rng(0)
    rewards = generator.normal(0.3, 2.0, (5, 60))
    ends = generator.random((5, 60)) < 0.1
    returns = np.zeros((5, 60))
    for agent in range(5):
        running = 0.0
        for t in range(60):
            running = 0.9 * running + rewards[agent, t]
            returns[agent, t] = running
            running = 0.0 if ends[agent, t] else running
    scale = RewardScale(agents=5, gamma=0.9)
    for start, stop in ((0, 10), (10, 45), (45, 60)):
        scale.update(torch.from_numpy(rewards[:, start:stop]), torch.from_numpy(ends[:, start:stop]))
    assert scale.divisors[0] == pytest.approx(returns.std(), rel=1e-9)


def test_a_scale_goes_on_from_its_saved_state() -> None:
    """A scale loaded in mid-episode gives the same divisor after the next rollout as the one that was saved."""
    first, second = RewardScale(agents=2, gamma=0.9), RewardScale(agents=2, gamma=0.9)
    first.update(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.zeros(2, 2))
    second.load_state_dict(first.state_dict())
    for scale in (first, second):
        scale.update(torch.tensor([[0.5], [4.0]]), torch.zeros(2, 1))
    assert second.divisors[0] == first.divisors[0]
    assert second.divisors[0] != 1


def test_a_saved_state_does_not_change_when_the_scale_goes_on() -> None:
    """What state_dict gave stays what it was after further rollouts."""
    scale = RewardScale(agents=1, gamma=0.5)
    scale.update(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2))
    saved = scale.state_dict()
    before = {name: value.clone() for name, value in saved.items()}
    scale.update(torch.tensor([[9.0, 9.0]]), torch.zeros(1, 2))
    assert all(torch.equal(saved[name], before[name]) for name in saved)


def test_each_mission_has_a_divisor_of_its_own() -> None:
    """Rewards 2, 0, 4 | 6, 2 with gamma 0.5 and an end after the third: returns 2, 1, 4.5 and 6, 5, each by itself.

    Their deviations are sqrt(6.5 / 3) and 0.5; of a third mission, of which nothing was seen, the divisor is 1.
    """
    scale = RewardScale(agents=1, gamma=0.5, missions=3)
    rewards, missions = torch.tensor([[2.0, 0.0, 4.0, 6.0, 2.0]]), torch.tensor([[0, 0, 0, 1, 1]])
    scale.update(rewards, torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), missions)
    assert scale.divisors == pytest.approx([(6.5 / 3) ** 0.5, 0.5, 1.0])
    assert scale.scaled(rewards, missions)[0, 3:].tolist() == [12.0, 4.0]


def test_the_scales_of_all_missions_go_on_from_a_saved_state() -> None:
    """What one scale saved gives another one the same divisors of each mission."""
    first, second = (RewardScale(agents=1, gamma=0.5, missions=2) for _ in range(2))
    first.update(torch.tensor([[2.0, 0.0, 6.0, 2.0]]), torch.zeros(1, 4), torch.tensor([[0, 0, 1, 1]]))
    second.load_state_dict(first.state_dict())
    assert second.divisors == first.divisors
    assert len({1.0, *first.divisors}) == 3
