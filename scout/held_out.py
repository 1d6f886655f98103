"""How good a run is while it trains: whole episodes on held-out maps, and the checkpoint that did best on them."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation

from scout.checkpoint import load_into, load_weights, read_checkpoint, save_whole
from scout.environment import held_out_map_seed
from scout.errors import ScoutError
from scout.files import BEST, CHECKPOINTS, FILM
from scout.film import Film
from scout.models import fix_weights
from scout.policies import NetworkPolicy
from scout.rollout import Episode, play
from scout.state import same_generators
from scout.statistics import bootstrap_interval
from scout.trainer import StockTrainer

log = logging.getLogger(__name__)

MEANS = ("cell_visited", "gear", "deaths", "cells_seen")


class HeldOut:
    """Judges the network of one run every `evaluation.every` agent steps, and at its end, always on the same maps.

    Its actions are sampled, with the same noise each time. It changes nothing of the run: the random generators are
    put back. It has weights of its own in checkpoints/best.pt, those that did best so far.
    """

    def __init__(self, trainer: StockTrainer, game: MettaGridConfig, run_dir: Path) -> None:
        """Goes on from the best checkpoint that lies in the folder, unless it is of an update still to come."""
        self._trainer, self._game, self._run_dir = trainer, game, run_dir
        self._path = run_dir / CHECKPOINTS / BEST
        self._best = -np.inf
        if self._path.is_file():
            try:
                kept = read_checkpoint(self._path)
                if kept["update"] <= trainer.epoch:
                    self._best = kept["evaluation_return"]
                    return
            except (ScoutError, KeyError) as error:
                log.warning("%s is left behind: %s", self._path, error)
            self._path.unlink()

    def due(self, steps_before: int) -> bool:
        """Whether the update that began at this agent step crossed a multiple of `evaluation.every`, or is the last."""
        every, now = self._trainer.experiment.evaluation.every, self._trainer.global_step
        if every is None:
            return False
        return now // every > steps_before // every or now >= self._trainer.experiment.total_timesteps

    def judge(self) -> dict[str, float]:
        """What is logged of one evaluation. Raises ScoutError when the best checkpoint cannot be written."""
        start = time.perf_counter()
        with same_generators():
            episodes = [episode.record for episode in self._play(range(self._trainer.experiment.evaluation.episodes))]
        returns = [episode["return"] for episode in episodes]
        mean = float(np.mean(returns))
        low, high = bootstrap_interval(returns) or (mean, mean)
        if mean > self._best:
            self._best = mean
            trainer = self._trainer
            contents = {"model": trainer.uncompiled_policy.state_dict(), "agent_steps": trainer.global_step}
            save_whole(self._path, {**contents, "update": trainer.epoch, "evaluation_return": mean})
        return {
            "evaluation/return": mean,
            "evaluation/interval_low": low,
            "evaluation/interval_high": high,
            "evaluation/best_return": self._best,
            **{
                f"evaluation/{key}": float(np.mean([episode[key] for episode in episodes]))
                for key in MEANS
                if episodes[0][key] is not None
            },
            "performance/evaluation_seconds": time.perf_counter() - start,
        }

    def film(self) -> Path | None:
        """The best network's first episode, as the run folder's film; None, with a warning, where none can be made."""
        path = self._run_dir / FILM
        try:
            weights = load_weights(str(self._run_dir))
            load_into(self._trainer.uncompiled_policy, weights)
            with Film(path, overwrite=True, title=f"{weights.agent_steps:,} agent steps") as film:
                self._play([0], film.show)
        except (ScoutError, OSError) as error:
            log.warning("No film: %s", error)
            return None
        return path

    def _play(self, episodes: Sequence[int], on_step: Callable[[Simulation], None] | None = None) -> list[Episode]:
        trainer = self._trainer
        network, device = trainer.uncompiled_policy, trainer.experiment.device
        trains = network.training
        try:
            policy = NetworkPolicy("held out", network, trainer.config["device"], False, device.precision)
            return play(policy, self._game, 0, episodes, on_step, held_out_map_seed)
        finally:
            fix_weights(network, fixed=False)
            network.train(trains)
