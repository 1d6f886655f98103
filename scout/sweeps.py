"""Sweeps: several runs of one command, through one of Hydra's launchers, in one folder, with a summary at the end.

What became of a job is read from its run folder alone, so it does not matter in which process, on which machine or in
which call of the command it ran.
"""

import importlib.util
import logging
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from scout import cli
from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import ENDED, SWEEP
from scout.ranks import Ranks
from scout.run_folder import is_running
from scout.sweep_folder import SweepFolder, open_sweep

log = logging.getLogger(__name__)

LAUNCHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "joblib": ("joblib", ()),
    "submitit_local": ("slurm", ()),
    "submitit_slurm": ("slurm", ("sbatch", "srun")),
}
"""The extra that each launcher comes with, and the commands that it calls."""


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
        return cli.load(Experiment, cfg)

    def grid(self, params: Mapping[str, object], arguments: Sequence[str]) -> None:
        """Runs all combinations, but for those that the sweep's folder has finished already.

        Raises ScoutError when a job is wrong, before the first has begun, and when some failed, after the last.
        """
        jobs = BasicSweeper.split_arguments(self.overrides(params, arguments), None)[0]
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
            summarize(folder, str(self.config.sweep.objective), minimize, shlex.join(["python", *sys.argv]))

    def launch(self, folder: SweepFolder, names: Sequence[str]) -> None:
        """Runs the jobs of these names that are not done yet, and returns when none of them runs any more."""
        waiting = [name for name in names if folder.state(name) not in ENDED]
        if len(waiting) < len(names):
            log.info("Done already: %s", ", ".join(name for name in names if name not in waiting))
        if not waiting:
            return
        config = self.config.copy()
        if "n_jobs" in config.hydra.launcher:  # joblib then gives each job its part of the cores
            at_once = config.hydra.launcher.n_jobs
            config.hydra.launcher.n_jobs = min(at_once if at_once > 0 else os.cpu_count() or 1, len(waiting))
        launcher = Plugins.instance().instantiate_launcher(self._context, self._task, config)
        jobs = [[*folder.jobs[name], f"hydra.sweep.subdir={name}"] for name in waiting]
        with _patience(self.config.hydra.runtime.choices["hydra/launcher"]):
            try:
                launcher.launch(jobs, initial_job_idx=int(waiting[0]))
            except Exception as error:  # of a job whose process was killed; the others go on
                log.error("%s", str(error).strip().splitlines()[0] if str(error) else type(error).__name__)
                while any(is_running(folder.path / name) for name in waiting):
                    time.sleep(1)


@contextmanager
def _patience(launcher: str) -> Iterator[None]:
    """Lets the processes in which jobs run end in order before a first SIGINT or SIGTERM ends the sweep.

    A terminal sends its Ctrl-C to them too. joblib would kill them at once. Jobs in this process act on signals
    themselves, and those of SLURM go on without the sweep.
    """
    if launcher in ("basic", "submitit_slurm"):
        yield
        return
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        for process in psutil.Process().children():  # W&B's are further down, and needed to the end
            with suppress(psutil.NoSuchProcess):
                process.terminate()  # who has had SIGINT from the terminal is none the worse for it
        name = signal.Signals(number).name
        log.info("%s: the jobs end, with a checkpoint each; a second one kills them", name)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            sys.exit(128 + received[0])


def check_launcher(name: str) -> None:
    """Raises ScoutError when the extra that a launcher comes with, or a command that it calls, is missing."""
    extra, commands = LAUNCHERS.get(name, ("", ()))
    if extra and importlib.util.find_spec(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher") is None:
        raise ScoutError(missing_extra(f"hydra/launcher={name}", extra))
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        raise ScoutError(
            f"hydra/launcher={name} calls {', '.join(commands)}, and there is no {', '.join(missing)} on this machine: "
            "run it where jobs are submitted to SLURM, or take hydra/launcher=joblib or submitit_local"
        )


def missing_extra(what: str, extra: str) -> str:
    """The message for something whose packages are not installed."""
    return f"{what} needs the extra {extra}: `pip install -e '.[{extra}]'`, or `make setup`, which installs all extras"
