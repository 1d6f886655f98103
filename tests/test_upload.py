"""Bundles go to a stand-in for the leaderboard's server once each, whatever fails on the way; no secret gets out."""

import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cogames.cli.login import CoGamesAuthenticator
from conftest import run_script, wait_until
from leaderboard_server import (
    SIGNATURE,
    TOKEN,
    Fault,
    LeaderboardServer,
    as_json,
    cut,
    dripping,
    html,
    says,
    season,
    silent,
    xml,
)
from werkzeug import Request, Response

from scout.errors import ScoutError
from scout.submission import client, journal, upload
from scout.submission.bundle import Bundle
from scout.submission.journal import JOURNAL, Journal
from scout.submission.upload import Answer, Leaderboard
from scout.submit_config import SubmitConfig

NAME = "my-scout"
PRESIGNED, COMPLETE = "POST /stats/policies/submit/presigned-url", "POST /stats/policies/submit/complete"
SEASON_QUESTIONS = ["GET /tournament/seasons", "GET /tournament/seasons/open-league", "GET /stats/policy-versions"]


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
    store_token(running, TOKEN)
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


def bundle_in(path: Path, weights: bytes) -> Bundle:
    spec = {"class_path": "scout.policy.ScoutPolicy", "data_path": "network.pt", "init_kwargs": {}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy_spec.json", json.dumps(spec))
        archive.writestr("scout/policy.py", "class ScoutPolicy: ...")
        archive.writestr("network.pt", weights)
    data = path.read_bytes()
    return Bundle(path, spec["class_path"], hashlib.sha256(data).hexdigest(), len(data))


def store_token(server: LeaderboardServer, token: str) -> None:
    CoGamesAuthenticator().config_reader_writer.save_token(token, server.login_url)


def board_of(server: LeaderboardServer, /, **changes: Any) -> Leaderboard:
    values = {"checkpoint": "RUN_DIR", "name": NAME, "server": server.url, "login_server": server.login_url}
    return Leaderboard(SubmitConfig.model_validate(values | changes))


def send(server: LeaderboardServer, bundle: Bundle, folder: Path, **changes: Any) -> Answer:
    board = board_of(server, **changes)
    return board.send(bundle, board.season(), folder)


def refused(call: Any, *arguments: Any, **options: Any) -> str:
    """The message of a call that fails; neither it nor what stands behind it has a secret."""
    with pytest.raises(ScoutError) as caught:
        call(*arguments, **options)
    assert_no_secret("".join(traceback.format_exception(caught.value)))
    one: BaseException | None = caught.value
    while one is not None:
        assert_no_secret(repr(one))
        one = one.__cause__ or one.__context__
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_no_secret(text: str) -> None:
    assert TOKEN not in text
    assert SIGNATURE not in text


def assert_says(message: str, *words: str) -> None:
    assert [word for word in words if word not in message] == [], message


def states(folder: Path) -> list[str]:
    return [record["state"] for record in records(folder)]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_bundle_arrives_byte_for_byte(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """A bundle is sent with the requests of `cogames upload`, and the server's answer is returned and noted."""
    answer = send(server, bundle, folder)
    made = server.versions[0]
    assert answer == Answer(made["id"], NAME, 1, ["qualifying"], "open-league", server.url)
    assert server.arrived == [bundle.path.read_bytes()]
    storage = server.requests[-2]
    assert storage.startswith("PUT /storage/")
    before = [*SEASON_QUESTIONS, "GET /stats/policy-versions"]
    assert server.requests == [*before, PRESIGNED, storage, COMPLETE]
    sending, accepted = records(folder)
    key = {"name": NAME, "server": server.url, "season": "open-league", "sha256": bundle.sha256}
    assert sending == {"time": sending["time"], "state": "sending", **key, "newest_before": 0}
    facts = {"id": made["id"], "version": 1, "pools": ["qualifying"]}
    assert accepted == {"time": accepted["time"], "state": "accepted", **key, **facts}


def test_the_requests_are_those_of_cogames(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """`cogames upload` itself sends the same, but for our question which versions there are."""
    send(server, bundle, folder)
    ours = [request for request in server.requests if "policy-versions" not in request]
    server.requests.clear()
    where = ["--server", server.url, "--login-server", server.login_url]
    command = ["-m", "cogames", "upload", "--policy", bundle.path.as_uri(), "--name", NAME, "--skip-validation"]
    result = run_script(*command, *where)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [re.sub("[^/]{36}", "ID", one) for one in server.requests] == [re.sub("[^/]{36}", "ID", one) for one in ours]
    assert server.arrived == [bundle.path.read_bytes()] * 2


def test_the_season_has_its_pools_and_config(server: LeaderboardServer) -> None:
    """The season of a submission says which config its newcomers play."""
    found = board_of(server).season()
    assert (found.name, found.compat_version, found.pools) == ("open-league", "0.8", ["qualifying", "league"])
    assert found.entry_config_id == server.seasons[0]["pools"][0]["config_id"]


def test_the_first_season_is_the_default_where_none_is_marked(server: LeaderboardServer) -> None:
    """Without a default season the first one is taken, as cogames does."""
    server.seasons = [season("b"), season("a")]
    assert board_of(server).season().name == "b"


def test_a_season_without_a_pool_for_newcomers(server: LeaderboardServer) -> None:
    """A season may have no pool for newcomers, and fit every version."""
    server.seasons = [season("free", compat_version=None) | {"entry_pool": None}]
    found = board_of(server, season="free").season()
    assert (found.entry_config_id, found.compat_version) == (None, None)


NOT_A_LEADERBOARD = ("server=", "is not the leaderboard that cogames 0.8.1 knows", "has no command line any more")
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


# What fails on the way, what is said then, and what the journal has last. `done` says whether the server has it anyway.
SURE, LOST = "failed", "unknown"
SEND_FAULTS: dict[str, tuple[str, Fault, bool, tuple[str, ...], str]] = {
    "token": ("presigned", says({"detail": "Not authenticated"}, 401), False, ("refuses the token", "--force"), SURE),
    "no route": ("presigned", says({"detail": "Not Found"}, 404), False, NOT_A_LEADERBOARD, SURE),
    "page": ("presigned", html(), False, (*NOT_A_LEADERBOARD, "no JSON"), SURE),
    "fields": ("presigned", says({"upload_id": "1"}), False, (*NOT_A_LEADERBOARD, "no upload_url"), SURE),
    "list": ("presigned", says([1]), False, (*NOT_A_LEADERBOARD, "no upload_url"), SURE),
    "address": ("presigned", says({"upload_url": "nowhere", "upload_id": "1"}), False, ("storage", "protocol"), SURE),
    "trouble": ("presigned", says({"detail": "busy"}, 500), False, ("failed", "busy", "nothing was entered"), SURE),
    "cut": ("presigned", cut, False, ("cannot be reached", PRESIGNED), SURE),
    "echo": ("presigned", says({"detail": f"bad {TOKEN}!"}, 400), False, ("refuses my-scout", "bad [secret]!"), SURE),
    "expired": ("storage", xml("Request has expired", 403), False, ("storage", "403", "has expired", "again"), SURE),
    "signature": ("storage", xml(f"no {SIGNATURE}", 403), False, ("storage", "no [secret]"), SURE),
    "storage": ("storage", html(503), False, ("storage", "503"), SURE),
    "cut storage": ("storage", cut, False, ("storage did not take it", "again"), SURE),
    "cut after it": ("storage", cut, True, ("storage did not take it",), SURE),
    "refused": (
        "complete",
        says({"detail": "Name is\ntaken"}, 409),
        False,
        ("refuses my-scout", "Name is taken"),
        SURE,
    ),
    "closed": ("complete", says({"detail": "Season is closed"}, 404), False, ("refuses my-scout", "is closed"), SURE),
    "invalid": (
        "complete",
        says({"detail": [{"loc": ["body", "name"], "msg": "too rude", "input": TOKEN}]}, 422),
        False,
        ("refuses my-scout", "422", "too rude"),
        SURE,
    ),
    "long": ("complete", says({"detail": "x" * 9999}, 400), False, ("refuses my-scout", "xxx...)"), SURE),
    "forbidden": ("complete", says({"detail": "Not your season"}, 403), False, ("Not your season", "token"), SURE),
    "cut complete": ("complete", cut, False, ("It is not known whether server=", "Call again"), LOST),
    "failed complete": ("complete", says({"detail": "oops"}, 500), False, ("It is not known", "500", "oops"), LOST),
    "gateway": ("complete", html(504), False, ("It is not known", "504"), LOST),
    "page of complete": ("complete", html(), False, ("It is not known", "no JSON"), LOST),
    "fields of complete": ("complete", says({"id": "1"}), False, ("It is not known", "Missing fields"), LOST),
    "list of complete": ("complete", says([]), False, ("It is not known", "no object"), LOST),
    "id of complete": (
        "complete",
        says({"id": "seven", "name": NAME, "version": 1}),
        False,
        ("It is not known", "Invalid submission ID"),
        LOST,
    ),
}


@pytest.mark.parametrize("case", SEND_FAULTS)
def test_a_failed_upload_can_be_repeated(case: str, server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """What fails is one message and a state in the journal; the next call makes exactly one version."""
    step, fault, done, words, state = SEND_FAULTS[case]
    server.fail(step, fault, done=done)
    assert_says(refused(send, server, bundle, folder), *words)
    assert states(folder) == ["sending", state]
    assert records(folder)[1]["reason"]
    assert server.versions == []
    server.mend()
    assert send(server, bundle, folder).version == 1
    assert len(server.versions) == len(server.arrived) == 1
    assert states(folder)[-2:] == ["sending", "accepted"]


def test_a_connection_that_is_cut_in_mid_upload(server: LeaderboardServer, folder: Path, tmp_path: Path) -> None:
    """A bundle of which the storage takes a part leaves nothing behind, and is sent again as a whole."""
    bundle = bundle_in(tmp_path / "bundle.zip", b"1" * 10_000_000)  # more than sockets hold
    server.fail("storage", cut)
    assert_says(refused(send, server, bundle, folder), "its storage did not take it", "Nothing was entered")
    server.mend()
    assert send(server, bundle, folder).version == 1
    assert server.arrived == [bundle.path.read_bytes()]


@pytest.mark.parametrize(
    ("step", "limit", "state"),
    [
        ("presigned", "ANSWER_SECONDS", SURE),
        ("storage", "STORAGE_SECONDS", SURE),
        ("complete", "COMPLETE_SECONDS", LOST),
    ],
)
def test_an_upload_without_an_answer_ends(
    step: str,
    limit: str,
    state: str,
    server: LeaderboardServer,
    bundle: Bundle,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that falls silent in an upload ends in a message, and the next call makes exactly one version."""
    board = board_of(server)
    found = board.season()
    with monkeypatch.context() as patch:
        patch.setattr(client, limit, 0.5)
        server.fail(step, silent)
        assert_says(refused(board.send, bundle, found, folder), "no answer within 0.5 s")
    assert states(folder) == ["sending", state]
    server.mend()
    assert board.send(bundle, found, folder).version == 1
    assert len(server.versions) == 1


@pytest.mark.parametrize("fault", [cut, says({"detail": "oops"}, 502), html(), says({"id": None})])
def test_a_lost_answer_is_found_at_once(fault: Fault, server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """Where the server has the bundle although its answer was lost, the user sees nothing of it."""
    server.make_version(NAME)
    server.fail("complete", fault, done=True)
    answer = send(server, bundle, folder)
    assert answer == Answer(server.versions[1]["id"], NAME, 2, None, "open-league", server.url)
    assert states(folder) == ["sending", "unknown", "accepted"]
    assert send(server, bundle, folder) == answer
    assert len(server.versions) == 2


def test_a_slow_server_is_asked_more_than_once(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """A version that appears only after the first look is found, too."""
    looks: list[Request] = []

    def late(server: LeaderboardServer, request: Request) -> Response:
        looks.append(request)
        if len(looks) == 4:  # in season(), before the upload, right after it, and now
            server.make_version(NAME)
        return as_json({"entries": server.versions})

    server.fail("versions", late)
    server.fail("complete", cut)
    assert send(server, bundle, folder).version == 1
    assert len(looks) == 4


def test_a_lost_answer_is_found_by_the_next_call(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """Where the server is gone as well when its answer is lost, the next call finds that the bundle had arrived."""
    board = board_of(server)
    found = board.season()
    server.fail("complete", lose_everything, done=True)
    assert_says(refused(board.send, bundle, found, folder), "It is not known", "Call again: that asks the server first")
    server.mend()
    answer = board.send(bundle, found, folder)
    assert (answer.id, answer.version, answer.pools) == (server.versions[0]["id"], 1, None)
    assert states(folder) == ["sending", "unknown", "accepted"]
    assert server.requests.count(COMPLETE) == 1


def lose_everything(server: LeaderboardServer, request: Request) -> Response:
    """A fault: this answer is lost, and all that are asked for versions."""
    server.fail("versions", cut)
    return cut(server, request)


def test_a_server_that_does_not_say_its_versions(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """A server without that question takes bundles; after a lost answer only again=true sends it once more."""
    server.fail("versions", says({"detail": "Not Found"}, 404))
    server.fail("storage", cut, times=1)
    refused(send, server, bundle, folder)
    assert send(server, bundle, folder).version == 1  # what surely failed needs no question
    assert records(folder)[0]["newest_before"] is None
    server.fail("complete", cut, done=True)
    assert_says(refused(send, server, bundle, folder, again=True), "It is not known", "Call again")
    message = refused(send, server, bundle, folder)
    options = f"--server {server.url} --login-server {server.login_url}"
    assert_says(message, f"may have {NAME} already", "404", f"`cogames submissions -p {NAME} {options}`", "again=true")
    server.fail("versions", says({"entries": server.versions}))
    assert_says(refused(send, server, bundle, folder), "which versions it had before is not known")
    server.mend()
    assert send(server, bundle, folder, again=True).version == 3


def test_more_versions_than_cogames_asks_for(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """Of a name with more versions than one answer holds nothing is concluded."""
    for _ in range(client.MOST_VERSIONS):
        server.make_version(NAME)
    server.fail("complete", cut, done=True)
    assert_says(refused(send, server, bundle, folder), "It is not known")
    assert_says(refused(send, server, bundle, folder), "too many to tell", "again=true")


def test_a_version_from_elsewhere_is_not_taken_for_ours(
    server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """Where more versions are new than were sent, it cannot be told which of them is ours."""
    server.fail("complete", lose_everything, done=True)
    refused(send, server, bundle, folder)
    server.mend()
    server.make_version(NAME)
    assert_says(refused(send, server, bundle, folder), "whether version 1 or 2 came of it cannot be told", "again=true")


def test_other_bundles_of_a_name_are_told_apart(
    server: LeaderboardServer, bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    """A version that is another bundle's, or may be, is not taken for one whose answer was lost."""
    other = bundle_in(tmp_path / "other.zip", b"2")
    server.fail("complete", cut)
    refused(send, server, bundle, folder)
    server.mend()
    assert send(server, other, folder).version == 1
    assert send(server, bundle, folder).version == 2
    assert len(server.arrived) == 2

    server.fail("complete", cut)
    refused(send, server, bundle, folder, again=True)
    server.fail("complete", lose_everything, done=True)
    refused(send, server, other, folder, again=True)
    server.mend()
    assert_says(refused(send, server, bundle, folder), "whether version 3 came of it cannot be told")


def test_a_bundle_is_sent_once(
    server: LeaderboardServer, bundle: Bundle, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bundle that was accepted is not sent again, unless that is wanted, or its name or season is another one."""
    first = send(server, bundle, folder)
    server.requests.clear()
    assert send(server, bundle, folder) == first
    assert server.requests == SEASON_QUESTIONS
    assert f"{server.url} has this bundle already, as {NAME}:v1; nothing was sent. again=true" in caplog.text
    assert send(server, bundle, folder, again=True).version == 2
    assert send(server, bundle, folder).version == 2
    assert send(server, bundle, folder, name="another").version == 1
    server.seasons.append(season("third"))
    assert send(server, bundle, folder, season="third").version == 3
    assert len(server.arrived) == 4


def test_a_failed_repetition_forgets_nothing(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """A bundle that was accepted stays so when sending it again fails."""
    first = send(server, bundle, folder)
    for step in ("storage", "complete"):
        server.fail(step, cut)
        refused(send, server, bundle, folder, again=True)
        server.mend()
        assert send(server, bundle, folder) == first
    assert len(server.versions) == 1


def test_a_lost_repetition_is_told_from_a_call_before(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """What again=true sends is looked for by itself, apart from a call before whose answer was lost as well."""
    server.fail("complete", lose_everything, done=True)
    refused(send, server, bundle, folder)
    server.mend()
    server.fail("complete", cut)
    assert_says(refused(send, server, bundle, folder, again=True), "It is not known")
    server.mend()
    assert send(server, bundle, folder).version == 1  # the first of them had arrived
    assert len(server.versions) == 1


@pytest.mark.parametrize(
    ("step", "done", "state"), [("presigned", False, SURE), ("storage", True, SURE), ("complete", True, LOST)]
)
def test_an_interruption_in_an_upload(
    step: str, done: bool, state: str, server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """After Ctrl-C the journal says what is known, and the next call makes exactly one version."""
    server.fail(step, interrupting, done=done)
    with pytest.raises(KeyboardInterrupt):
        send(server, bundle, folder)
    assert states(folder) == ["sending", state]
    server.mend()
    assert send(server, bundle, folder).version == 1
    assert len(server.versions) == 1


def interrupting(server: LeaderboardServer, request: Request) -> Response:
    """A fault: Ctrl-C, while the answer is awaited."""
    os.kill(os.getpid(), signal.SIGINT)
    return silent(server, request)


@pytest.mark.parametrize(("step", "done"), [("storage", True), ("complete", False), ("complete", True)])
def test_a_process_that_is_killed(
    step: str, done: bool, server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """After SIGKILL in an upload the next call makes exactly one version."""
    server.fail(step, silent, done=done)
    process = multiprocessing.get_context("fork").Process(target=send, args=(server, bundle, folder))
    process.start()
    wait_until(lambda: any(request.startswith("PUT" if step == "storage" else COMPLETE) for request in server.requests))
    assert_says(refused(send, server, bundle, folder), JOURNAL, "in use by another process", "wait")
    process.kill()
    process.join()
    assert states(folder) == ["sending"]
    server.mend()
    assert send(server, bundle, folder).version == 1
    assert len(server.versions) == 1
    assert states(folder) == (["sending", "accepted"] if step == "complete" and done else [*AGAIN])


AGAIN = ("sending", "failed", "sending", "accepted")


def test_torn_and_strange_lines(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """Lines that are torn or no records do not hide the others, and nothing is appended to them."""
    answer = send(server, bundle, folder)
    path = folder / JOURNAL
    whole = path.read_bytes()
    accepted = whole.splitlines()[1]
    path.write_bytes(whole.replace(accepted, accepted[:40])[:-1])  # killed while it noted the answer
    assert send(server, bundle, folder).id == answer.id
    assert json.loads(path.read_bytes().splitlines()[-1])["state"] == "accepted"
    path.write_bytes(b'\xff\n[]\n7\n{"state": "accepted"}\n' + b"[" * 100_000 + b"\n" + whole + accepted[:40])
    assert send(server, bundle, folder) == answer
    assert send(server, bundle, folder, again=True).version == 2
    assert [json.loads(line)["state"] for line in path.read_bytes().splitlines()[-2:]] == ["sending", "accepted"]


def test_a_journal_that_cannot_be_written(
    server: LeaderboardServer, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent that cannot be noted before; what cannot be noted afterwards is found by the next call."""
    folder.write_text("a file")
    assert_says(refused(send, server, bundle, folder), JOURNAL, "cannot be written", "File exists", "nothing is sent")
    folder.unlink()
    folder.mkdir()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", full)
        assert_says(refused(send, server, bundle, folder), JOURNAL, "No space left on device", "nothing is sent")
    assert server.arrived == []

    def full_at_the_end(journal: Journal, state: str, **facts: Any) -> None:
        if state != "sending":
            raise OSError(28, "No space left on device")
        append(journal, state, **facts)

    append = Journal._append
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_append", full_at_the_end)
        assert send(server, bundle, folder, again=True).version == 1
    assert send(server, bundle, folder).version == 1
    assert len(server.versions) == 1


def test_a_locked_journal(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """While another program has the journal nothing is sent."""
    folder.mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(folder / JOURNAL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert_says(refused(send, server, bundle, folder), "in use by another process")
        other.communicate(b"\n")
    assert send(server, bundle, folder).version == 1
    with (folder / JOURNAL).open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was given back


def test_a_bundle_that_is_not_the_proven_one(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """A bundle that was changed or removed since it was made is not sent."""
    bundle.path.write_bytes(b"something else")
    assert_says(refused(send, server, bundle, folder), str(bundle.path), "is not the bundle that was made", "again")
    bundle.path.unlink()
    assert_says(refused(send, server, bundle, folder), str(bundle.path), "make it again")
    assert PRESIGNED not in server.requests


def test_a_thread_can_send(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """Outside of the main thread, where Python allows no alarm, a bundle is sent as well."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(send(server, bundle, folder)))
    thread.start()
    thread.join()
    assert [answer.version for answer in answers] == [1]


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
