"""A trained network as cogames plays it: `class=scout.policy.ScoutPolicy,data=FILE`, alone or out of a bundle.

A bundle holds this module and what it imports, and nothing else of the project: on a leaderboard's server there are
mettagrid, torch, numpy and pydantic.
"""

import json
from pathlib import Path
from typing import Any, override

import numpy as np
import torch
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Action, AgentObservation, Simulation
from pydantic import TypeAdapter
from torch import nn

from scout.model_config import Model
from scout.models import fix_weights, make_model, set_fast_layers
from scout.observation import PADDING

CONFIG_KEY, WEIGHTS_KEY = "model", "state_dict"  # of the file that the policy reads


class ScoutPolicy(MultiAgentPolicy):
    """One network for all agents, each with its own recurrent state; actions are sampled, or the most probable ones."""

    def __init__(
        self,
        policy_env_info: PolicyEnvInterface,
        device: str = "cpu",
        greedy: bool | str = False,
        seed: int | str | None = None,
    ) -> None:
        """The keys of a command line arrive as texts. `seed` fixes the noise of the sampling.

        Raises ValueError for a `greedy` or a `seed` that is none.
        """
        super().__init__(policy_env_info, device=device)
        if str(greedy).lower() not in ("true", "false"):
            raise ValueError(f"greedy={greedy} is not valid: expected true or false")
        self.device, self.greedy = device, str(greedy).lower() == "true"
        self.seed = None if seed is None else int(seed)
        self._network: nn.Module | None = None

    @override
    def load_policy_data(self, policy_data_path: str) -> None:
        """Makes the network that the file describes, for this mission, with its weights.

        Raises ValueError where the file holds something else, and RuntimeError where the weights do not fit the
        mission's observations or actions.
        """
        config, weights = read_network(Path(policy_data_path))
        network = make_model(TypeAdapter(Model).validate_python(config), self.policy_env_info)
        network.load_state_dict(weights)
        set_fast_layers(network, False)  # they need numba, which would compile in the first step of each process
        torch.set_num_threads(
            1
        )  # a server's container may have fewer cores than torch counts, and each agent a process
        self._network = network.to(self.device).eval()
        fix_weights(self._network)

    @override
    def network(self) -> nn.Module:
        if self._network is None:
            raise ValueError("this policy has no network yet: expected data=FILE, as scout.export writes it")
        return self._network

    @override
    def agent_policy(self, agent_id: int) -> "ScoutAgent":
        return ScoutAgent(self, agent_id)


class ScoutAgent(AgentPolicy):
    """One agent: its recurrent state, zero at an episode's start, and its noise."""

    def __init__(self, policy: ScoutPolicy, agent_id: int) -> None:
        super().__init__(policy.policy_env_info)
        self._network: Any = policy.network()
        self._greedy, self._device = policy.greedy, policy.device
        # Without a seed from the system: no two processes draw the same noise.
        self._generator = np.random.default_rng(None if policy.seed is None else (policy.seed, agent_id))
        self._tokens = np.empty((1, *policy.policy_env_info.observation_space.shape), dtype=np.uint8)
        self.reset()

    @override
    def reset(self, simulation: Simulation | None = None) -> None:
        zeros = torch.zeros(1, self._network.hidden_size, device=self._device)
        self._state = {"lstm_h": zeros, "lstm_c": zeros.clone()}

    @override
    @torch.inference_mode()
    def step(self, obs: AgentObservation) -> Action:
        self._tokens.fill(PADDING)
        seen = [token.raw_token for token in obs.tokens[: self._tokens.shape[1]]]
        self._tokens[0, : len(seen)] = np.reshape(seen, (-1, 3))
        logits, _ = self._network.forward_eval(torch.from_numpy(self._tokens).to(self._device), self._state)
        scores = logits[0].float().cpu().numpy()
        if not self._greedy:
            scores = scores + self._generator.gumbel(size=scores.shape)  # the largest is a sample of their softmax
        return Action(name=self.policy_env_info.action_names[int(scores.argmax())])


def read_network(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A network's config (scout/model_config.py) and weights, from a bundle's .pt or an exported .safetensors.

    Raises ValueError where it holds something else.
    """
    if path.suffix.lower() == ".safetensors":
        from safetensors import safe_open  # not in a bundle, whose file is torch's own

        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get(CONFIG_KEY, "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    else:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        found = contents if isinstance(contents, dict) else {}
        config, weights = (found.get(key) for key in (CONFIG_KEY, WEIGHTS_KEY))
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise ValueError(f"{path} holds no network with its config: expected what scout.export or scout.submit wrote")
    return config, weights
