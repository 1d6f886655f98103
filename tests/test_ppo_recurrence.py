"""Recurrent states under `trainer=ppo`: reset at every episode's end, carried on, and trained as they were played."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import merge, tiny_experiment
from ppo_helpers import VECENVS, recorded_ppo, trainer_of
from pufferlib.pytorch import sample_logits
from torch import Tensor

from scout.trainer import StockTrainer

# Two segments of 16 steps for each of 16 agents a rollout, in episodes of 25 steps, some cut short.
TWO_SEGMENTS: dict[str, Any] = {
    "trainer": {"batch_size": 512, "minibatch_size": 512},
    "total_timesteps": 2048,
}
MODELS: dict[str, dict[str, Any]] = {
    "cnn_lstm": {},
    "conv_gru": {"name": "conv", "memory": "gru"},
    "conv_lstm": {"name": "conv", "memory": "lstm"},
    "conv_memoryless": {"name": "conv", "memory": "none"},
    "attention": {"name": "attention"},
}


def with_model(model: dict[str, Any]) -> dict[str, Any]:
    """Changes of the tiny experiment: another network's group in the place of the tiny one's."""
    return {"model": model} if model else {}


def played_by_hand(network: Any, observations: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [A, L, actions] and the state after the last step of A agents, one step after the other."""
    agents, steps = ended.shape
    state = {key: torch.zeros(agents, network.hidden_size) for key in ("lstm_h", "lstm_c")}
    logits = []
    with torch.no_grad():
        for t in range(steps):
            logits.append(network.forward_eval(observations[:, t], state)[0])
            for key in state:
                state[key] = state[key].view(agents, -1)
                for agent in range(agents):
                    if ended[agent, t]:
                        state[key][agent] = 0
    return torch.stack(logits, dim=1), state["lstm_h"]


@pytest.mark.parametrize("vecenv", VECENVS.values(), ids=VECENVS.keys())
def test_states_are_carried_over_rollouts_and_begin_anew_with_each_episode(vecenv: dict[str, Any]) -> None:
    """After two rollouts without training, states and actions' probabilities are those of all steps played by hand."""
    trainer, recorder, _ = recorded_ppo(**TWO_SEGMENTS, vecenv=vecenv)
    try:
        trainer.evaluate()
        trainer.evaluate()
        steps = [[], [], []]
        for first in range(0, len(recorder.arrived), len(recorder.arrived) // 65):  # 2 x 32 steps and the one ahead
            batches = sorted(recorder.arrived[first : first + len(recorder.arrived) // 65], key=lambda b: b[4][0])
            for part, index in enumerate((0, 2, 3)):
                steps[part].append(np.concatenate([batch[index] for batch in batches]))
        observations, terminals, truncations = (torch.from_numpy(np.stack(part, axis=1)) for part in steps)
        ended = (terminals + truncations)[:, :64] > 0
        logits, state = played_by_hand(trainer.uncompiled_policy, observations[:, :64], ended)
        states = torch.cat([trainer.lstm_h[first] for first in sorted(trainer.lstm_h)])
        torch.testing.assert_close(states, state, rtol=0, atol=1e-5)
        expected = torch.log_softmax(logits[:, 32:], dim=-1)
        in_order = trainer.actions.view(2, 16, 16).transpose(0, 1).reshape(16, 32)
        chosen = expected.gather(2, in_order.long().unsqueeze(2)).squeeze(2)
        stored = trainer.logprobs.view(2, 16, 16).transpose(0, 1).reshape(16, 32)
        torch.testing.assert_close(stored, chosen, rtol=0, atol=1e-5)
    finally:
        trainer.close()
    assert ended[:, :32].any()
    assert ended[:, 33:].any()


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_training_recomputes_the_very_probabilities_that_acted(model: dict[str, Any]) -> None:
    """Replayed before an update, log-probabilities and values equal the rollout's to 1e-5, in the third rollout too.

    Episodes end in mid-segment, and each agent has two segments a rollout.
    """
    trainer, _, _ = recorded_ppo(**TWO_SEGMENTS, **with_model(model))
    try:
        for rollout in range(3):
            trainer.evaluate()
            assert trainer.ended[:, :-1].any()
            rows = torch.randperm(trainer.segments)
            with torch.no_grad():
                logits, values = trainer._replay(rows)
            _, logprobs, _ = sample_logits(logits, action=trainer.actions[rows].flatten())
            torch.testing.assert_close(logprobs.view(-1, 16), trainer.logprobs[rows], rtol=0, atol=1e-5)
            torch.testing.assert_close(values, trainer.values[rows], rtol=0, atol=1e-5)
            if rollout < 2:
                trainer.train()
    finally:
        trainer.close()


def test_pufferl_trains_another_policy_than_the_one_that_acted() -> None:
    """PuffeRL replays every segment from a state of zero: its second segments have other probabilities than played."""
    trainer = trainer_of(tiny_experiment(**merge(TWO_SEGMENTS, {"trainer": {"name": "pufferl"}})))
    assert type(trainer) is StockTrainer
    trainer.evaluate()
    with torch.no_grad():
        logits, _ = trainer.policy(trainer.observations, {"lstm_h": None, "lstm_c": None})
    _, logprobs, _ = sample_logits(logits, action=trainer.actions.flatten())
    difference = (logprobs.view(-1, 16) - trainer.logprobs).abs().amax(dim=1)
    trainer.close()
    assert difference[:16].max() < 1e-5
    assert difference[16:].min() > 1e-4


def test_states_can_begin_anew_with_each_rollout() -> None:
    """With carry_state=false the second rollout's first segments start from zero, and training knows it."""
    trainer, _, _ = recorded_ppo(trainer={"carry_state": False})
    try:
        trainer.evaluate()
        assert trainer.lstm_h[0].abs().max() > 0
        trainer.evaluate()
    finally:
        trainer.close()
    assert trainer.initial_states["lstm_h"].abs().max() == 0


def test_gradients_flow_through_a_segment_but_not_into_the_episode_before() -> None:
    """A segment's last probability depends on its first observation, unless an episode ended between them."""
    trainer, _, _ = recorded_ppo(vecenv={"early_reset": False})
    try:
        trainer.evaluate()
        trainer.terminals[:8, 7] = 1
        row = torch.arange(16)
        before, _ = trainer._replay(row)
        trainer.observations[:, 0] = trainer.observations[:, 15]
        after, _ = trainer._replay(row)
        changed = (after - before).view(16, 16, -1).abs().amax(dim=(0, 2))
        by_row = (after - before).view(16, 16, -1)[:, -1].abs().amax(dim=1)
    finally:
        trainer.close()
    assert changed[0] > 0
    assert by_row[:8].max() == 0
    assert by_row[8:].min() > 0
