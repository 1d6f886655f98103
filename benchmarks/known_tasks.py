"""Two small tasks whose best possible return is known by hand, and a small network for them.

Both keep to the convention of MettaGrid's environment: the observation that arrives with an episode's end is its final
one, the action given then is ignored, and the next step brings the next episode's first observation with reward 0.
Each is one environment of many agents that know nothing of each other, simulated together with numpy.
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

Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


class KnownTask(PufferEnv):
    """What both tasks share: restarts and returns.

    `returns` holds the undiscounted return of every whole episode since the reset, in the order in which they ended.
    """

    optimum: float
    """The return of an episode that is played as well as is possible."""
    features: int
    actions_of_an_agent: int
    observations: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminals: Flags
    truncations: Flags

    def __init__(self, num_agents: int, buf: Any = None) -> None:
        self.single_observation_space = Box(0, 1, (self.features,), np.uint8)
        self.single_action_space = Discrete(self.actions_of_an_agent)
        self.num_agents = num_agents
        self.returns: list[float] = []
        self._return = np.zeros(num_agents)
        self._whole = np.ones(num_agents, dtype=bool)
        super().__init__(buf)

    @property
    def over(self) -> Flags:
        """Whose observation is the final one of an episode."""
        return self.terminals | self.truncations

    @override
    def reset(self, seed: int | None = None) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
        self._generator = np.random.default_rng(seed)
        self.returns.clear()
        self._whole[:] = True
        self._restart(np.arange(self.num_agents))
        return self.observations, []

    @override
    def step(self, actions: NDArray[np.integer]) -> tuple[Any, ...]:
        over = self.over
        self._restart(np.flatnonzero(over))
        playing = np.flatnonzero(~over)
        self._play(playing, np.asarray(actions)[playing])
        self._return += self.rewards
        self.returns += self._return[self.over & self._whole].tolist()
        self._whole |= self.over
        return self.observations, self.rewards, self.terminals, self.truncations, []

    @override
    def close(self) -> None:
        """There is nothing to give back."""

    def _restart(self, agents: Indices) -> None:
        self._return[agents] = 0
        self.rewards[agents], self.terminals[agents], self.truncations[agents] = 0, False, False
        self._begin(agents)

    def _begin(self, agents: Indices) -> None:
        """Writes the first observations of these agents' new episodes."""
        raise NotImplementedError

    def _play(self, agents: Indices, actions: NDArray[np.integer]) -> None:
        """Writes what the actions of these agents lead to; all of them are within an episode."""
        raise NotImplementedError


class NameTheCue(KnownTask):
    """Memory: an episode shows one of four cues, then blanks, then asks which cue it was.

    The question comes 3 to 6 steps after the cue. Naming the cue there pays 1 and anything else 0, and either ends the
    episode; nothing else pays, so the optimum is 1 and guessing earns 1/4. The lengths differ by chance, so the agents
    are out of step with each other and with the trainer's rollouts, and none can know the question by counting.
    """

    CUES = 4
    optimum = 1.0
    features = CUES + 1  # one flag for each cue, and one for the question
    actions_of_an_agent = CUES

    def __init__(self, num_agents: int, buf: Any = None) -> None:
        self._cue = np.zeros(num_agents, dtype=np.intp)
        self._wait = np.zeros(num_agents, dtype=np.intp)  # steps until the question
        super().__init__(num_agents, buf)

    @override
    def _begin(self, agents: Indices) -> None:
        self._cue[agents] = self._generator.integers(self.CUES, size=len(agents))
        self._wait[agents] = self._generator.integers(3, 7, size=len(agents))
        self.observations[agents] = 0
        self.observations[agents, self._cue[agents]] = 1

    @override
    def _play(self, agents: Indices, actions: NDArray[np.integer]) -> None:
        asked = self._wait[agents] == 0
        self.rewards[agents] = asked & (actions == self._cue[agents])
        self.terminals[agents] = asked
        self._wait[agents] -= 1
        self.observations[agents] = 0
        self.observations[agents, self.CUES] = self._wait[agents] == 0


class SweepTheCorridor(KnownTask):
    """Exploration: visit all cells of a corridor within 9 steps, while seeing no more than the walls.

    The corridor has 7 cells and the agent begins in the middle one, 3 steps from either end. An action is a step to the
    left or to the right, against a wall none; the agent sees whether there is a wall on its left and on its right,
    neither its place nor the time. A cell pays 1 when it is visited first, and the one that completes the map 3.

    The optimum is 8. The other 6 cells pay 5 x 1 + 3 = 8 in all, and it takes 3 steps to one end and then 6 to the
    other, just the 9 that there are. So it takes memory, since in the middle the way back looks like the way there,
    and no step may be lost. Whoever visits but one arm gets 3.

    The end of the time is the end of the task, a terminal. Each agent's first episode begins at a time of its own, so
    that they are out of step, and does not count.
    """

    ARM = 3
    LENGTH = 3 * ARM
    optimum = 8.0
    features = 2
    actions_of_an_agent = 2

    def __init__(self, num_agents: int, buf: Any = None) -> None:
        self._position = np.zeros(num_agents, dtype=np.intp)
        self._time = np.zeros(num_agents, dtype=np.intp)
        self._visited = np.zeros((num_agents, 2 * self.ARM + 1), dtype=bool)
        super().__init__(num_agents, buf)

    @override
    def reset(self, seed: int | None = None) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
        super().reset(seed)
        self._time[:] = np.arange(self.num_agents) % self.LENGTH
        self._whole[:] = self._time == 0
        return self.observations, []

    @override
    def _begin(self, agents: Indices) -> None:
        self._position[agents] = self.ARM
        self._time[agents] = 0
        self._visited[agents] = False
        self._visited[agents, self.ARM] = True
        self._look(agents)

    @override
    def _play(self, agents: Indices, actions: NDArray[np.integer]) -> None:
        position = np.clip(self._position[agents] + 2 * actions - 1, 0, 2 * self.ARM)
        self._position[agents] = position
        new = ~self._visited[agents, position]
        self._visited[agents, position] = True
        self.rewards[agents] = new * np.where(self._visited[agents].all(axis=1), 3, 1)
        self._time[agents] += 1
        self.terminals[agents] = self._time[agents] == self.LENGTH
        self._look(agents)

    def _look(self, agents: Indices) -> None:
        self.observations[agents, 0] = self._position[agents] == 0
        self.observations[agents, 1] = self._position[agents] == 2 * self.ARM


class SmallNetwork(nn.Module):
    """A linear layer, an LSTM and two heads, by the protocol of scout.models.RecurrentPolicy.

    Its observations are flags, uint8 [B, F], or [B, S, F] for S steps.
    """

    def __init__(self, task: KnownTask, hidden_size: int = 32) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.encoder = orthogonal(nn.Linear(task.features, hidden_size), 2**0.5)
        self.memory = RecurrentLayer("lstm", hidden_size, hidden_size)
        self.heads = Heads(hidden_size, task.actions_of_an_agent)

    @override
    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        steps = observations if observations.dim() == 3 else observations.unsqueeze(1)
        return self.heads(self.memory(torch.relu(self.encoder(steps.float())), state))

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(observations, state)
