"""Files that a user named: written whole or not at all, and over what is there only where that is wanted."""

import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from scout.errors import ScoutError


def check_new_file(key: str, path: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Makes sure, before anything is played, that the file which `key` names can be written. Makes its folder.

    Raises ScoutError for another ending than those given, for a file that is there already unless `overwrite` is set,
    and for a folder that cannot be written.
    """
    if not path.name.lower().endswith(endings):
        raise ScoutError(f"{key}={path} has an unknown ending: expected {' or '.join(endings)}")
    try:
        if path.is_dir():
            raise ScoutError(f"{key}={path} is a folder: expected the name of a file")
        if path.exists() and not overwrite:
            raise ScoutError(f"{key}={path} exists already: set overwrite=true to replace it, or choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass  # permissions alone do not tell: root may write anywhere but on a read-only disk
    except OSError as error:
        raise ScoutError(f"{key}={path} cannot be written ({error.strerror}): choose another name") from error


class NewFile:
    """A file that is written under a hidden name beside its own, and gets its own when it is whole."""

    def __init__(self, key: str, path: Path, endings: tuple[str, ...], overwrite: bool) -> None:
        """Raises ScoutError as `check_new_file` does."""
        check_new_file(key, path, endings, overwrite)
        self._key, self.path, self._endings, self._overwrite = key, path, endings, overwrite
        self.temporary = path.with_name(f".{os.getpid()}.{key}{path.suffix}")
        """Where to write it."""

    def keep(self) -> None:
        """Gives the file its name. Raises ScoutError where another file has taken that name meanwhile."""
        try:
            check_new_file(self._key, self.path, self._endings, self._overwrite)
            self.temporary.replace(self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what was written."""
        self.temporary.unlink(missing_ok=True)

    def failed(self, reason: object) -> ScoutError:
        """Removes what was written and returns the error to raise."""
        self.discard()
        return ScoutError(f"{self._key}={self.path} could not be written ({reason}): nothing of it is left")


class Recording(ABC):
    """What makes a new file of an episode. It is there after `with` or `close`; nothing is left where it breaks off."""

    @abstractmethod
    def close(self) -> None:
        """Finishes the file and gives it its name."""

    @abstractmethod
    def break_off(self) -> None:
        """Removes what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.break_off()
