"""`trainer=ppo`: each correction fails on PuffeRL as shipped and holds here."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from ppo_helpers import VECENVS, recorded_ppo

from scout.errors import ScoutError


@pytest.mark.parametrize("vecenv", VECENVS.values(), ids=VECENVS.keys())
@pytest.mark.parametrize("segments_per_agent", [1, 2])
def test_a_rollout_stores_each_agents_steps_in_order(vecenv: dict[str, Any], segments_per_agent: int) -> None:
    """Over two rollouts, rows and the step after them hold what the environments sent, truncations included."""
    steps = 16 * segments_per_agent
    trainer, recorder, _ = recorded_ppo(
        vecenv=vecenv, trainer={"batch_size": 16 * steps, "minibatch_size": 16 * steps}, total_timesteps=16 * steps * 2
    )
    ended = 0.0
    try:
        for rollout in range(2):
            trainer.evaluate()
            stored = [trainer.observations, trainer.rewards, trainer.terminals, trainer.truncations]
            for part, array in enumerate(stored):
                sent = np.zeros((trainer.total_agents, steps + 1, *array.shape[2:]))
                batches = len(recorder.arrived) // (steps * (rollout + 1) + 1)
                for time in range(steps + 1):
                    first = (rollout * steps + time) * batches
                    for batch in recorder.arrived[first : first + batches]:
                        sent[batch[4], time] = batch[part]
                in_rows = array.view(segments_per_agent, trainer.total_agents, 16, *array.shape[2:]).transpose(0, 1)
                np.testing.assert_array_equal(in_rows.reshape(sent[:, :-1].shape), sent[:, :-1].astype(np.float32))
                if part > 0:
                    np.testing.assert_array_equal(trainer.ahead[part], sent[:, -1].astype(np.float32))
            ended += float(trainer.truncations.sum() + trainer.terminals.sum())
            trainer.train()
    finally:
        trainer.close()
    assert ended > 0
    assert trainer.global_step == 16 * steps * 2


def test_the_bootstrap_value_is_the_networks_at_the_next_observation_with_the_state_carried_on() -> None:
    """Values one step after the rollout equal those of the network run by hand over the whole of it, to 1e-5."""
    trainer, recorder, _ = recorded_ppo(vecenv={"early_reset": False})  # no episode ends within the rollout
    try:
        trainer.evaluate()
        observations = torch.from_numpy(np.stack([batch[0] for batch in recorder.arrived], axis=1))
        assert observations.shape[1] == 17
        with torch.no_grad():
            _, values = trainer.uncompiled_policy(observations)
        torch.testing.assert_close(trainer.ahead.values, values.view(-1, 17)[:, -1], rtol=0, atol=1e-5)
    finally:
        trainer.close()


@pytest.mark.parametrize("left_open", [False, True])
def test_mixed_precision_acts_with_the_current_weights(left_open: bool) -> None:
    """Under bfloat16, changed weights change what the acting network says, whatever contexts an earlier run left open.

    PuffeRL leaves one open, whose cache keeps the cast weights of the first update.
    """
    trainer, _, _ = recorded_ppo(device={"precision": "bfloat16"})
    with torch.autocast("cpu", dtype=torch.bfloat16) if left_open else nullcontext():
        trainer.evaluate()
        trainer.train()
        observation = trainer.observations[:, 0]
        with torch.inference_mode():
            before, _, _ = trainer._forward(observation, trainer._state(0))
        with torch.no_grad():
            trainer.uncompiled_policy._action_head.weight.mul_(100)  # pyright: ignore
        with torch.inference_mode():
            after, _, _ = trainer._forward(observation, trainer._state(0))
    trainer.close()
    assert (after - before).abs().max() > 1


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_training_changes_every_parameter(optimizer: str) -> None:
    """One update with each optimizer moves all parameters, and all stay finite."""
    trainer, _, _ = recorded_ppo(optimizer={"name": optimizer})
    try:
        before = {name: value.clone() for name, value in trainer.uncompiled_policy.named_parameters()}
        trainer.evaluate()
        trainer.train()
        unmoved = [name for name, value in trainer.uncompiled_policy.named_parameters() if value.equal(before[name])]
    finally:
        trainer.close()
    assert unmoved == []


def test_a_reward_that_is_not_a_number_stops_the_run() -> None:
    """It raises ScoutError before anything is trained on it; PuffeRL gives its segment no priority and goes on."""
    trainer, _, _ = recorded_ppo()
    trainer.evaluate()
    trainer.rewards[0, 3] = float("nan")
    with pytest.raises(ScoutError, match="diverged in update 1: the advantages"):
        trainer.train()
    trainer.close()
