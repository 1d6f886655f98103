"""A sweep's folder under multirun/: which run folder in it belongs to which job."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import yaml

from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import CONFIG, JOBS, STATUS, STOPPING, SWEEP_LOCK
from scout.resume import is_same
from scout.run_folder import object_in, take_lock
from scout.validation import flat


@dataclass
class SweepFolder:
    """The jobs that a sweep has had so far: the name of each one's folder and its overrides."""

    path: Path
    jobs: dict[str, list[str]] = field(default_factory=dict)

    def place(self, wanted: Sequence[tuple[Experiment, list[str]]]) -> list[str]:
        """The folder of each job that is wanted: that of a run with the same config, else a new one.

        A job that failed before its run began has the folder with the same overrides.
        """
        stored = {name: flat(object_in(self.path / name / CONFIG, yaml.safe_load)) for name in self._numbers()}
        names = []
        for experiment, overrides in wanted:
            fits = [name for name, config in stored.items() if config and is_same(experiment, config)]
            fits += [name for name, had in self.jobs.items() if _same(had, overrides) and not stored.get(name)]
            free = [name for name in fits if name not in names]
            names.append(free[0] if free else str(max([-1, *map(int, [*stored, *self.jobs, *names])]) + 1))
            self.jobs[names[-1]] = list(overrides)
        self.store()
        return names

    def state(self, name: str) -> str | None:
        """State of a job's run; None when it has not begun, or failed before that."""
        return object_in(self.path / name / STATUS).get("state")

    def note_error(self, name: str, message: str) -> None:
        """Writes why a job cannot begin into its log."""
        (self.path / name).mkdir(exist_ok=True)
        with (self.path / name / "train.log").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S,000} ERROR {message}\n")

    def store(self) -> None:
        """Writes down which jobs there are, for those who read the folder."""
        temporary = self.path / f"{JOBS}.tmp"
        temporary.write_text(json.dumps(self.jobs, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.path / JOBS)

    def _numbers(self) -> list[str]:
        return sorted((path.name for path in self.path.iterdir() if path.name.isdigit()), key=int)


def _same(had: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether two lists of overrides make the same job: its sweep's name, and their order, do not matter."""
    first, second = ({one for one in each if not one.startswith("sweep.")} for each in (had, overrides))
    return first == second


@contextmanager
def open_sweep(path: Path) -> Iterator[SweepFolder]:
    """The folder of a sweep, new or to go on with, for this process alone.

    Raises ScoutError when it cannot be written, or when another process is running the sweep.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / SWEEP_LOCK).open("a")
    except OSError as error:
        raise ScoutError(
            f"{path} cannot be written ({error.strerror}): choose another with hydra.sweep.dir=DIR"
        ) from error
    with lock:
        if not take_lock(lock, path):
            raise ScoutError(
                f"{path} belongs to a sweep that is running: wait for it, or choose another with sweep.name=NAME"
            )
        (path / STOPPING).unlink(missing_ok=True)
        yield SweepFolder(path, object_in(path / JOBS))
