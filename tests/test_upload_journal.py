"""Each bundle is sent once: what the journal and the server's versions say after a call that came to harm."""

import fcntl
import json
import multiprocessing
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from leaderboard_helpers import COMPLETE, NAME, assert_says, board_of, bundle_in, records, refused, send, states
from leaderboard_server import Fault, LeaderboardServer, as_json, cut, html, says, silent
from werkzeug import Request, Response

from scout.submission import client, journal
from scout.submission.bundle import Bundle
from scout.submission.journal import JOURNAL, Journal
from scout.submission.upload import Answer

pytest_plugins = ["leaderboard_fixtures"]


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


@pytest.mark.parametrize("minutes", [-11, 13, 24 * 60])
def test_a_version_of_another_time_is_not_taken_for_ours(
    minutes: int, server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """A version that was made before the call, or long after it, is not taken for what came of it."""
    server.fail("complete", cut)
    refused(send, server, bundle, folder)
    server.mend()
    server.make_version(NAME, timedelta(minutes=minutes))
    assert_says(refused(send, server, bundle, folder), "whether version 1 came of it cannot be told", "again=true")
    assert send(server, bundle, folder, again=True).version == 2
    assert len(server.arrived) == 1


@pytest.mark.parametrize("minutes", [-9, 11])
def test_the_servers_clock_may_be_another(
    minutes: int, server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """A version is ours although the server's clock is some minutes behind or ahead."""
    server.fail("complete", cut)
    refused(send, server, bundle, folder)
    server.mend()
    server.make_version(NAME, timedelta(minutes=minutes))
    assert send(server, bundle, folder).version == 1
    assert server.arrived == []


def test_a_time_without_a_zone_is_utc(server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """Where the server names no time zone, it means UTC."""
    server.fail("complete", lose_everything, done=True)
    refused(send, server, bundle, folder)
    server.mend()
    server.versions[0]["created_at"] = datetime.now(UTC).replace(tzinfo=None).isoformat()
    assert send(server, bundle, folder).version == 1


@pytest.mark.parametrize(("days", "ours"), [((2, 0), True), ((0, 0), False), ((2, 2), False)])
def test_each_lost_call_made_one_version_at_most(
    days: tuple[int, int], ours: bool, server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """Of two lost calls, two days apart, each has to be of the time of a version of its own."""
    server.fail("complete", cut)
    for _ in range(2):
        refused(send, server, bundle, folder, again=True)
    server.mend()
    path = folder / JOURNAL
    first, *others = path.read_text().splitlines(keepends=True)
    before = json.loads(first) | {"time": (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds")}
    path.write_text("".join([json.dumps(before) + "\n", *others]))
    for ago in days:
        server.make_version(NAME, -timedelta(days=ago))
    if ours:
        assert send(server, bundle, folder).version == 2
    else:
        assert_says(refused(send, server, bundle, folder), "whether version 1 or 2 came of it cannot be told")


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


@pytest.mark.parametrize(("step", "done"), [("storage", True), ("complete", False), ("complete", True)])
def test_a_process_that_is_killed(
    step: str, done: bool, server: LeaderboardServer, bundle: Bundle, folder: Path
) -> None:
    """After SIGKILL in an upload the next call makes exactly one version."""
    again = ["sending", "failed", "sending", "accepted"]
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
    assert states(folder) == (["sending", "accepted"] if step == "complete" and done else again)


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


@pytest.mark.parametrize("time", [None, 7, "yesterday", "2026-01-01T00:00:00"])
def test_a_line_without_a_time(time: Any, server: LeaderboardServer, bundle: Bundle, folder: Path) -> None:
    """A line that does not say when it was written, with its time zone, is no record."""
    server.fail("complete", cut)
    refused(send, server, bundle, folder)
    server.mend()
    lines = [json.dumps(record | {"time": time}) for record in records(folder)]
    (folder / JOURNAL).write_text("\n".join(lines) + "\n")
    server.make_version(NAME)
    assert send(server, bundle, folder).version == 2


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
