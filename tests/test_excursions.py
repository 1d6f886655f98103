"""Excursions: how often and how long agents walk straight on, and that their own steps are in no loss."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_experiment
from evaluation_helpers import ENV_INFO
from ppo_helpers import trainer_of
from torch import Tensor

from scout.config import TrainerConfig
from scout.excursions import Excursions, make_excursions
from scout.ppo import PPO

EVERYBODY = slice(0, None)


def walk(share: float, length: int, agents: int, steps: int) -> tuple[Tensor, Tensor]:
    """Actions and who is on an excursion, [steps, agents], of a policy that always plays 9 and moves 1 to 4."""
    torch.manual_seed(0)
    excursions = Excursions(agents, [1, 2, 3, 4], share, length, "cpu")
    own, goes_on = torch.full((agents,), 9), torch.zeros(agents, dtype=torch.bool)
    steps_taken = [excursions.take(EVERYBODY, own, goes_on) for _ in range(steps)]
    return torch.stack([actions for actions, _ in steps_taken]), torch.stack([away for _, away in steps_taken])


@pytest.mark.parametrize(("share", "length"), [(0.15, 60), (0.5, 7), (0.02, 1)])
def test_the_share_and_the_length_are_those_of_the_keys(share: float, length: int) -> None:
    """Over 600,000 steps the part that is excursions is the share, to 5%, and their mean length the length, to 10%."""
    actions, away = walk(share, length, agents=400, steps=1500)
    late = away[500:]  # nobody is on an excursion at first
    assert late.float().mean().item() == pytest.approx(share, rel=0.05)
    # A start is where the policy acted a step before, or where another direction follows at once.
    begins = away[1:] & (~away[:-1] | (actions[1:] != actions[:-1]))
    assert away[1:].sum().item() / begins.sum().item() == pytest.approx(length, rel=0.1)


def test_an_excursion_keeps_its_direction_and_all_directions_occur() -> None:
    """Its steps are one of the moves, over and over; in between the policy's own actions are played."""
    actions, away = walk(0.3, 20, agents=50, steps=400)
    assert (actions[~away] == 9).all()
    assert set(actions[away].tolist()) == {1, 2, 3, 4}
    going_on = away[1:] & away[:-1]
    assert (actions[1:] == actions[:-1])[going_on].float().mean() > 0.95


def test_an_episodes_end_ends_its_excursion() -> None:
    """Where the episode is over nobody is on one, and the next episode does not go on with it."""
    torch.manual_seed(0)
    excursions = Excursions(1000, [1], 0.999, 1000, "cpu")
    own, over = torch.zeros(1000, dtype=torch.int64), torch.arange(1000) < 500
    away = [excursions.take(EVERYBODY, own, torch.zeros_like(over))[1] for _ in range(20)][-1]
    assert away.float().mean() > 0.9
    _, away = excursions.take(EVERYBODY, own, over)
    assert not away[:500].any()
    assert away[500:].float().mean() > 0.9
    assert (excursions.state_dict()["left"][:500] == 0).all()


def test_the_share_falls_to_nothing_over_the_run() -> None:
    """Half way through the run it is half of what it was, and at its end nobody sets out any more."""
    shares = []
    for progress in (0.0, 0.5, 1.0, 1.1):
        torch.manual_seed(0)
        excursions = Excursions(400, [1, 2], 0.4, 10, "cpu")
        excursions.anneal(progress)
        own, over = torch.zeros(400, dtype=torch.int64), torch.zeros(400, dtype=torch.bool)
        away = [excursions.take(EVERYBODY, own, over)[1] for _ in range(600)]
        shares.append(torch.stack(away[100:]).float().mean().item())
    assert shares == pytest.approx([0.4, 0.2, 0.0, 0.0], abs=0.01)


def test_only_moves_are_walked() -> None:
    """The directions are the mission's moves, and without a share there are no excursions."""
    made = make_excursions(TrainerConfig(), ENV_INFO, 4, "cpu")
    assert made is not None
    moves = [index for index, name in enumerate(ENV_INFO.action_names) if name.startswith("move_")]
    assert len(moves) == 4
    assert made._directions.tolist() == moves
    assert make_excursions(TrainerConfig(excursion_share=0.0), ENV_INFO, 4, "cpu") is None


# -- in a rollout and an update ----------------------------------------------------------------------------------------

OFTEN: dict[str, Any] = {"excursion_share": 0.4, "excursion_length": 4, "minibatch_size": 256, "update_epochs": 1}


def a_rollout() -> PPO:
    trainer = trainer_of(tiny_experiment(trainer=OFTEN))
    assert isinstance(trainer, PPO)
    trainer.evaluate()
    trainer.close()
    return trainer


def test_what_is_stored_is_what_was_played() -> None:
    """The stored action of such a step is the move, its ratio in an update 1, and no final observation is one."""
    trainer = a_rollout()
    away = trainer.excursion
    assert 0.2 < away.float().mean() < 0.6
    assert not (away & trainer.ended).any()
    assert trainer.ended.any()
    moves = [index for index, name in enumerate(ENV_INFO.action_names) if name.startswith("move_")]
    assert np.isin(trainer.actions[away].numpy(), moves).all()
    assert torch.equal(trainer.counted, ~(away | trainer.ended))
    trainer._update()
    assert trainer.ratio[away].sub(1).abs().max() < 1e-3  # one epoch on one minibatch: the policy is the one that acted


def test_an_update_learns_nothing_from_such_steps() -> None:
    """Other actions and probabilities there change no weight."""
    weights = []
    for change in (False, True):
        trainer = a_rollout()
        if change:
            trainer.actions[trainer.excursion] = 0
            trainer.logprobs[trainer.excursion] -= 1.0
        trainer.train()
        weights.append(torch.cat([parameter.flatten() for parameter in trainer.uncompiled_policy.parameters()]))
    assert torch.equal(*weights)


def test_no_advantage_reaches_across_an_excursion() -> None:
    """Rewards that arrive on an excursion after its first step change no counted advantage; the value there does."""
    trainer = a_rollout()
    rewards = trainer._rewards()
    before = trainer._advantages(rewards)
    away = trainer._timeline(trainer.excursion.float(), torch.zeros(trainer.total_agents))[:, :-1].bool()
    # The reward of an action arrives one step later: those of excursions' actions.
    changed = rewards.clone()
    changed[:, 1:][away] += 100.0
    torch.testing.assert_close(trainer._advantages(changed)[trainer.counted], before[trainer.counted])
    trainer.values[trainer.excursion] += 100.0
    assert not torch.allclose(trainer._advantages(rewards)[trainer.counted], before[trainer.counted])
