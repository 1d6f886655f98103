"""One episode as mettascope, mettagrid's own viewer, plays it: zlib over JSON."""

from pathlib import Path
from typing import override

from mettagrid.simulator.replay_log_writer import InMemoryReplayWriter

from scout.new_file import NewFile, Recording, check_new_file

ENDINGS = (".json.z",)


def check_replay_path(path: Path, overwrite: bool) -> None:
    """Makes sure, before anything is played, that a replay can be written there. Raises ScoutError if not."""
    check_new_file("replay", path, ENDINGS, overwrite)


class ReplayRecorder(Recording):
    """Records the episode that its `event_handler` is given to; leave it by `with`, or `close` it, to have the file."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Raises ScoutError as `check_replay_path` does."""
        self._file = NewFile("replay", path, ENDINGS, overwrite)
        self.event_handler = _Writer(self._file)
        """For the simulation of one episode: Simulation(..., event_handlers=[recorder.event_handler])."""

    @override
    def close(self) -> None:
        """Gives the file its name. Does nothing for an episode that did not end."""
        if self._file.temporary.exists():
            self._file.keep()

    @override
    def break_off(self) -> None:
        self._file.discard()


class _Writer(InMemoryReplayWriter):
    def __init__(self, file: NewFile) -> None:
        super().__init__()
        self._file = file

    @override
    def on_episode_end(self) -> None:
        # At once: a replay asks its simulation for the statistics, which are gone when that is closed.
        try:
            self._episode_replay.write_replay(str(self._file.temporary))
        except OSError as error:
            raise self._file.failed(error.strerror) from error
