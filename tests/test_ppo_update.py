"""What an update under `trainer=ppo` learns from, and how: losses, minibatches, rewards, the ends of an update."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_experiment
from ppo_helpers import recorded_ppo, trainer_of
from torch import Tensor

from scout.ppo import PPO
from scout.training import train

# Rewards of some tens, so that returns are far from the values.
LARGE_REWARDS: dict[str, Any] = {"mission": {"rewards": {"cell_visited": 1.0}}}
# One rollout of 16 segments of 16 steps, with episode ends within.
ONE_MINIBATCH: dict[str, Any] = {"trainer": {"minibatch_size": 256, "update_epochs": 1}}


def a_rollout(**changes: Any) -> PPO:
    """A trainer after a rollout, its policy then moved a little, as earlier minibatches would have."""
    trainer, _, _ = recorded_ppo(**changes)
    trainer.evaluate()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.uncompiled_policy.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    trainer.close()
    return trainer


def losses_by_hand(trainer: PPO, advantages: Tensor) -> dict[str, float]:
    """PPO's losses over the whole rollout, without excursions and steps whose observation ended an episode."""
    config = trainer.experiment.trainer
    rows = torch.arange(trainer.segments)
    with torch.no_grad():
        logits, values = trainer._replay(rows)
    steps = [
        (row, t)
        for row in rows.tolist()
        for t in range(16)
        if not trainer.terminals[row, t] + trainer.truncations[row, t] and not trainer.excursion[row, t]
    ]
    mean = sum(float(advantages[step]) for step in steps) / len(steps)
    deviation = math.sqrt(sum((float(advantages[step]) - mean) ** 2 for step in steps) / (len(steps) - 1))
    policy_loss = value_loss = entropy = clipped = 0.0
    for row, t in steps:
        probabilities = torch.softmax(logits.view(len(rows), 16, -1)[row, t], dim=0).tolist()
        ratio = probabilities[int(trainer.actions[row, t])] / math.exp(float(trainer.logprobs[row, t]))
        advantage = (float(advantages[row, t]) - mean) / deviation
        policy_loss -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        old, new = float(trainer.values[row, t]), float(values[row, t])
        error = (new - old - float(advantages[row, t])) ** 2
        if config.vf_clip_coef is not None:
            limited = old + min(max(new - old, -config.vf_clip_coef), config.vf_clip_coef)
            error = max(error, (limited - old - float(advantages[row, t])) ** 2)
        value_loss += 0.5 * error
        entropy -= sum(p * math.log(p) for p in probabilities)
        clipped += abs(ratio - 1) > 0.2
    names = ("policy_loss", "value_loss", "entropy", "clipfrac")
    return {
        name: value / len(steps) for name, value in zip(names, (policy_loss, value_loss, entropy, clipped), strict=True)
    }


@pytest.mark.parametrize(("vf_clip_coef", "excursion_share"), [(None, 0.0), (0.001, 0.0), (None, 0.4)])
def test_the_losses_equal_a_plain_twin(vf_clip_coef: float | None, excursion_share: float) -> None:
    """Policy loss, value loss with and without a limit, entropy and clipped share, on a rollout with episode ends.

    Excursions are in none of them.
    """
    options = {**ONE_MINIBATCH["trainer"], "vf_clip_coef": vf_clip_coef, "normalize_rewards": False}
    trainer = a_rollout(**LARGE_REWARDS, trainer={**options, "excursion_share": excursion_share})
    assert trainer.ended.any()
    assert trainer.excursion.any() == (excursion_share > 0)
    expected = losses_by_hand(trainer, trainer._advantages(trainer._rewards()))
    trainer.train()
    assert {name: trainer.losses[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert 0 < expected["clipfrac"] < 1


def test_the_limit_of_values_matters() -> None:
    """With a small vf_clip_coef the value loss is larger than without."""
    losses = []
    for vf_clip_coef in (None, 0.001):
        trainer = a_rollout(**LARGE_REWARDS, trainer={**ONE_MINIBATCH["trainer"], "vf_clip_coef": vf_clip_coef})
        trainer.train()
        losses.append(trainer.losses["value_loss"])
    assert losses[1] > losses[0]


def test_the_action_at_a_final_observation_is_not_learned_from() -> None:
    """What was chosen where an episode had ended, and how likely it was, changes nothing in the update."""
    weights = []
    for change in (0.0, 3.0):
        trainer = a_rollout(**ONE_MINIBATCH)
        trainer.logprobs[trainer.ended] += change
        trainer.train()
        weights.append([parameter.clone() for parameter in trainer.uncompiled_policy.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*weights, strict=True))


def test_an_epoch_takes_every_segment_once() -> None:
    """Three epochs of four minibatches train each of 16 segments three times, each epoch in an order of its own."""
    trainer = a_rollout(trainer={"minibatch_size": 64, "update_epochs": 3})
    taken: list[list[int]] = []
    draw = trainer._draw

    def recorded(minibatch: int, advantages: Tensor) -> tuple[Tensor, Tensor]:
        rows, weights = draw(minibatch, advantages)
        taken.append(rows.tolist())
        return rows, weights

    trainer._draw = recorded
    trainer.train()
    assert [len(rows) for rows in taken] == [4] * 12
    epochs = [[row for rows in taken[first : first + 4] for row in rows] for first in (0, 4, 8)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(16))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_pufferl_leaves_segments_out() -> None:
    """PuffeRL's four minibatches of an update, with its replay, do not train all of the 16 segments."""
    trainer = trainer_of(tiny_experiment(trainer={"name": "pufferl", "minibatch_size": 64, "update_epochs": 1}))
    trainer.evaluate()
    taken: list[int] = []
    trainer.uncompiled_policy.register_forward_pre_hook(lambda _, arguments: taken.extend(_rows(trainer, arguments[0])))
    trainer.train()
    trainer.close()
    assert len(taken) == 16
    assert len(set(taken)) < 16


def _rows(trainer: Any, observations: Tensor) -> list[int]:
    """Which of the stored segments these are."""
    return [
        next(row for row in range(trainer.segments) if torch.equal(trainer.observations[row], segment))
        for segment in observations
    ]


def gradients(name: str, max_minibatch_size: int) -> Tensor:
    """All gradients of the first optimizer step of an update on one minibatch, before they are clipped."""
    options: dict[str, Any] = {"name": name, "max_minibatch_size": max_minibatch_size, "max_grad_norm": 1e9}
    if name == "pufferl":
        options["prio_alpha"] = 0.0
    trainer = trainer_of(tiny_experiment(trainer=ONE_MINIBATCH["trainer"] | options))
    trainer.evaluate()
    found: list[Tensor] = []
    parameters = list(trainer.uncompiled_policy.parameters())
    trainer.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).clone())
    )
    torch.manual_seed(0)
    trainer.train()
    trainer.close()
    return found[0]


def test_the_gradient_of_a_minibatch_does_not_depend_on_its_parts() -> None:
    """Accumulated from four parts, the gradient is that of the whole minibatch to 1e-5."""
    whole, parts = gradients("ppo", 256), gradients("ppo", 64)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert whole.norm() > 1e-3


def test_pufferl_adds_the_gradients_of_the_parts() -> None:
    """In PuffeRL the gradient of four parts is more than twice as long as that of the whole."""
    assert gradients("pufferl", 64).norm() > 2 * gradients("pufferl", 256).norm()


# -- rewards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reward_clip", "largest"), [(None, 30.0), (5.0, 5.0), (1.0, 1.0)])
def test_rewards_are_clamped_where_it_is_asked_for(reward_clip: float | None, largest: float) -> None:
    """Rewards of some tens that are not normalized are trained on whole, and up to the clamp that the key gives."""
    trainer = a_rollout(**LARGE_REWARDS, trainer={"normalize_rewards": False, "reward_clip": reward_clip})
    rewards = trainer._rewards()[:, 1:]
    assert rewards.max() == largest if reward_clip else rewards.max() > largest


def test_pufferl_clamps_all_rewards() -> None:
    """PuffeRL stores no reward above 1."""
    trainer = trainer_of(tiny_experiment(**LARGE_REWARDS, trainer={"name": "pufferl"}))
    trainer.evaluate()
    trainer.close()
    assert trainer.rewards.max() == 1


def test_normalized_rewards_are_divided_by_the_scale_before_the_clamp() -> None:
    """Large rewards are trained on at the size of the discounted return's deviation, the clamp last."""
    plain = a_rollout(**LARGE_REWARDS, trainer={"normalize_rewards": False})
    scaled = a_rollout(**LARGE_REWARDS)
    clamped = a_rollout(**LARGE_REWARDS, trainer={"reward_clip": 0.01})
    rewards = scaled._rewards()
    assert scaled.reward_scale.divisors[0] > 2
    torch.testing.assert_close(rewards * scaled.reward_scale.divisors[0], plain._rewards())
    torch.testing.assert_close(clamped._rewards(), rewards.clamp(-0.01, 0.01))


def test_the_scale_sees_each_reward_once() -> None:
    """Over two rollouts it counts two rollouts' steps: the step that both know is not counted twice."""
    trainer, _, _ = recorded_ppo()
    for _ in range(2):
        trainer.evaluate()
        trainer.train()
    trainer.close()
    assert trainer.reward_scale.state_dict()["count"] == 512


def test_the_scale_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    """A run's last checkpoint has the statistics, readable without running code, and a trainer goes on from them."""
    experiment = tiny_experiment()
    run = train(experiment, tmp_path / "run")
    saved = torch.load(run.checkpoint, weights_only=True)["trainer"]
    trainer, _, _ = recorded_ppo()
    trainer.load_state_dict(saved)
    trainer.close()
    assert trainer.reward_scale.divisors[0] not in (0, 1)
    assert saved["reward_scale"]["count"] == 512


# -- the end of an update ----------------------------------------------------------------------------------------------


def test_an_update_ends_when_the_policy_has_gone_too_far() -> None:
    """With a tiny target_kl the second minibatch ends the update, and the weights are those after one step."""
    weights = []
    for options in ({"target_kl": 1e-9}, {}):
        trainer, _, _ = recorded_ppo(trainer={"minibatch_size": 64, "update_epochs": 1, **options})
        trainer.evaluate()
        steps: list[list[Tensor]] = []
        trainer.optimizer.register_step_post_hook(
            lambda *_, network=trainer.uncompiled_policy, steps=steps: steps.append(
                [parameter.detach().clone() for parameter in network.parameters()]
            )
        )
        torch.manual_seed(0)
        trainer.train()
        trainer.close()
        weights.append((steps, [parameter.detach() for parameter in trainer.uncompiled_policy.parameters()], trainer))
    (stopped, last, trainer), (going_on, _, _) = weights
    assert (len(stopped), len(going_on)) == (1, 4)
    assert all(torch.equal(first, second) for first, second in zip(last, going_on[0], strict=True))
    assert trainer.losses["minibatches"] == 2


def test_a_distant_target_kl_changes_nothing() -> None:
    """With a target_kl that is never reached all minibatches are trained."""
    trainer = a_rollout(trainer={"minibatch_size": 64, "update_epochs": 2, "target_kl": 1e6})
    trainer.train()
    assert trainer.losses["minibatches"] == 8


def test_replay_draws_segments_by_their_advantages_and_weighs_them_back() -> None:
    """A segment with more advantage is drawn more often; weights are (S p)^-beta, with beta 1 in the last update."""
    trainer = a_rollout(
        trainer={"minibatch_size": 32, "prioritized_replay": True, "prio_alpha": 1.0, "prio_beta0": 0.5}
    )
    trainer.truncations.zero_()  # or steps whose observation ended an episode would not count
    advantages = torch.full((16, 16), 1 / 16)
    advantages[5] = 1.0  # priorities 1 and 16: probabilities 1/31 and 16/31
    drawn = torch.stack([trainer._draw(0, advantages)[0] for _ in range(200)])
    assert 0.6 < (drawn == 5).any(dim=1).float().mean() < 0.9  # drawing two of 16: 16/31 + 15/31 x 16/30 = 0.77
    for epoch, beta in ((0, 0.5), (1, 1.0)):  # the run has two updates
        trainer.scheduler.last_epoch = epoch
        rows, weights = trainer._draw(0, advantages)
        expected = [(16 * (16 if row == 5 else 1) / 31) ** -beta for row in rows.tolist()]
        assert weights.flatten().tolist() == pytest.approx(expected, rel=1e-4)


def test_replay_heeds_only_steps_that_are_learned_from() -> None:
    """A segment whose large advantages all belong to an excursion is drawn no more often than others without any."""
    trainer = a_rollout(trainer={"minibatch_size": 32, "prioritized_replay": True, "prio_alpha": 1.0})
    advantages = torch.full((16, 16), 1 / 16)
    advantages[5] = 1.0
    trainer.excursion[5] = True
    drawn = torch.stack([trainer._draw(0, advantages)[0] for _ in range(200)])
    assert not (drawn == 5).any()
