"""Who plays an evaluation: a trained network, or a baseline."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from mettagrid.policy.loader import discover_and_register_policies, initialize_or_load_policy
from mettagrid.policy.policy import AgentPolicy, PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.policy_registry import get_policy_registry
from mettagrid.simulator import Simulation
from torch import nn

from scout.baselines import COGAMES, NOOP, RANDOM, WALKER
from scout.errors import ScoutError, nearest
from scout.models import fix_weights
from scout.walker import WalkerPolicy


class Policy(Protocol):
    """Plays several episodes side by side."""

    name: str

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        """Starts new episodes, each with the generator that its randomness comes from."""
        ...

    def act(self) -> None:
        """Sets the action of every agent of every episode."""
        ...


class NetworkPolicy:
    """A trained network: all agents in one forward pass, their recurrent states zero at each episode's start."""

    def __init__(self, name: str, network: nn.Module, device: str, greedy: bool, precision: str = "float32") -> None:
        self.name, self.network, self.device, self._greedy = name, network.eval(), device, greedy
        fix_weights(network)
        self._autocast = precision == "bfloat16"

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        self._simulations, self._generators = simulations, generators
        agents = sum(simulation.num_agents for simulation in simulations)
        zeros = torch.zeros(agents, self.network.hidden_size, device=self.device)  # pyright: ignore[reportArgumentType]
        self._state = {"lstm_h": zeros, "lstm_c": zeros.clone()}

    @torch.inference_mode()
    def act(self) -> None:
        observations = np.concatenate([simulation._c_sim.observations() for simulation in self._simulations])
        tokens = torch.from_numpy(observations).to(self.device)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self._autocast, cache_enabled=False):
            logits, _ = self.network.forward_eval(tokens, self._state)  # pyright: ignore[reportCallIssue]
        logits = logits.float().cpu().numpy()
        start = 0
        for simulation, generator in zip(self._simulations, self._generators, strict=True):
            own = logits[start : start + simulation.num_agents]
            start += simulation.num_agents
            if not self._greedy:
                # The largest of logits + Gumbel noise is a sample of their softmax. Each episode draws its own noise,
                # so its actions do not depend on which episodes are played beside it.
                own = own + generator.gumbel(size=own.shape)
            simulation._c_sim.actions()[:] = own.argmax(axis=1)


class RandomPolicy:
    """Each of the primary actions (noop and the four moves) with the same probability."""

    name = "random"

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        self._simulations, self._generators = simulations, generators

    def act(self) -> None:
        for simulation, generator in zip(self._simulations, self._generators, strict=True):
            primary = len(simulation.action_names) - len(simulation.vibe_action_names)
            simulation._c_sim.actions()[:] = generator.integers(primary, size=simulation.num_agents)


class NoopPolicy:
    """Stands still."""

    name = "noop"

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        self._simulations = simulations

    def act(self) -> None:
        for simulation in self._simulations:
            simulation._c_sim.actions()[:] = simulation.action_ids["noop"]


class CogamesPolicy:
    """A policy that cogames ships, played as cogames plays it: agent by agent.

    What such a policy draws from global generators depends on `evaluate`'s seed and on the episodes beside it.
    """

    def __init__(self, short_name: str, env_info: PolicyEnvInterface) -> None:
        """Raises ScoutError for a name that cogames does not know, and for a policy that needs more than its name."""
        self.name = f"cogames/{short_name}"
        self._short_name, self._env_info = short_name, env_info
        discover_and_register_policies()
        if short_name not in get_policy_registry():
            valid = [f"cogames/{name}" for name in get_policy_registry()]
            raise ScoutError(f"policy={self.name} is unknown; {nearest(self.name, valid)}")
        try:
            self._make()
        except Exception as error:
            raise ScoutError(f"policy={self.name} cannot be made: {error}") from error

    def _make(self) -> list[AgentPolicy]:
        policy = initialize_or_load_policy(self._env_info, PolicySpec(class_path=self._short_name))
        return [policy.agent_policy(agent) for agent in range(self._env_info.num_agents)]

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        self._agents = []
        for simulation in simulations:
            for agent_id, policy in enumerate(self._make()):
                policy.reset()  # without the simulation, as mettagrid's own rollout does
                self._agents.append((simulation.agent(agent_id), policy))

    def act(self) -> None:
        for agent, policy in self._agents:
            agent.set_action(policy.step(agent.observation))


_MAKE: dict[str, Callable[[], Policy]] = {RANDOM: RandomPolicy, NOOP: NoopPolicy, WALKER: WalkerPolicy}


def make_baseline(name: str, env_info: PolicyEnvInterface) -> Policy:
    """The policy of a baseline's name (baselines.py). Raises ScoutError where cogames knows no such name."""
    return CogamesPolicy(name.removeprefix(COGAMES), env_info) if name.startswith(COGAMES) else _MAKE[name]()
