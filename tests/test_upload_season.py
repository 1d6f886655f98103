"""What a leaderboard's server says before anything is sent to it: the season and its mission, or why there is none."""

import logging
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from leaderboard_helpers import NOT_A_LEADERBOARD, assert_says, board_of, refused
from leaderboard_server import Fault, LeaderboardServer, cut, dripping, html, says, season, silent
from werkzeug import Response

from scout.submission import client
from scout.submission.client import Client

pytest_plugins = ["leaderboard_fixtures"]


def test_the_season_has_a_name_and_a_config(server: LeaderboardServer) -> None:
    """The season of a submission says which config its newcomers play."""
    found = board_of(server).season()
    assert (found.name, found.entry_config_id) == ("open-league", server.seasons[0]["pools"][0]["config_id"])


def test_the_first_season_is_the_default_where_none_is_marked(server: LeaderboardServer) -> None:
    """Without a default season the first one is taken, as cogames does."""
    server.seasons = [season("b"), season("a")]
    assert board_of(server).season().name == "b"


def test_a_season_for_every_version(server: LeaderboardServer) -> None:
    """A season that names no version takes every one."""
    server.seasons = [season("free", compat_version=None)]
    assert board_of(server).season().name == "free"


@pytest.mark.parametrize(
    "closed",
    [{"entry_pool": None}, {"entry_pool": "nowhere"}, {"pools": [{"name": "qualifying", "description": "No config"}]}],
)
def test_a_season_that_takes_no_newcomers(closed: dict[str, Any], server: LeaderboardServer) -> None:
    """A season without a config for newcomers is refused, with the other seasons that this version can enter."""
    server.seasons.append(season("closed") | closed)
    message = refused(board_of(server, season="closed").season)
    assert_says(message, "season=closed takes no newcomers now", "choose season=open-league")
    assert "old-league" not in message
    server.seasons = [season("closed", is_default=True) | closed, season("shut") | {"entry_pool": None}]
    assert_says(refused(board_of(server).season), "season=closed takes no newcomers now", "this server has none")


def test_the_mission_of_a_season(server: LeaderboardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A season's mission is all that the server says of it."""
    monkeypatch.setattr(server, "game", {"game": {"max_steps": 7}, "label": "its own"})
    board = board_of(server)
    assert board.mission(board.season()) == server.game


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (["game"], "valid dictionary"),
        ("game", "valid dictionary"),
        ({}, "game: Field required"),
        ({"game": None}, "game: Input should be a valid dictionary"),
        ({"game": [1]}, "game: Input should be a valid dictionary"),
    ],
)
def test_a_mission_that_is_none(answer: Any, said: str, server: LeaderboardServer) -> None:
    """An answer that is no mission's config is that of a server of another kind."""
    board = board_of(server)
    found = board.season()
    server.fail("config", says(answer))
    message = refused(board.mission, found)
    assert_says(message, *NOT_A_LEADERBOARD, "GET /tournament/configs/", "JSON of another kind", said)


SEASON_FAULTS: dict[str, tuple[str, Fault, tuple[str, ...]]] = {
    "no seasons there": ("seasons", says({"detail": "Not Found"}, 404), (*NOT_A_LEADERBOARD, "404", "Not Found")),
    "a page": ("seasons", html(), (*NOT_A_LEADERBOARD, "GET /tournament/seasons", "no JSON")),
    "a page of an error": ("seasons", html(404), (*NOT_A_LEADERBOARD, "404 NOT FOUND")),
    "a redirect": ("seasons", lambda *_: Response("", 302, {"Location": "/login"}), (*NOT_A_LEADERBOARD, "302")),
    "missing fields": ("seasons", says([{"name": "a"}]), (*NOT_A_LEADERBOARD, "0.id: Field required")),
    "another shape": ("seasons", says({"seasons": []}), (*NOT_A_LEADERBOARD, "list")),
    "invalid id": ("season", says(season("open-league") | {"id": "7"}), (*NOT_A_LEADERBOARD, "id:", "UUID")),
    "no seasons": ("seasons", says([]), ("server=", "has no season now", "later")),
    "gone": ("seasons", cut, ("server=", "cannot be reached", "Server disconnected", "has no command line any more")),
    "season gone": ("season", cut, ("server=", "cannot be reached", "GET /tournament/seasons/open-league")),
    "in trouble": ("seasons", says({"detail": "maintenance"}, 503), ("failed", "503", "maintenance", "later")),
    "refused": ("seasons", says({"detail": "who are you"}, 403), ("refuses the token of", "login --force --login")),
    "token refused": ("versions", says({"detail": "expired"}, 401), ("refuses the token of", "expired", "--force")),
}


@pytest.mark.parametrize("case", SEASON_FAULTS)
def test_a_season_that_cannot_be_had(case: str, server: LeaderboardServer) -> None:
    """What is wrong with the server or the token is said before anything is made, by one message."""
    step, fault, words = SEASON_FAULTS[case]
    server.fail(step, fault)
    assert_says(refused(board_of(server).season), *words)
    server.mend()
    assert board_of(server).season().name == "open-league"


@pytest.mark.parametrize("fault", [silent, dripping])
def test_a_server_that_never_answers(fault: Fault, server: LeaderboardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing, or never comes to an end, ends in a message."""
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.4)
    server.fail("seasons", fault)
    assert_says(
        refused(board_of(server).season), "cannot be reached", "no answer within 0.4 s", "has no command line any more"
    )


@pytest.mark.parametrize("moment", ["_failure", "_begin"])
def test_an_alarm_at_the_last_moment(moment: str, server: LeaderboardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm that rings when a request has ended already, with an error or not, ends in a message as well."""
    original = getattr(Client, moment)

    def ringing(self: Client, *arguments: Any) -> Any:
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(signal.SIGALRM)
        return original(self, *arguments)

    monkeypatch.setattr(Client, moment, ringing)
    if moment == "_failure":
        server.fail("seasons", cut)
    assert_says(refused(board_of(server).season), "cannot be reached", "GET /tournament/seasons")


def test_an_address_without_a_server(server: LeaderboardServer) -> None:
    """A refused connection, an unknown host, an address that is none and a server of something else are each said."""
    refusing = board_of(server, server=f"http://127.0.0.1:{free_port()}")
    assert_says(refused(refusing.season), "server=http://127.0.0.1:", "cannot be reached", "Connection refused")
    unknown = board_of(server, server="http://no-such-host.invalid")
    assert_says(
        refused(unknown.season), "server=http://no-such-host.invalid cannot be reached", "has no command line any more"
    )
    wrong = board_of(server, server="http://127.0.0.1:port")
    assert_says(refused(wrong.season), "server=http://127.0.0.1:port cannot be asked", "port", "look at the address")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=speak_another_language, args=(listener,), daemon=True).start()
        other = board_of(server, server=f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert_says(refused(other.season), "cannot be reached", "has no command line any more")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def speak_another_language(listener: socket.socket) -> None:
    with listener.accept()[0] as connection:
        connection.recv(100_000)
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def test_nobody_is_logged_in(server: LeaderboardServer, tmp_path: Path) -> None:
    """Without a usable token the message says how to log in, and where cogames keeps it."""
    path = tmp_path / "home" / ".metta" / "cogames.yaml"
    for content in ("", "login_tokens: {}", "\0", f"login_tokens: {{'{server.login_url}': 'two words'}}"):
        path.write_text(content)
        message = refused(board_of(server).season)
        assert_says(message, f"login_server={server.login_url}", f"`cogames login --login-server {server.login_url}`")
    path.unlink()
    assert_says(refused(board_of(server, login_server=None).season), "nobody is logged in", "`cogames login` first")
    (tmp_path / "home" / ".metta").rmdir()
    (tmp_path / "home" / ".metta").write_text("")
    assert_says(refused(board_of(server).season), "cannot be asked", ".metta")
    assert server.requests == []


def test_an_unknown_season(server: LeaderboardServer) -> None:
    """A season that is not there is answered with the nearest spelling and all there are."""
    message = refused(board_of(server, season="open-leage").season)
    assert_says(
        message, "season=open-leage is not a season of", "did you mean open-league?", "open-league", "old-league"
    )
    for name in ("", "a/b", "?", "#"):
        assert_says(refused(board_of(server, season=name).season), f"season={name} is not a season of")


def test_a_season_of_another_version(server: LeaderboardServer) -> None:
    """A season that this version of cogames does not fit is refused with those that it fits."""
    words = ("season=old-league is for cogames 0.7", "expected one for 0.8", "cogames 0.8.1")
    assert_says(refused(board_of(server, season="old-league").season), *words, "choose season=open-league")
    server.seasons = [season("old-league", compat_version="0.7")]
    assert_says(refused(board_of(server).season), *words, "this server has none")


def test_what_is_quiet_speaks_again(server: LeaderboardServer) -> None:
    """cogames' consoles, httpx' loggers and the alarm are as they were before, also after a failure."""
    import cogames.cli.base

    before = signal.getsignal(signal.SIGALRM)
    logging.getLogger("httpx").setLevel(logging.INFO)
    server.fail("seasons", cut)
    refused(board_of(server).season)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert logging.getLogger("httpx").level == logging.INFO
    assert not cogames.cli.base.console.quiet
    logging.getLogger("httpx").setLevel(logging.NOTSET)
