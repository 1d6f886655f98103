"""Sweeps: several runs of one command, through one of Hydra's launchers, in one folder, with a summary at the end.

What became of a job is read from its run folder alone, so it does not matter in which process, on which machine or in
which call of the command it ran.
"""

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from scout import cli
from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import ENDED, SWEEP
from scout.launching import check_launcher, launch
from scout.ranks import Ranks
from scout.sweep_folder import SweepFolder, open_sweep

log = logging.getLogger(__name__)


class Sweep:
    """One call of a command that makes several runs."""

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Raises ScoutError when the launcher's extra or its commands are missing, and under torchrun."""
        if Ranks.from_environment().size > 1:
            raise ScoutError("A sweep makes runs of one process each, so torchrun is not for it: leave out one of both")
        check_launcher(str(config.hydra.runtime.choices["hydra/launcher"]))
        self.config = config
        self._loader, self._context, self._task = hydra_context.config_loader, hydra_context, task_function

    def overrides(self, params: Mapping[str, object], arguments: Sequence[str]) -> list[Override]:
        """The sweep's own overrides and the command line's, which replace those of the same key."""
        parser = OverridesParser.create(config_loader=self._loader)
        given = {override.key_or_group for override in parser.parse_overrides(list(arguments))}
        own = [f"{key}={value}" for key, value in params.items() if key not in given]
        return parser.parse_overrides([*own, *arguments])

    def experiment(self, overrides: Sequence[str]) -> Experiment:
        """What a job would train. Raises ScoutError or Hydra's own errors for what is wrong with it."""
        cfg = self._loader.load_sweep_config(self.config, list(overrides))
        with open_dict(cfg):
            del cfg["hydra"]
        experiment = cli.load(Experiment, cfg)
        if experiment.resume is not None:
            raise ScoutError(
                f"resume={experiment.resume} is not for a sweep, which goes on by itself when it is called again with "
                "its name: sweep.name=NAME"
            )
        return experiment

    def grid(self, params: Mapping[str, object], arguments: Sequence[str]) -> None:
        """Runs all combinations, but for those that the sweep's folder has finished already.

        Raises ScoutError when a job is wrong, before the first has begun, and when some failed, after the last.
        """
        overrides = self.overrides(params, arguments)
        endless = [one.input_line for one in overrides if one.is_sweep_override() and not one.is_discrete_sweep()]
        if endless:
            raise ScoutError(f"{endless[0]} has no end of values: list some, or search it with sweep=optuna")
        jobs = BasicSweeper.split_arguments(overrides, None)[0]
        wanted = [(self.experiment(job), job) for job in jobs]
        with self.open() as folder, self.recorded(folder):
            names = folder.place(wanted)
            self.launch(folder, names)
            failed = [name for name in names if folder.state(name) not in ENDED]
        if failed:
            raise ScoutError(
                f"{len(failed)} of {len(names)} jobs did not finish: {', '.join(failed)} in {folder.path}. "
                f"Once the reason is mended, the same command with sweep.name={folder.path.name} does them alone"
            )

    def open(self) -> AbstractContextManager[SweepFolder]:
        """The sweep's folder, for this process alone."""
        return open_sweep(Path(str(self.config.hydra.sweep.dir)))

    @contextmanager
    def recorded(self, folder: SweepFolder) -> Iterator[None]:
        """What is swept is written down before; when all is done, or when it is interrupted, what came of it."""
        OmegaConf.save(self.config, folder.path / SWEEP)
        try:
            yield
        finally:
            from scout.report.summary import summarize  # it draws, which takes seconds to import

            minimize = self.config.hydra.sweeper.get("direction") == "minimize"
            try:
                summarize(folder, str(self.config.sweep.objective), minimize, shlex.join(["python", *sys.argv]))
            except Exception as error:  # the runs themselves are complete
                log.warning("No summary of %s (%s: %s)", folder.path, type(error).__name__, error)

    def launch(self, folder: SweepFolder, names: Sequence[str]) -> None:
        """Runs the jobs of these names that are not done yet, and returns when none of them runs any more."""
        launch(folder, names, self.config, self._context, self._task)
