"""`ScoutPolicy`: what cogames plays says what evaluate.py's network says, agent by agent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_experiment
from evaluation_helpers import ENV_INFO, network_of
from mettagrid.simulator import AgentObservation, ObservationToken
from torch import Tensor

from scout.model_config import Model
from scout.models import make_model
from scout.policy import CONFIG_KEY, WEIGHTS_KEY, ScoutPolicy

SIZES: dict[str, Any] = {"embedding_size": 8, "features": 16, "global_features": 8, "hidden_size": 16}
MODELS: dict[str, dict[str, Any]] = {
    "cnn_lstm": {},
    "conv": {"name": "conv", "conv_channels": [4, 8], **SIZES},
    "conv_lstm": {"name": "conv", "conv_channels": [4, 8], "memory": "lstm", **SIZES},
    "conv_memoryless": {"name": "conv", "conv_channels": [4, 8], "memory": "none", **SIZES},
    "attention": {"name": "attention", "token_features": 16, "heads": 4, **SIZES},
}
FEATURES = {int(feature.id): feature for feature in ENV_INFO.obs_features}


def model_of(kind: str) -> Model:
    """A small network's config."""
    return tiny_experiment(**({"model": MODELS[kind]} if MODELS[kind] else {})).model


def seen_by(agent: int, tokens: Tensor) -> AgentObservation:
    """Tokens uint8 [T, 3] as an agent gets them from the simulator: without the padding."""
    raw = [(int(place), int(feature), int(value)) for place, feature, value in tokens if place != 0xFF]
    listed = [ObservationToken(feature=FEATURES[token[1]], value=token[2], raw_token=token) for token in raw]
    return AgentObservation(agent_id=agent, tokens=listed)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A small recurrent network in a file of the kind that bundles have."""
    contents = {CONFIG_KEY: model_of("cnn_lstm").model_dump(), WEIGHTS_KEY: network_of(1).state_dict()}
    torch.save(contents, tmp_path / "network.pt")
    return tmp_path / "network.pt"


def loaded(path: Path, **arguments: Any) -> ScoutPolicy:
    """The policy of such a file."""
    policy = ScoutPolicy(ENV_INFO, **arguments)
    policy.load_policy_data(str(path))
    return policy


def actions(policy: ScoutPolicy, agent: int, observations: Tensor) -> list[str]:
    """What one agent does when it is shown observations [steps, T, 3], from its first step on."""
    player = policy.agent_policy(agent)
    return [player.step(seen_by(agent, tokens)).name for tokens in observations]


@pytest.mark.parametrize("kind", MODELS)
def test_a_greedy_agent_takes_the_action_that_is_most_probable_to_the_network(
    kind: str, observations: Tensor, tmp_path: Path
) -> None:
    """Over a sequence, its state carried on, for each network; evaluate.py takes other layers than the policy does."""
    torch.manual_seed(1)
    network: Any = make_model(model_of(kind), ENV_INFO).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    torch.save({CONFIG_KEY: model_of(kind).model_dump(), WEIGHTS_KEY: network.state_dict()}, tmp_path / "network.pt")
    with torch.inference_mode():
        logits, _ = network.forward(observations)  # [4 x 12, actions], the whole sequence at once
    expected = [ENV_INFO.action_names[int(best)] for best in logits.argmax(dim=-1)]
    policy = loaded(tmp_path / "network.pt", greedy=True)
    assert [name for agent in range(4) for name in actions(policy, agent, observations[agent])] == expected
    assert len(set(expected)) > 1


def test_agents_have_states_of_their_own(stored: Path, observations: Tensor) -> None:
    """Agents that act in turns do what each does alone."""
    policy = loaded(stored, greedy="true")
    alone = [actions(policy, agent, observations[agent]) for agent in range(4)]
    players = [policy.agent_policy(agent) for agent in range(4)]
    in_turns: list[list[str]] = [[] for _ in players]
    for step in range(observations.shape[1]):
        for agent, player in enumerate(players):
            in_turns[agent].append(player.step(seen_by(agent, observations[agent, step])).name)
    assert in_turns == alone


def test_a_reset_forgets(stored: Path, observations: Tensor) -> None:
    """After a reset an agent does again what it did in its first episode."""
    player = loaded(stored, greedy=True).agent_policy(0)
    shown = [seen_by(0, tokens) for tokens in observations[0]]
    first = [player.step(each).name for each in shown]
    assert [player.step(each).name for each in shown] != first
    player.reset()
    assert [player.step(each).name for each in shown] == first


def test_actions_are_sampled_as_often_as_the_network_says(stored: Path, observations: Tensor) -> None:
    """4,000 first actions of as many agents have the network's probabilities, within four standard deviations."""
    policy = loaded(stored, seed="7")
    network: Any = policy.network()
    with torch.inference_mode():
        probabilities = network.forward_eval(observations[:1, 0])[0].softmax(dim=-1)[0].numpy()
    shown = seen_by(0, observations[0, 0])
    taken = [policy.agent_policy(agent).step(shown).name for agent in range(4000)]
    share = np.array([taken.count(name) / len(taken) for name in ENV_INFO.action_names])
    assert (np.abs(share - probabilities) <= 4 * np.sqrt(probabilities * (1 - probabilities) / 4000) + 1e-9).all()
    assert (probabilities < 0.9).all()


def test_a_seed_fixes_the_noise_and_none_does_not(stored: Path, observations: Tensor) -> None:
    """The same seed gives the same actions, agents have different noise, and without a seed each policy draws anew."""
    same = observations[0].repeat(4, 1, 1)  # 48 steps
    first, again = (actions(loaded(stored, seed="7"), 0, same) for _ in range(2))
    assert first == again
    assert actions(loaded(stored, seed=7), 1, same) != first
    assert actions(loaded(stored), 0, same) != actions(loaded(stored), 0, same)


def test_wrong_keys_of_a_command_line_are_refused(stored: Path) -> None:
    """`kw.greedy=yes`, an unknown key and a file of something else are errors, not silently something else."""
    with pytest.raises(ValueError, match="greedy=yes is not valid: expected true or false"):
        ScoutPolicy(ENV_INFO, greedy="yes")
    with pytest.raises(TypeError, match="greedi"):
        ScoutPolicy(ENV_INFO, greedi="true")  # pyright: ignore[reportCallIssue]
    torch.save(network_of(1).state_dict(), stored)
    with pytest.raises(ValueError, match="holds no network with its config"):
        loaded(stored)
    with pytest.raises(ValueError, match="expected data=FILE"):
        ScoutPolicy(ENV_INFO).agent_policy(0)
