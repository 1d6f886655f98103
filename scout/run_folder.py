"""The run folder: the record of truth of one run, complete in itself.

config.yaml     the resolved experiment          metrics.jsonl   one object per update
versions.json   packages, git state, command     status.json     running, finished, failed or interrupted, and why
train.log       the log, with any traceback      checkpoints/    UPDATE.pt
wandb/          W&B's own files
"""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import yaml

from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import CONFIG, METRICS, RETURN, STATUS, TORCHRUN, VERSIONS
from scout.naming import NONE_BY_DEFAULT, WITHOUT_EFFECT, is_in
from scout.objective import objective_in
from scout.tracking import new_id
from scout.validation import flat, validate

log = logging.getLogger(__name__)

PACKAGES = ("cogames", "mettagrid", "pufferlib-core", "torch", "numpy", "hydra-core", "wandb", "pydantic")


class RunFolder:
    """Writes the files of one run. Each write is complete on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """A new run's folder.

        Raises ScoutError when it holds a run already or cannot be written; nothing in it is changed.
        """
        self.path = path
        self._metrics: BinaryIO | None = None
        self._status: dict[str, Any] = {"state": "running", "started": _now(), "wandb_id": new_id()}
        if (path / STATUS).exists():
            raise ScoutError(
                f"{path} already holds a run: choose another folder with hydra.run.dir=DIR, "
                "or go on with that run with resume=DIR"
            )
        with self._writing():
            path.mkdir(parents=True, exist_ok=True)
            self._write(VERSIONS, json.dumps(versions(), indent=2))

    @classmethod
    def of(cls, path: Path) -> Self:
        """The folder of a run that is to go on.

        Raises ScoutError when a process is training it, or when it cannot be written.
        """
        folder = cls.__new__(cls)
        folder.path, folder._metrics = path, None
        with folder._writing():
            folder._status = {"started": _now(), "wandb_id": new_id(), **object_in(path / STATUS)}
            folder._open_metrics()
        before, now = object_in(path / VERSIONS).get("packages", {}), versions()["packages"]
        changed = [f"{name} {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
        if changed:
            log.warning("Other packages than before (%s): the numbers may differ", ", ".join(changed))
        return folder

    @property
    def wandb_id(self) -> str:
        """The id of the run in W&B, where it goes on under when it is resumed."""
        return self._status["wandb_id"]

    def start(self, experiment: Experiment, agent: str | None = None) -> None:
        """Begins the record: from now on the folder holds a run. Raises ScoutError when it cannot be written.

        `agent` is the torchrun that started it.
        """
        with self._writing():
            self._write(CONFIG, yaml.safe_dump(experiment.model_dump(), sort_keys=False))
            self._open_metrics()
            self._write_status(state="running", process=os.getpid(), **({TORCHRUN: agent} if agent else {}))

    def go_on(self, experiment: Experiment, update: int, changes: list[str]) -> None:
        """Goes on after an update: what was recorded beyond it is dropped, since it will be made again.

        Raises ScoutError when the folder cannot be written.
        """
        assert self._metrics is not None
        last = 0
        with self._writing():
            kept = 0
            for line in self._lines():
                try:
                    number = json.loads(line)["update"]
                except (ValueError, KeyError, TypeError):  # the process was killed in the middle of this line
                    break
                if number > update or not line.endswith(b"\n"):
                    break
                kept, last = kept + len(line), number
            self._metrics.truncate(kept)
            self._write(CONFIG, yaml.safe_dump(experiment.model_dump(), sort_keys=False))
            for outdated in ("reason", "ended"):
                self._status.pop(outdated, None)
            resumed = {"at": _now(), "update": update, "changes": changes}
            self._write_status(
                state="running", process=os.getpid(), resumed=[*self._status.get("resumed", []), resumed]
            )
        if last != update:
            log.warning("%s lacks updates before %d: they were lost", self.path / METRICS, update)

    def log(self, metrics: dict[str, float]) -> None:
        """Appends one update's metrics as a line of JSON; what is not finite becomes null."""
        line = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        assert self._metrics is not None, "start() comes first"
        with self._writing(METRICS):
            self._metrics.write(json.dumps(line).encode() + b"\n")
            self._metrics.flush()
            if os.fstat(self._metrics.fileno()).st_nlink == 0:  # what is written goes nowhere
                raise FileNotFoundError(errno.ENOENT, "the folder was removed while the run was writing to it")

    def returns(self) -> list[float]:
        """Mean return per agent of the whole episodes that ended in an update, of each in which some did."""
        found = [json.loads(line)[RETURN] for line in self._lines() if f'"{RETURN}"'.encode() in line]
        return [value for value in found if value is not None]

    def objective(self, metric: str) -> float | None:
        """The last value of a metric; None where it has none."""
        found = objective_in(self._lines(), metric)
        return None if found is None else found.value

    def in_last_update(self, key: str) -> float | None:
        """The value of a metric in the last update; None where it was not logged there."""
        lines = self._lines()
        return json.loads(lines[-1]).get(key) if lines else None

    def sync(self) -> None:
        """Puts the metrics on the disk, so that no checkpoint is ever ahead of them."""
        assert self._metrics is not None
        with self._writing(METRICS):
            os.fsync(self._metrics.fileno())

    def close_finished(self, agent_steps: int) -> None:
        """Closes the record of a run that was killed between its last checkpoint and its end; one that ended stays."""
        if self._status.get("state") != "finished":
            self.finish("finished", agent_steps=agent_steps)

    def finish(self, state: str, reason: str | None = None, **facts: Any) -> None:
        """Closes the record, if it was begun: state is finished, failed or interrupted."""
        if self._metrics is None:
            return
        try:
            self._write_status(state=state, ended=_now(), **({"reason": reason} if reason else {}), **facts)
            self._metrics.close()
        except OSError as error:  # often why the run failed, which matters more
            log.error("%s", _unwritable(self.path / STATUS, error))

    def _open_metrics(self) -> None:
        """Opens the metrics, and locks them for as long as this process lives; one that is killed holds no lock.

        Whoever in this process opens and closes the file a second time gives the lock away: `_lines` reads them.
        """
        self._metrics = (self.path / METRICS).open("a+b")
        if not take_lock(self._metrics, self.path):
            raise ScoutError(
                f"{self.path} is being trained by process {self._status.get('process')}: wait for it, or end it first"
            )

    def _lines(self) -> list[bytes]:
        """What the metrics hold, with line ends."""
        assert self._metrics is not None
        self._metrics.seek(0)
        return self._metrics.read().splitlines(keepends=True)

    def _write_status(self, **facts: Any) -> None:
        self._status |= facts
        self._write(STATUS, json.dumps(self._status, indent=2))

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f"{name}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / name)
        sync_folder(self.path)

    @contextlib.contextmanager
    def _writing(self, name: str = "") -> Iterator[None]:
        """Turns what the system refuses into a ScoutError that says what to do."""
        try:
            yield
        except OSError as error:
            raise _unwritable(self.path / name, error) from error


def load_experiment(run_dir: Path) -> Experiment:
    """The experiment of a run folder. Raises ScoutError when its config is missing or does not fit this version.

    A key that it lacks would take a default that the run was not trained with, so that does not fit either, unless the
    key has no effect on what is learned, or the run is from before its whole group, which then has no effect.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise ScoutError(f"{run_dir} has no {CONFIG}, so it is not a run folder: expected what train.py left behind")
    try:
        values = yaml.safe_load(path.read_text())
        experiment = validate(Experiment, values)
        lacking = sorted(flat(experiment.model_dump()).keys() - flat(values).keys())
        fine = (*WITHOUT_EFFECT, *(group for group in NONE_BY_DEFAULT if group not in values))
        lacking = [key for key in lacking if key == "seed" or not is_in(key, fine)]
        if lacking:
            raise ScoutError(f"{', '.join(lacking)}: missing; add what the run was trained with")
        return experiment
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ScoutError) as error:
        raise ScoutError(f"{path} is not a config of this version:\n{error}") from error


def take_lock(file: IO[Any], folder: Path) -> bool:
    """Locks an open file of a folder until it is closed; false where another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:  # a network's file system without locks
        log.warning("%s cannot be locked (%s): see that no two processes use it", folder, error.strerror)
    return True


def is_running(path: Path) -> bool:
    """Whether a process, other than this one, is training the run of a folder."""
    try:
        with (path / METRICS).open("r+b") as metrics:
            fcntl.lockf(metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder outlast a power failure, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def object_in(path: Path, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
    """The object that a file holds; {} where there is none, or a damaged one."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _unwritable(path: Path, error: OSError) -> ScoutError:
    return ScoutError(f"{path} cannot be written ({error.strerror}): choose another folder with hydra.run.dir=DIR")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, Any]:
    """What a reader needs to run the same again: command, packages, git commit and changed files."""
    return {
        "command": [sys.argv[0], *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
        "git": {
            "commit": _git("rev-parse", "HEAD"),
            "changed_files": (_git("status", "--porcelain") or "").splitlines(),
        },
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _git(*arguments: str) -> str | None:
    """What git says of this project's own checkout; None without git or outside of a checkout."""
    try:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.rstrip()
    except (OSError, subprocess.SubprocessError):
        return None
