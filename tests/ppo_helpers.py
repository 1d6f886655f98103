"""A small PPO trainer on real environments, with everything that they send kept beside it."""

from typing import Any

import numpy as np
from conftest import tiny_experiment

from scout.build import build
from scout.config import Experiment
from scout.mission import make_game
from scout.ppo import PPO
from scout.trainer import StockTrainer


class Recorder:
    """Stands between trainer and environments, and keeps a copy of everything that arrives."""

    def __init__(self, vecenv: Any) -> None:
        object.__setattr__(self, "vecenv", vecenv)
        object.__setattr__(self, "arrived", [])

    def recv(self) -> Any:
        batch = self.vecenv.recv()
        observation, reward, terminal, truncation, _, _, agents, _ = batch
        self.arrived.append([np.array(part) for part in (observation, reward, terminal, truncation, agents)])
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vecenv, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.vecenv, name, value)


VECENVS = {
    "serial": {"name": "serial", "num_envs": 4},
    "two_workers": {"name": "multiprocessing", "num_envs": 4, "num_workers": 2},
    "two_workers_in_turn": {"name": "multiprocessing", "num_envs": 4, "num_workers": 2, "batch_size": 2},
}


def trainer_of(experiment: Experiment) -> StockTrainer:
    """The trainer of an experiment, with its environments and its network."""
    return build(experiment, make_game(experiment.mission), "cpu")


def recorded_ppo(**changes: Any) -> tuple[PPO, Recorder, Experiment]:
    experiment = tiny_experiment(**changes)
    trainer = trainer_of(experiment)
    assert isinstance(trainer, PPO)
    recorder = Recorder(trainer.vecenv)
    trainer.vecenv = recorder
    return trainer, recorder, experiment
