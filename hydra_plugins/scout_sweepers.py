"""Hydra's plugins of this project: the two sweepers. Hydra finds them by the name of this folder."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scout.sweeps import Sweep


class GridSweeper(Sweeper):
    """All combinations of the values that are given, as Hydra's own sweeper; a sweep that was begun is finished."""

    def __init__(self, params: DictConfig) -> None:
        self._params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._sweep = Sweep(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        self._sweep.grid(self._params, arguments)


class OptunaSweeper(Sweeper):
    """Trials that an Optuna study proposes, one after another or `n_jobs` at a time."""

    def __init__(self, params: DictConfig, **settings: Any) -> None:
        self._params, self._settings = params, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._sweep = Sweep(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        from scout.search import search

        search(self._sweep, self._params, arguments, **self._settings)
