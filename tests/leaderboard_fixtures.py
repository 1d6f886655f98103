"""A server, a home with its token, a bundle and its journal's folder: a plugin of pytest for the tests of uploads."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cogames.cli.login import CoGamesAuthenticator
from leaderboard_helpers import assert_no_secret, bundle_in
from leaderboard_server import TOKEN, LeaderboardServer

from scout.submission import upload
from scout.submission.bundle import Bundle


@pytest.fixture(scope="module")
def running() -> Iterator[LeaderboardServer]:
    """One server for all tests, since to stop one takes half a second."""
    with LeaderboardServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "submissions"


@pytest.fixture
def server(
    running: LeaderboardServer,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[LeaderboardServer]:
    """A new server, and a home folder with its token; nothing that a test leaves behind has a secret in it."""
    running.reset()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(upload, "LOOK_SECONDS", 0.02)
    caplog.set_level(logging.DEBUG)
    CoGamesAuthenticator().config_reader_writer.save_token(TOKEN, running.login_url)
    capsys.readouterr()
    yield running
    running.release()
    running.check()
    said = capsys.readouterr()
    assert said.out == ""
    assert_no_secret(said.err)
    for record in [*caplog.get_records("setup"), *caplog.get_records("call")]:
        if record.name != "werkzeug":  # the server's own
            assert_no_secret(record.getMessage())
    for path in folder.glob("*"):
        assert_no_secret(path.read_text(errors="replace"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small bundle."""
    return bundle_in(tmp_path / "bundle.zip", b"1")
