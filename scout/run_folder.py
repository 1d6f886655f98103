"""The run folder: the record of truth of one run, complete in itself.

config.yaml     the resolved experiment          metrics.jsonl   one object per update
versions.json   packages, git state, command     status.json     running, finished, failed or interrupted, and why
train.log       the log, with any traceback      checkpoints/    UPDATE.pt
wandb/          W&B's own files
"""

import json
import logging
import math
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import yaml

from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import CONFIG, METRICS, STATUS, VERSIONS

log = logging.getLogger(__name__)

PACKAGES = ("cogames", "mettagrid", "pufferlib-core", "torch", "numpy", "hydra-core", "wandb", "pydantic")


class RunFolder:
    """Writes the files of one run. Each write is complete on disk when the call returns."""

    def __init__(self, path: Path) -> None:
        """Raises ScoutError when the folder holds a run already or cannot be written; nothing in it is changed."""
        self.path = path
        self._metrics: TextIO | None = None
        if (path / STATUS).exists():
            raise ScoutError(f"{path} already holds a run: choose another folder with hydra.run.dir=DIR")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._write(VERSIONS, json.dumps(versions(), indent=2))
        except OSError as error:
            raise _unwritable(path, error) from error

    def start(self, experiment: Experiment) -> None:
        """Begins the record: from now on the folder holds a run. Raises ScoutError when it cannot be written."""
        self._status = {"state": "running", "started": _now(), "process": os.getpid()}
        try:
            self._write(CONFIG, yaml.safe_dump(experiment.model_dump(), sort_keys=False))
            self._metrics = (self.path / METRICS).open("a", encoding="utf-8")
            self._write(STATUS, json.dumps(self._status, indent=2))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def log(self, metrics: dict[str, float]) -> None:
        """Appends one update's metrics as a line of JSON; what is not finite becomes null."""
        line = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        assert self._metrics is not None, "start() comes first"
        try:
            self._metrics.write(json.dumps(line) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise _unwritable(self.path / METRICS, error) from error

    def finish(self, state: str, reason: str | None = None, **facts: Any) -> None:
        """Closes the record, if it was begun: state is finished, failed or interrupted."""
        if self._metrics is None:
            return
        self._status |= {"state": state, "ended": _now(), **({"reason": reason} if reason else {}), **facts}
        try:
            self._metrics.close()
            self._write(STATUS, json.dumps(self._status, indent=2))
        except OSError as error:  # often why the run failed, which matters more
            log.error("%s", _unwritable(self.path / STATUS, error))

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f"{name}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.path / name)


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
