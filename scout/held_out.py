"""How good a run is while it trains: whole episodes on held-out maps, and the checkpoint that did best on them."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation

from scout.checkpoint import load_into, load_weights, read_checkpoint, save_whole
from scout.config import Experiment
from scout.environment import held_out_map_seed
from scout.errors import ScoutError
from scout.files import BEST, CHECKPOINTS, FILM, HELD_OUT
from scout.film import Film
from scout.models import fix_weights
from scout.policies import NetworkPolicy
from scout.rollout import Episode, play
from scout.run_folder import RunFolder
from scout.state import same_generators
from scout.statistics import bootstrap_interval
from scout.trainer import StockTrainer

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 8  # episodes
MEANS = ("cell_visited", "gear", "deaths", "cells_seen")


def is_due(experiment: Experiment, steps_before: int, steps: int) -> bool:
    """Whether the update between these agent steps crossed a multiple of `evaluation.every`, or is the last."""
    every = experiment.evaluation.every
    if every is None:
        return False
    return steps // every > steps_before // every or steps >= experiment.total_timesteps


class HeldOut:
    """Judges the network of one run every `evaluation.every` agent steps, and at its end, always on the same maps.

    Its actions are sampled, with the same noise each time. It changes nothing of the run: the random generators are
    put back. It has weights of its own in checkpoints/best.pt, those that did best so far.
    """

    def __init__(self, trainer: StockTrainer, games: Sequence[MettaGridConfig], folder: RunFolder) -> None:
        """`games` are those of the run's missions. A run that goes on does so from the best checkpoint in its folder.

        Where the run was killed after the checkpoint of an evaluation and before its best one, that is made up for.
        """
        self._trainer, self._games, self._folder = trainer, games, folder
        self._path = folder.path / CHECKPOINTS / BEST
        self._best = self._last = -np.inf
        if trainer.epoch == 0:
            return
        kept = self._kept()
        if kept is not None and kept["episodes"] == trainer.experiment.evaluation.episodes:
            self._best = kept["evaluation_return"]
        last = folder.in_last_update(HELD_OUT)
        self._last = -np.inf if last is None else last
        self.keep_best()

    def _kept(self) -> dict[str, Any] | None:
        """The best checkpoint so far; one that cannot be read, or is of an update still to come, is put aside."""
        if not self._path.is_file():
            return None
        try:
            kept = read_checkpoint(self._path)
            if kept["update"] <= self._trainer.epoch:
                return kept
            reason = f"is of update {kept['update']}, which the run will make again"
        except (ScoutError, KeyError) as error:
            reason = f"cannot be gone on from ({error})"
        aside = self._path.with_suffix(".old")
        self._path.replace(aside)
        log.warning("%s %s: it is now %s", self._path, reason, aside.name)
        return None

    def judge(self) -> dict[str, float]:
        """What is logged of one evaluation."""
        start = time.perf_counter()
        experiment = self._trainer.experiment
        with same_generators():
            played = [self._play(game, range(experiment.evaluation.episodes)) for game in self._games]
        episodes = [episode.record for of_mission in played for episode in of_mission]
        returns = np.array([[episode.record["return"] for episode in of_mission] for of_mission in played])
        each = list(returns.mean(axis=0))  # of several missions, the mean over them of each episode's number
        mean = self._last = float(np.mean(each))
        low, high = bootstrap_interval(each) or (mean, mean)
        names = [mission.name for mission in experiment.missions]
        return {
            HELD_OUT: mean,
            **({f"{HELD_OUT}/{n}": float(r.mean()) for n, r in zip(names, returns, strict=True)} if names[1:] else {}),
            "evaluation/interval_low": low,
            "evaluation/interval_high": high,
            "evaluation/best_return": max(self._best, mean),
            **{
                f"evaluation/{key}": float(np.mean([episode[key] for episode in episodes]))
                for key in MEANS
                if episodes[0][key] is not None
            },
            "performance/evaluation_seconds": time.perf_counter() - start,
        }

    def keep_best(self) -> None:
        """Stores the network if the last evaluation was its best: after the update's own checkpoint, and never before.

        Raises ScoutError when it cannot be written; the best one before it is then untouched.
        """
        if self._last <= self._best:
            return
        trainer = self._trainer
        contents = {
            "model": trainer.uncompiled_policy.state_dict(),
            "agent_steps": trainer.global_step,
            "update": trainer.epoch,
            "episodes": trainer.experiment.evaluation.episodes,
            "evaluation_return": self._last,
        }
        save_whole(self._path, contents)
        self._best = self._last

    def film(self) -> Path | None:
        """The best network's first episode, as the run folder's film; None, with a warning, where none can be made."""
        path = self._folder.path / FILM
        try:
            weights = load_weights(str(self._folder.path))
            load_into(self._trainer.uncompiled_policy, weights)
            with Film(path, overwrite=True, title=f"{weights.agent_steps:,} agent steps") as film:
                self._play(self._games[0], [0], film.show)
        except Exception as error:  # the run itself is complete
            log.warning("No film: %s", error)
            return None
        return path

    def _play(
        self, game: MettaGridConfig, episodes: Sequence[int], on_step: Callable[[Simulation], None] | None = None
    ) -> list[Episode]:
        trainer = self._trainer
        network, device = trainer.uncompiled_policy, trainer.experiment.device
        trains = network.training
        try:
            policy = NetworkPolicy("held out", network, trainer.config["device"], False, device.precision)
            waves = [episodes[first : first + SIDE_BY_SIDE] for first in range(0, len(episodes), SIDE_BY_SIDE)]
            return [one for wave in waves for one in play(policy, game, 0, wave, on_step, held_out_map_seed)]
        finally:
            fix_weights(network, fixed=False)
            network.train(trains)
