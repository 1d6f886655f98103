"""What is done beside training, by the first rank alone: keeping the record of a run, judging it and showing it."""

import logging
from collections.abc import Callable
from typing import Any, Self

from scout.checkpoint import load_weights, save_checkpoint
from scout.config import Experiment
from scout.held_out import HeldOut
from scout.progress import TrainingProgress
from scout.run_folder import RunFolder
from scout.tracking import Tracker
from scout.trainer import StockTrainer

log = logging.getLogger(__name__)


class Pruned(Exception):
    """The run's sweep gave it up."""


Hopeless = Callable[[int, float], bool]
"""Whether to give a run up after an evaluation, of that number (from 1), by the objective so far."""


class Scribe:
    """Writes what a run comes to, after each update. A context manager, within which the progress is shown."""

    def __init__(
        self,
        experiment: Experiment,
        trainer: StockTrainer,
        folder: RunFolder,
        tracker: Tracker,
        hopeless: Hopeless | None,
    ) -> None:
        self._folder, self._tracker, self._hopeless = folder, tracker, hopeless
        self._keep, self._films = experiment.checkpoint.keep, experiment.evaluation.film
        self._every, self._total = experiment.evaluation.every, experiment.total_timesteps
        self._objective = experiment.sweep.objective
        self._held_out = HeldOut(trainer, trainer.games, folder)
        self._progress = TrainingProgress(
            experiment.total_timesteps, experiment.log_interval, begun_at=trainer.global_step
        )

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def give_up_if_hopeless(self, metrics: dict[str, float]) -> None:
        """After an evaluation that was not the last: raises Pruned when the run's sweep takes it for hopeless."""
        steps = metrics["agent_steps"]
        if self._hopeless is None or self._every is None or steps >= self._total:
            return
        number, value = int(steps // self._every), self._folder.objective(self._objective)
        if value is not None and self._hopeless(number, value):
            raise Pruned(f"at evaluation {number} {self._objective} was {value:.2f}: hopeless by its sweep's measure")

    def log(self, metrics: dict[str, float], judge: bool) -> None:
        """Records one update, with an evaluation on held-out maps where one is due."""
        if judge:
            metrics = metrics | self._held_out.judge()
        self._folder.log(metrics)
        self._tracker.log(metrics)
        self._progress.show(metrics)

    def save(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint, after the metrics that it must not be ahead of."""
        self._folder.sync()
        save_checkpoint(self._folder.path, state, state["update"], self._keep)

    def keep_best(self) -> None:
        """Stores the network if the last evaluation was its best: after the update's own checkpoint."""
        self._held_out.keep_best()

    def close(self) -> None:
        """At the end of the run: sends its best checkpoint to W&B, and films an episode."""
        self._tracker.log_checkpoint(load_weights(str(self._folder.path)).path)
        if not self._films:
            return
        log.info("Filming an episode")
        film = self._held_out.film()
        if film is not None:
            self._tracker.log_film(film)
