"""Python processes that have what a leaderboard's server has: neither this project nor what training alone needs."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires
from pathlib import Path
from types import TracebackType
from typing import Self

from scout.errors import ScoutError

SERVER = ("cogames", "mettagrid")
"""Packages that a leaderboard's server has, with all that they require."""
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)  # no variable for somebody's network
ON_SERVER = Path(__file__).resolve().parent / "on_server"


class Alone:
    """`python arguments...` in a folder. No process that it started is left after `with`."""

    def __init__(self, arguments: Sequence[str], folder: Path, log_path: Path, failure: str) -> None:
        """What it says goes to the end of `log_path`, and its failure is told in words that begin with `failure`."""
        self._failure, self._log_path = failure, log_path
        self._said = log_path.open("a+", encoding="utf-8", errors="backslashreplace")
        self._before = self._said.tell()
        # Of the folders in PYTHONPATH, one of which may be this project's, those that have what a server has are kept.
        paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        paths = [path for path in paths if any((Path(path) / name).is_dir() for name in SERVER)]
        variables = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
        variables |= {
            "PYTHONPATH": os.pathsep.join([str(ON_SERVER), *paths]),
            "SCOUT_HIDDEN": ",".join(hidden_packages()),
            "TMPDIR": str(folder),
            "COLUMNS": "1000",  # else what cogames prints is broken into short lines
            # cogames would make a virtual environment for each agent, from the network. For a .venv within a checkout
            # it even installs that checkout into each, and the project would be there after all.
            "EPISODE_RUNNER_USE_ISOLATED_VENVS": os.environ.get("EPISODE_RUNNER_USE_ISOLATED_VENVS", "0"),
        }
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )

    def line(self, patience: float) -> str:
        """The next line that it prints. Raises ScoutError where there is none for so many seconds, or no more."""
        assert self._process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(patience, lambda: (late.set(), self._kill()))
        timer.start()
        try:
            found = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            raise ScoutError(f"{self._failure}: nothing came for {patience:.0f} s. What it said: {self._log_path}")
        if not found:
            raise self._failed(self._process.wait())
        return found

    def finish(self, patience: float) -> None:
        """Waits for its end, and writes what it still prints to the log. Raises ScoutError where it failed."""
        try:
            rest, _ = self._process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise ScoutError(
                f"{self._failure}: it had not ended after {patience:.0f} s. What it said: {self._log_path}"
            ) from None
        self._said.write(rest)
        self._said.flush()
        if self._process.returncode != 0:
            raise self._failed(self._process.returncode)

    def _failed(self, code: int) -> ScoutError:
        self._said.seek(self._before)
        return ScoutError(f"{self._failure}: {_reason(self._said.read(), code)}\nAll that it said: {self._log_path}")

    def _kill(self) -> None:
        """Ends the process and all that it started, which are a group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()


@cache
def hidden_packages() -> list[str]:
    """The top-level packages that are installed here, and that a server need not have."""
    required, waiting = set(), [*SERVER]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in required:
            required.add(name)
            with contextlib.suppress(PackageNotFoundError):  # of another system
                waiting += [re.split(r"[^\w.-]", line)[0] for line in requires(name) or [] if "extra ==" not in line]
    hidden = []
    for package, owners in packages_distributions().items():
        # What setuptools has in a folder of its own, for itself, is seen once that has been imported.
        own = [owner for owner in owners if "_vendor" not in Path(str(distribution(owner).locate_file(""))).parts]
        names = {re.sub(r"[-_.]+", "-", owner).lower() for owner in own}
        if names and not names & {*required, "scout"}:
            hidden.append(package)
    return sorted(hidden)


def _reason(text: str, code: int) -> str:
    """The error that a bundle's processes ended by: the last one that is not another one's consequence."""
    if code < 0:
        killed = signal.Signals(-code).name
        return f"it was ended by {killed}" + (", as a system does that has no more memory" if code == -9 else "")
    lines, errors, within = text.splitlines(), [], False
    for number, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last):"):
            within = True
        elif (within and line.strip() and not line.startswith(" ")) or re.match(r"\w+(Error|Exception|Exit):", line):
            more = lines[number + 1 : number + 2] if line.endswith(":") else []  # its text begins in the next line
            errors.append(" ".join(part.strip() for part in (line, *more)))
            within = False
    causes = [line for line in errors if not re.search(r"episode_subprocess failed|ConnectionClosed|PolicyStep", line)]
    last = text.strip().splitlines()[-1:] or [f"it left with {code} and said nothing"]
    return (causes or errors or last)[-1]
