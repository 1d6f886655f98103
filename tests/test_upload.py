"""Bundles go to a stand-in for the leaderboard's server, whatever fails on the way; no secret gets out."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest
from conftest import run_script
from leaderboard_helpers import (
    COMPLETE,
    LOST,
    NAME,
    NOT_A_LEADERBOARD,
    PRESIGNED,
    SEASON_QUESTIONS,
    SURE,
    assert_says,
    board_of,
    bundle_in,
    records,
    refused,
    send,
    states,
)
from leaderboard_server import (
    SIGNATURE,
    TOKEN,
    Fault,
    LeaderboardServer,
    cut,
    html,
    says,
    season,
    silent,
    xml,
)
from werkzeug import Request, Response

from scout.submission import client
from scout.submission.bundle import Bundle
from scout.submission.upload import Answer

pytest_plugins = ["leaderboard_fixtures"]


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


@pytest.mark.slow
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


# What fails on the way, what is said then, and what the journal has last. `done` says whether the server has it anyway.
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
