"""Two small tasks whose best possible return is known by hand, and a network for them.

Both keep to the convention of MettaGrid's environment: the observation that arrives with an episode's end is its final
one, the action given then is ignored, and the next step brings the first observation of the next episode, reward 0.
Each is one environment of many agents that play apart from each other, simulated together with numpy.
"""

from typing import Any, override

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from pufferlib.pufferlib import PufferEnv
from torch import Tensor, nn

from scout.models.heads import Heads
from scout.models.memory import RecurrentLayer, orthogonal

Agents = NDArray[np.intp]


class KnownTask(PufferEnv):
    """Clocks, restarts and returns, which both tasks share.

    `returns` holds the undiscounted return of every whole episode, in the order in which they ended.
    """

    optimum: float
    observations: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminals: NDArray[np.bool_]
    truncations: NDArray[np.bool_]

    def __init__(self, features: int, actions: int, num_agents: int, buf: Any = None, seed: int | None = None) -> None:
        self.single_observation_space = Box(0, 1, (features,), np.uint8)
        self.single_action_space = Discrete(actions)
        self.num_agents = num_agents
        self.returns: list[float] = []
        self.so_far = np.zeros(num_agents)
        super().__init__(buf)

    @override
    def reset(self, seed: int | None = None) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
        self.generator = np.random.default_rng(seed)
        self.returns.clear()
        self._restart(np.arange(self.num_agents))
        return self.observations, []

    @override
    def step(self, actions: NDArray[np.integer]) -> tuple[Any, ...]:
        over = self.terminals | self.truncations
        self._restart(np.flatnonzero(over))
        playing = np.flatnonzero(~over)
        self._play(playing, np.asarray(actions)[playing])
        self.so_far += self.rewards
        self.returns += self.so_far[self.terminals | self.truncations].tolist()
        return self.observations, self.rewards, self.terminals, self.truncations, []

    def _restart(self, agents: Agents) -> None:
        self.rewards[agents], self.so_far[agents] = 0, 0
        self.terminals[agents], self.truncations[agents] = False, False
        self._begin(agents)

    def _begin(self, agents: Agents) -> None:
        """Writes the first observation of these agents' new episodes."""
        raise NotImplementedError

    def _play(self, agents: Agents, actions: NDArray[np.integer]) -> None:
        """Writes what the actions of these agents, whose episodes go on, lead to."""
        raise NotImplementedError

    @override
    def close(self) -> None:
        pass


class NameTheCue(KnownTask):
    def __init__(self, num_agents: int, waits=(6, 11), cues=4, buf: Any = None, seed: int | None = None) -> None:
        self.cues = cues
        self.waits = waits
        self.cue = np.zeros(num_agents, dtype=np.intp)
        self.wait = np.zeros(num_agents, dtype=np.intp)
        self.optimum = 1.0
        super().__init__(cues + 1, cues, num_agents, buf, seed)

    @override
    def _begin(self, agents: Agents) -> None:
        self.cue[agents] = self.generator.integers(self.cues, size=len(agents))
        self.wait[agents] = self.generator.integers(self.waits[0], self.waits[1], size=len(agents))
        self.observations[agents] = 0
        self.observations[agents, self.cue[agents]] = 1

    @override
    def _play(self, agents: Agents, actions: NDArray[np.integer]) -> None:
        asked = self.wait[agents] == 0
        self.rewards[agents] = asked & (actions == self.cue[agents])
        self.terminals[agents] = asked
        self.wait[agents] -= 1
        self.observations[agents] = 0
        self.observations[agents, self.cues] = self.wait[agents] == 0


class Corridor(KnownTask):
    def __init__(self, num_agents: int, arm=4, bonus=0.0, cut=False, buf: Any = None, seed: int | None = None) -> None:
        self.arm = arm
        self.cut = cut
        self.bonus = bonus
        self.length = 3 * arm
        self.optimum = 2 * arm + bonus
        self.position = np.zeros(num_agents, dtype=np.intp)
        self.clock = np.zeros(num_agents, dtype=np.intp)
        self.visited = np.zeros((num_agents, 2 * arm + 1), dtype=bool)
        super().__init__(2, 2, num_agents, buf, seed)

    @override
    def reset(self, seed=None):
        result = super().reset(seed)
        self.clock[:] = np.arange(self.num_agents) % self.length
        return result

    @override
    def _begin(self, agents: Agents) -> None:
        self.position[agents] = self.arm
        self.clock[agents] = 0
        self.visited[agents] = False
        self.visited[agents, self.arm] = True
        self._look(agents)

    def _look(self, agents):
        self.observations[agents, 0] = self.position[agents] == 0
        self.observations[agents, 1] = self.position[agents] == 2 * self.arm

    @override
    def _play(self, agents: Agents, actions: NDArray[np.integer]) -> None:
        position = np.clip(self.position[agents] + 2 * actions - 1, 0, 2 * self.arm)
        self.position[agents] = position
        new = ~self.visited[agents, position]
        self.visited[agents, position] = True
        self.rewards[agents] = new * (1 + self.bonus * self.visited[agents].all(axis=1))
        self.clock[agents] += 1
        (self.truncations if self.cut else self.terminals)[agents] = self.clock[agents] == self.length
        self._look(agents)


class SmallNetwork(nn.Module):
    """A linear layer, an LSTM and two heads, by the protocol of scout.models.RecurrentPolicy."""

    def __init__(self, features: int, actions: int, hidden_size: int = 32) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.encoder = orthogonal(nn.Linear(features, hidden_size), 2**0.5)
        self.memory = RecurrentLayer("lstm", hidden_size, hidden_size)
        self.heads = Heads(hidden_size, actions)

    @override
    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        steps = observations if observations.dim() == 3 else observations.unsqueeze(1)
        return self.heads(self.memory(torch.relu(self.encoder(steps.float())), state))

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(observations, state)
