"""submissions.jsonl: what was sent to leaderboards, and what came of it; so nothing is sent twice or forgotten.

It only grows, a line of JSON a state. `sending` comes before the first request of a call; then `accepted`, `failed`
where the server surely has nothing, or `unknown` where its answer was lost. A killed process leaves its `sending`.
"""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scout.errors import ScoutError
from scout.run_folder import sync_folder, take_lock

log = logging.getLogger(__name__)

JOURNAL = "submissions.jsonl"
SENDING, ACCEPTED, FAILED, UNKNOWN = "sending", "accepted", "failed", "unknown"
BUNDLE_KEYS = ("name", "server", "season", "sha256")
"""What makes two calls send the same."""

type Record = dict[str, Any]


class Journal:
    """The journal of a folder as seen by a call that sends one bundle. It is locked until `close` or the end of `with`.

    Whoever in this process opens and closes the file a second time gives the lock away.
    """

    def __init__(self, folder: Path, *, name: str, server: str, season: str, sha256: str) -> None:
        """Raises ScoutError when another process has it, or when it cannot be written."""
        self.path = folder / JOURNAL
        self._bundle = {"name": name, "server": server, "season": season, "sha256": sha256}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)  # a line is a single write
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            if not take_lock(self._file, folder):
                raise ScoutError(f"{self.path} is in use by another process that sends a bundle: wait until it is done")
            self._file.seek(0)
            data = self._file.read()
            if data and not data.endswith(b"\n"):  # a process was killed in the middle of its line
                self._file.write(b"\n")
        except OSError as error:
            self._file.close()
            raise self._unwritable(error) from error
        except BaseException:
            self._file.close()
            raise
        sync_folder(folder)
        self._records = [record for line in data.splitlines() if (record := _record(line)) is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()

    @property
    def accepted(self) -> Record | None:
        """The last time that the server is known to have taken the bundle."""
        return _story(self._of(self._bundle))[0]

    @property
    def lost(self) -> list[Record]:
        """The calls with the bundle, since then, of which it is not known whether they arrived; oldest first."""
        return _story(self._of(self._bundle))[1]

    @property
    def accepted_versions(self) -> set[int]:
        """The versions of the name that are known to be of one bundle or another."""
        return {record["version"] for record in self._of_name() if record["state"] == ACCEPTED}

    def others_lost_since(self, record: Record) -> bool:
        """Whether calls with other bundles of the name were lost after this one: what is new may be theirs."""
        later = self._records[self._records.index(record) :]
        others = {_key(one): one for one in self._of_name() if _key(one) != _key(self._bundle)}
        return any(call in later for other in others.values() for call in _story(self._of(other))[1])

    def begin(self, newest_before: int | None) -> None:
        """Notes that the bundle is about to be sent, and which version of its name was the newest, if that is known.

        Raises ScoutError when it cannot be written, since nothing must be sent that could be forgotten.
        """
        try:
            self._append(SENDING, newest_before=newest_before)
        except OSError as error:
            raise self._unwritable(error) from error

    def end(self, state: str, **facts: Any) -> None:
        """Notes what came of it. Where that cannot be written it is still `sending`, which is safe."""
        try:
            self._append(state, **facts)
        except OSError as error:
            log.error("%s cannot be written (%s): it lacks that this was %s", self.path, error.strerror, state)

    def _append(self, state: str, **facts: Any) -> None:
        record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "state": state, **self._bundle, **facts}
        line = json.dumps(record).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(0, "only a part of a line could be written")
        os.fsync(self._file.fileno())
        self._records.append(record)

    def _of(self, bundle: Record) -> list[Record]:
        return [record for record in self._records if _key(record) == _key(bundle)]

    def _of_name(self) -> list[Record]:
        return [record for record in self._records if _key(record)[:2] == _key(self._bundle)[:2]]

    def _unwritable(self, error: OSError) -> ScoutError:
        return ScoutError(
            f"{self.path} cannot be written ({error.strerror}), and without a note of it nothing is sent: "
            "mend that, and call again"
        )


def _key(record: Record) -> tuple[Any, ...]:
    return tuple(record[key] for key in BUNDLE_KEYS)


def _story(records: list[Record]) -> tuple[Record | None, list[Record]]:
    """What the records of one bundle come to: where it was accepted last, and the calls that were lost since."""
    accepted, lost = None, []
    for record in records:
        match record["state"]:
            case "sending":
                lost.append(record)
            case "failed":
                lost = lost[:-1]
            case "accepted":
                accepted, lost = record, []
    return accepted, lost  # `unknown` says no more than the `sending` before it


def _record(line: bytes) -> Record | None:
    """The record in a line; None where there is none, or a torn one."""
    try:
        record = json.loads(line)
        time = datetime.fromisoformat(record["time"])
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    if time.tzinfo is None or not all(isinstance(record.get(key), str) for key in BUNDLE_KEYS):
        return None
    if record.get("state") == ACCEPTED and not (
        isinstance(record.get("version"), int) and isinstance(record.get("id"), str)
    ):
        return None
    return record if record.get("state") in (SENDING, ACCEPTED, FAILED, UNKNOWN) else None
