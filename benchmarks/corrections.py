"""`trainer=ppo` with one of its corrections taken back: `python benchmarks/corrections.py NAME [key=value ...]`.

Else it is train.py. These are the corrections that no key takes back; learning.py trains with each, and compares.
"""

import sys
from pathlib import Path
from typing import Any, override
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import pad

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for train.py

from scout import build, ppo
from scout.advantages import Timeline, generalized_advantages
from scout.config import TrainerConfig
from scout.ppo import PPO
from scout.trainer import STATE, StockTrainer


class LastStepLost(PPO):
    """A segment's last step has advantage 0, and nothing of what follows upon it flows back."""

    @override
    def _advantages(self, rewards: Tensor) -> Tensor:
        assert self.segments == self.total_agents  # so that a timeline is one segment

        def cut(timeline: Timeline, ratio: Tensor, config: TrainerConfig) -> Tensor:
            inside = Timeline(*(part[:, :-1] for part in timeline))
            return pad(generalized_advantages(inside, ratio[:, :-1], config), (0, 1))

        with patch.object(ppo, "generalized_advantages", cut):
            return super()._advantages(rewards)


class CutsUnknown(PPO):
    """An episode that was cut short goes on, for its advantages, in the one after it."""

    @override
    def _advantages(self, rewards: Tensor) -> Tensor:
        kept, self.truncations = self.truncations, torch.zeros_like(self.truncations)
        try:
            return super()._advantages(rewards)
        finally:
            self.truncations = kept


class TrainedFromZero(PPO):
    """Training begins every segment with a recurrent state of zero, whatever it was played with."""

    @override
    def _replay(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        for state in self.initial_states.values():
            state.zero_()
        return super()._replay(rows)


class MemoryAcrossEpisodes(PPO):
    """The recurrent state goes on from an episode into the next, in playing and in training."""

    @override
    def _act(self, step: int) -> None:
        self._went_on: dict[str, Tensor] = {}
        super()._act(step)
        self.lstm_h[self._acted], self.lstm_c[self._acted] = (self._went_on[key] for key in STATE)

    @override
    def _state(self, first_agent: int) -> dict[str, Tensor]:
        self._acted = first_agent
        return super()._state(first_agent)

    @override
    def _forward(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits, values, self._went_on = super()._forward(tokens, state)
        return logits, values, self._went_on

    @override
    def _replay(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        state: Any = {key: self.initial_states[key][rows] for key in STATE}
        with self._autocast():
            logits, values = self.policy(self.observations[rows], state)
        return logits.float(), values.float().view(len(rows), -1)


class FinalStepsTrainedOn(PPO):
    """The actions chosen at episodes' final observations, which are never played, are trained on."""

    @property
    @override
    def counted(self) -> Tensor:
        return ~self.excursion


TAKEN_BACK: dict[str, type[StockTrainer]] = {
    "last_step": LastStepLost,
    "cut_episodes": CutsUnknown,
    "initial_states": TrainedFromZero,
    "episode_ends": MemoryAcrossEpisodes,
    "final_steps": FinalStepsTrainedOn,
}


def main() -> None:
    """Trains as train.py does."""
    if len(sys.argv) < 2 or sys.argv[1] not in TAKEN_BACK:
        sys.exit(f"usage: python benchmarks/corrections.py {{{','.join(TAKEN_BACK)}}} [key=value ...]")
    if "trainer=pufferl" in sys.argv:
        sys.exit("trainer=pufferl has no corrections to take back: leave it out")
    name = sys.argv.pop(1)
    build.TRAINERS["ppo"] = TAKEN_BACK[name]
    sys.argv.append(f"wandb.tags=[{name}]")  # nothing else in the run's config tells

    import train
    from scout import cli
    from scout.config import Experiment

    cli.run(train.main, Experiment)


if __name__ == "__main__":
    main()
