"""Potential-based shaping: what it pays, and that it changes no best policy."""

from typing import Any

import numpy as np
import pytest
import torch
from evaluation_helpers import ENV_INFO
from ppo_helpers import recorded_ppo
from torch import Tensor

from scout.errors import ScoutError
from scout.shaping import Potential

ID = {feature.name: int(feature.id) for feature in ENV_INFO.obs_features}
OWN_CELL, BESIDE = 0x55, 0x56
ZEROS = torch.zeros(1, 4)


def observation(*tokens: tuple[int, str, int]) -> Tensor:
    """Tokens uint8 [1, T, 3] with a token of padding at the end."""
    known = [(place, ID[feature], value) for place, feature, value in tokens]
    return torch.tensor([[*known, (255, 255, 255)]], dtype=torch.uint8)


def test_the_potential_is_what_the_agent_itself_carries() -> None:
    """HP 137 + 256 and energy 20 count by their weights; a teammate's HP and the agent's gear do not."""
    seen = observation(
        (OWN_CELL, "inv:hp", 137),
        (OWN_CELL, "inv:hp:p1", 1),
        (OWN_CELL, "inv:energy", 20),
        (OWN_CELL, "inv:scout", 1),
        (BESIDE, "inv:hp", 90),
    )
    potential = Potential(ENV_INFO, {"hp": 0.01, "energy": 0.5}, gamma=0.9)
    assert potential.of(seen).tolist() == pytest.approx([3.93 + 10])


def test_gains_are_paid_and_losses_taken_back() -> None:
    """By hand, gamma 0.5: Phi 2, 4, 4, 1 pay 0.5 x 4 - 2 = 0, then 0.5 x 4 - 4 = -2, then 0.5 x 1 - 4 = -3.5."""
    potential = Potential(ENV_INFO, {"hp": 1.0}, gamma=0.5)
    paid = potential.rewards(torch.tensor([[2.0, 4.0, 4.0, 1.0]]), ZEROS, ZEROS)
    assert paid.tolist() == [[0.0, -2.0, -3.5]]


def test_an_end_takes_everything_back_and_a_cut_nothing() -> None:
    """With a terminal, Phi there counts as 0; with a truncation as it is; the step into a new episode pays nothing."""
    potential = Potential(ENV_INFO, {"hp": 1.0}, gamma=0.5)
    phi, end = torch.tensor([[2.0, 4.0, 7.0, 7.0]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert potential.rewards(phi, end, ZEROS).tolist() == [[-2.0, 0.0, -3.5]]
    assert potential.rewards(phi, ZEROS, end).tolist() == [[0.0, 0.0, -3.5]]


def test_an_episodes_discounted_payments_depend_on_its_beginning_alone() -> None:
    """Whatever Phi was on the way, they sum to minus Phi at the start: no policy is better off by them."""
    generator = np.random.default_rng(0)
    potential = Potential(ENV_INFO, {"hp": 1.0}, gamma=0.9)
    phi = torch.tensor(generator.normal(size=(5, 31)))
    phi[:, 0] = 3.0
    terminals = torch.zeros(5, 31)
    terminals[:, -1] = 1
    paid = potential.rewards(phi, terminals, torch.zeros(5, 31))
    assert (paid * 0.9 ** torch.arange(30)).sum(dim=1).tolist() == pytest.approx([-3.0] * 5)


def test_training_adds_it_to_the_rewards() -> None:
    """What an update trains on is the rewards and the payments by hand, from all that the environments sent."""
    weights = {"hp": 0.01, "energy": 0.02}
    changes: dict[str, Any] = {"potential": weights, "normalize_rewards": False}
    trainer, recorder, experiment = recorded_ppo(trainer=changes)
    trainer.evaluate()
    trained_on = trainer._rewards()
    trainer.close()
    gamma, own = experiment.trainer.gamma, [(0, "inv:hp", 0.01), (0, "inv:energy", 0.02), (1, "inv:hp:p1", 2.56)]
    agents = trained_on.shape[0]
    steps = recorder.arrived
    assert len(steps) == trained_on.shape[1], "one batch of all agents arrives at each step"
    phi, ends, rewards = np.zeros((3, agents, len(steps)))
    for t, (observed, reward, terminal, truncation, _) in enumerate(steps):
        rewards[:, t], ends[:, t] = reward, terminal + 2 * truncation
        for agent in range(agents):
            for place, feature, value in observed[agent]:
                if place == OWN_CELL:
                    phi[agent, t] += sum(weight * value for _, name, weight in own if ID[name] == feature)
    for t in range(1, len(steps)):
        paid = gamma * phi[:, t] * (ends[:, t] != 1) - phi[:, t - 1]
        rewards[:, t] += np.where(ends[:, t - 1] > 0, 0, paid)
    assert ends.any()
    torch.testing.assert_close(trained_on, torch.tensor(rewards, dtype=torch.float32), rtol=1e-4, atol=1e-4)


def test_what_nobody_carries_is_refused() -> None:
    """The message names the key, and what was probably meant."""
    with pytest.raises(ScoutError, match=r"trainer\.potential\.hpp=1\.0.*did you mean hp"):
        Potential(ENV_INFO, {"hpp": 1.0}, gamma=0.9)
