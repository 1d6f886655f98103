"""The jobs of a sweep through one of Hydra's launchers, until none runs any more, or all have ended in order.

What became of a job is read from its run folder, whatever the launcher says of it.
"""

import importlib.util
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scout import signals
from scout.errors import ScoutError
from scout.files import ENDED, STATUS, STOPPING
from scout.run_folder import is_running, object_in
from scout.sweep_folder import SweepFolder

log = logging.getLogger(__name__)

LAUNCHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "joblib": ("joblib", ()),
    "submitit_local": ("slurm", ()),
    "submitit_slurm": ("slurm", ("sbatch", "srun")),
}
"""The extra that each launcher comes with, and the commands that it calls."""


def launch(
    folder: SweepFolder, names: Sequence[str], config: DictConfig, context: HydraContext, task: TaskFunction
) -> None:
    """Runs the jobs of these names that are not done yet.

    joblib ends all its processes when one of them dies: then those jobs are tried once more that have not come to an
    end of their own.
    """
    waiting = [name for name in names if folder.state(name) not in ENDED]
    if len(waiting) < len(names):
        log.info("Done already: %s", ", ".join(name for name in names if name not in waiting))
    chosen = str(config.hydra.runtime.choices["hydra/launcher"])
    signals.sweeps_here = True
    for _ in range(2):
        if not waiting:
            return
        config, at_once = config.copy(), None
        if chosen == "joblib":  # which gives each job its part of the cores
            at_once = config.hydra.launcher.n_jobs
            at_once = config.hydra.launcher.n_jobs = min(at_once if at_once > 0 else os.cpu_count() or 1, len(waiting))
        launcher = Plugins.instance().instantiate_launcher(context, task, config)
        jobs = [[*folder.jobs[name], f"hydra.sweep.subdir={name}"] for name in waiting]
        elsewhere = chosen in ("joblib", "submitit_local") and at_once != 1
        with _patience(folder, waiting, chosen) if elsewhere else nullcontext(), _every_job_awaited(chosen):
            try:
                launcher.launch(jobs, initial_job_idx=int(waiting[0]))
                return
            except Exception as error:
                if not (folder.path / STOPPING).exists():
                    log.error("%s", str(error).strip().splitlines()[0] if str(error) else type(error).__name__)
        waiting = [name for name in waiting if folder.state(name) in (None, "running") and chosen == "joblib"]


@contextmanager
def _every_job_awaited(launcher: str) -> Iterator[None]:
    """Lets a launcher of submitit wait for all its jobs, where it would stop at the first that was lost."""
    if not launcher.startswith("submitit"):
        yield
        return
    import submitit

    job_class: Any = submitit.Job
    results: Callable[..., Any] = job_class.results

    def awaited(job: Any) -> list[Any]:
        try:
            return results(job)
        except Exception as error:  # submitit's own, of a job without a result
            log.error("%s", str(error).strip().splitlines()[0])
            return [None]

    job_class.results = awaited
    try:
        yield
    finally:
        job_class.results = results


@contextmanager
def _patience(folder: SweepFolder, names: Sequence[str], launcher: str) -> Iterator[None]:
    """Lets the processes in which jobs run end in order before a first SIGINT or SIGTERM ends the sweep.

    A terminal sends its Ctrl-C to them too; joblib would kill them at once. Jobs in this process act on signals
    themselves, and those of SLURM go on without the sweep.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        (folder.path / STOPPING).touch()  # no other job begins
        # A job that has had SIGINT from the terminal is none the worse for a SIGTERM, which submitit's jobs pass over.
        local = launcher == "submitit_local"
        for name in names if number == signal.SIGTERM or not local else ():
            process = object_in(folder.path / name / STATUS).get("process")
            if process is not None and is_running(folder.path / name):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT if local else signal.SIGTERM)
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
