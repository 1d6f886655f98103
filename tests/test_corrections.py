"""Each of trainer=ppo's corrections can be taken back, and then that one alone is gone, on real rollouts."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_script, tiny_overrides
from contenders import SECTIONS
from corrections import TAKEN_BACK, main
from ppo_helpers import recorded_ppo
from torch import Tensor

from scout import build
from scout.ppo import PPO

STEPS = 16
# Episodes of 6 steps, the first ones cut short at random: within a segment of 16 steps end some of both kinds.
SHORT: dict[str, Any] = {"mission": {"max_steps": 6, "rewards": {"cell_visited": 1.0}}, "total_timesteps": 1024}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PPO]:
    """A trainer with the named correction taken back, after so many rollouts, between which it has trained."""

    def trainer_of(name: str, rollouts: int = 2, **changes: Any) -> PPO:
        monkeypatch.setitem(build.TRAINERS, "ppo", TAKEN_BACK[name])
        trainer, _, _ = recorded_ppo(**SHORT, **changes)
        assert type(trainer) is TAKEN_BACK[name]
        trainer.evaluate()
        for _ in range(rollouts - 1):
            trainer.train()
            trainer.evaluate()
        trainer.close()
        trainer.ratio[:] = 1
        return trainer

    return trainer_of


def advantages_by_hand(trainer: PPO, rewards: Tensor, last: int = STEPS, truncations: bool = True) -> Tensor:
    """GAE of the first `last` steps of each segment, by its definition; those after them have none.

    Without `truncations` an episode that was cut short goes on in the one after it.
    """
    config, ahead = trainer.experiment.trainer, trainer.ahead
    values = torch.cat([trainer.values, ahead.values.unsqueeze(1)], dim=1)
    terminals = torch.cat([trainer.terminals, ahead.terminals.unsqueeze(1)], dim=1)
    cuts = torch.cat([trainer.truncations, ahead.truncations.unsqueeze(1)], dim=1)
    expected = torch.zeros(len(values), STEPS)
    for row in range(len(values)):
        following = 0.0
        for t in reversed(range(last)):
            has_future = 0.0 if terminals[row, t + 1] else 1.0
            goes_on = 0.0 if truncations and cuts[row, t + 1] else has_future
            delta = float(rewards[row, t + 1] + config.gamma * values[row, t + 1] * has_future - values[row, t])
            following = delta + config.gamma * config.gae_lambda * goes_on * following
            expected[row, t] = following
    return expected


def played_by_hand(trainer: PPO, state: dict[str, Tensor], begins_anew: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [segments, steps, actions] of the stored observations, one step after the other, and the last state.

    `begins_anew`: the state does so after each observation that ended an episode.
    """
    network: Any = trainer.uncompiled_policy
    state, logits = {key: value.clone() for key, value in state.items()}, []
    with torch.no_grad():
        for t in range(STEPS):
            logits.append(network.forward_eval(trainer.observations[:, t], state)[0])
            goes_on = ~trainer.ended[:, t].unsqueeze(1) if begins_anew else 1
            state = {key: value.flatten(1) * goes_on for key, value in state.items()}
    return torch.stack(logits, dim=1), state


def replayed(trainer: PPO, kind: type[PPO]) -> Tensor:
    """Logits [segments, steps, actions] as training under this trainer computes them."""
    with torch.no_grad():
        logits, _ = kind._replay(trainer, torch.arange(trainer.segments))
    return logits.view(trainer.segments, STEPS, -1)


def logprobs_of(trainer: PPO, logits: Tensor) -> Tensor:
    """How likely the actions that were taken are by these logits, [segments, steps]."""
    return torch.log_softmax(logits, dim=-1).gather(2, trainer.actions.long().unsqueeze(2)).squeeze(2)


def zeros(trainer: PPO) -> dict[str, Tensor]:
    return {key: torch.zeros_like(state) for key, state in trainer.initial_states.items()}


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


# -- advantages --------------------------------------------------------------------------------------------------------


def test_the_last_step_of_each_segment_is_lost(without: Callable[..., PPO]) -> None:
    """Its advantage is 0, and the others are those of a segment that ends a step earlier, with its last value known."""
    trainer = without("last_step")
    rewards = trainer._rewards()
    advantages, plain = trainer._advantages(rewards), PPO._advantages(trainer, rewards)
    assert (advantages[:, -1] == 0).all()
    assert_close(advantages, advantages_by_hand(trainer, rewards, last=STEPS - 1))
    assert_close(plain, advantages_by_hand(trainer, rewards))
    assert (plain[:, -1].abs() > 1e-3).any()
    assert ((plain - advantages)[:, :-1].abs() > 1e-3).any()


def test_the_last_step_can_only_be_lost_where_an_agent_has_one_segment(without: Callable[..., PPO]) -> None:
    """With two segments each, a timeline is no segment: that is refused, and not computed wrongly."""
    trainer = without("last_step", 1, trainer={"batch_size": 512, "minibatch_size": 512})
    with pytest.raises(AssertionError):
        trainer._advantages(trainer._rewards())


def test_advantages_flow_across_an_episode_that_was_cut_short(without: Callable[..., PPO]) -> None:
    """As if it went on in the next one; not across a terminal, and in nothing else is a cut forgotten."""
    trainer = without("cut_episodes", rollouts=1)
    assert trainer.truncations[:, 1:].any()
    assert trainer.terminals.any()
    before = trainer.truncations.clone(), trainer.ahead
    rewards = trainer._rewards()
    advantages, plain = trainer._advantages(rewards), PPO._advantages(trainer, rewards)
    expected = advantages_by_hand(trainer, rewards, truncations=False)
    assert_close(advantages, expected)
    assert_close(plain, advantages_by_hand(trainer, rewards))
    differs = (plain - advantages).abs() > 1e-4
    assert differs.any()
    for row, t in differs.nonzero().tolist():  # a cut comes later in the segment, and no terminal before it
        ends = (trainer.terminals + trainer.truncations)[row, t + 1 :].nonzero().flatten()
        assert trainer.truncations[row, t + 1 + int(ends[0])] == 1
    assert torch.equal(trainer.truncations, before[0])
    assert trainer.ahead is before[1]
    assert not trainer.counted[trainer.truncations > 0].any()


# -- recurrent states --------------------------------------------------------------------------------------------------


def test_training_begins_at_zero(without: Callable[..., PPO]) -> None:
    """Segments are trained from zero, and begin anew where an episode ended; they are played from the carried state."""
    trainer = without("initial_states")
    carried = {key: state.clone() for key, state in trainer.initial_states.items()}
    assert carried["lstm_h"].abs().max() > 1e-3
    assert trainer.ended[:, :-1].any()
    played, _ = played_by_hand(trainer, carried, begins_anew=True)
    assert_close(trainer.logprobs, logprobs_of(trainer, played))
    assert_close(replayed(trainer, PPO), played)
    trained = replayed(trainer, type(trainer))
    assert_close(trained, played_by_hand(trainer, zeros(trainer), begins_anew=True)[0])
    assert (trained - played).abs().max() > 1e-4


def test_the_state_goes_on_from_an_episode_into_the_next(without: Callable[..., PPO]) -> None:
    """In playing: it is that of all steps played by hand without a new beginning."""
    trainer = without("episode_ends", rollouts=1)
    assert trainer.ended[:, :-1].any()
    played, state = played_by_hand(trainer, zeros(trainer), begins_anew=False)
    assert_close(trainer.logprobs, logprobs_of(trainer, played))
    assert_close(trainer.lstm_h[0], state["lstm_h"])
    assert_close(trainer.lstm_c[0], state["lstm_c"])
    anew, _ = played_by_hand(trainer, zeros(trainer), begins_anew=True)
    assert (trainer.logprobs - logprobs_of(trainer, anew)).abs().max() > 1e-4


@pytest.mark.parametrize("segments", [1, 2])
def test_what_went_on_in_playing_goes_on_in_training(segments: int, without: Callable[..., PPO]) -> None:
    """Before its third update, probabilities and values are those of the rollout, where the plain trainer's are not."""
    size = segments * 16 * STEPS
    trainer = without("episode_ends", 3, trainer={"batch_size": size, "minibatch_size": size})
    assert trainer.ended[:, :-1].any()
    trained = replayed(trainer, type(trainer))
    assert_close(logprobs_of(trainer, trained), trainer.logprobs)
    with torch.no_grad():
        _, values = trainer._replay(torch.arange(trainer.segments))
    assert_close(values, trainer.values)
    plain = replayed(trainer, PPO)
    assert (logprobs_of(trainer, plain) - trainer.logprobs).abs().max() > 1e-4


# -- final observations ------------------------------------------------------------------------------------------------


def test_final_observations_are_counted(without: Callable[..., PPO]) -> None:
    """All steps but excursions are trained on, those whose observation ended an episode too."""
    trainer = without("final_steps", trainer={"excursion_share": 0.4, "excursion_length": 3})
    assert (trainer.ended & ~trainer.excursion).any()
    assert trainer.excursion.any()
    assert torch.equal(trainer.counted, ~trainer.excursion)
    plain = PPO.counted.fget(trainer)  # pyright: ignore[reportOptionalCall]
    assert torch.equal(trainer.counted & ~plain, trainer.ended & ~trainer.excursion)


def test_the_action_at_a_final_observation_is_learned_from(without: Callable[..., PPO]) -> None:
    """What was chosen where an episode had ended, and how likely it was, changes the update."""
    weights = []
    for change in (0.0, 3.0):
        trainer = without("final_steps", rollouts=1, trainer={"minibatch_size": 256})
        trainer.logprobs[trainer.ended] += change
        trainer.train()
        weights.append(
            torch.cat([parameter.detach().flatten() for parameter in trainer.uncompiled_policy.parameters()])
        )
    assert not torch.equal(*weights)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_contenders_take_back_every_correction() -> None:
    """Those of docs/results.md that are trained by this script name each of them once."""
    scripts = [contender.script for contender in SECTIONS["corrections"].values()]
    named = [script[1] for script in scripts if script[0] == "benchmarks/corrections.py"]
    assert sorted(named) == sorted(TAKEN_BACK)


@pytest.mark.parametrize("arguments", [[], ["last_steps"]])
def test_a_name_that_there_is_not_is_answered_with_those_there_are(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name, or with a wrong one, nothing is trained."""
    monkeypatch.setattr(sys, "argv", ["corrections.py", *arguments])
    with pytest.raises(
        SystemExit, match=r"^usage: .*\{last_step,cut_episodes,initial_states,episode_ends,final_steps\}"
    ):
        main()


@pytest.mark.slow
def test_the_script_trains_as_train_py_does_but_for_the_correction(tmp_path: Path) -> None:
    """The same first rollout, with the same episodes, from which something else is learned; and it can be resumed."""
    overrides = tiny_overrides(mission={"max_steps": 10})
    first = {}
    for name, script in (("plain", ["train.py"]), ("taken_back", ["benchmarks/corrections.py", "last_step"])):
        done = run_script(*script, *overrides, f"hydra.run.dir={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        first[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
    plain, other = first["plain"], first["taken_back"]
    same = [key for key in plain if key.startswith("environment/")]
    assert [plain[key] for key in same] == [other[key] for key in same]
    assert plain["losses/value_loss"] != other["losses/value_loss"]
    again = run_script(
        "benchmarks/corrections.py", "last_step", f"resume={tmp_path / 'taken_back'}", "total_timesteps=768"
    )
    assert again.returncode == 0, again.stderr
    assert len((tmp_path / "taken_back" / "metrics.jsonl").read_text().splitlines()) == 3
