"""A stand-in for the leaderboard's server and its storage on loopback, as far as cogames 0.8.1 speaks with them."""

import hashlib
import io
import json
import re
import socket
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

TOKEN = "tokenOfTheTests0123456789"
SIGNATURE = "signatureOfTheTests0123456789"
"""Part of the address that a bundle is uploaded to; who has it may write there."""
TIME = "2026-01-01T00:00:00Z"

type Fault = Callable[["LeaderboardServer", Request], Response]


@dataclass
class _Planned:
    fault: Fault
    done: bool
    times: int


class LeaderboardServer:
    """Takes bundles as the leaderboard does, and fails where a test says so. A context manager; `reset` makes it new.

    It checks what it gets: a wrong request is an assertion that `check` raises. `token` is that of its only user, and
    `game` the config of the pool for newcomers.
    Steps, for `fail`: seasons, season, config, versions, presigned, storage, complete.
    """

    def __init__(self, token: str = TOKEN, game: dict[str, Any] | None = None) -> None:
        self.token, self.game = token, game
        self._http = _Http(self)
        self._lock = threading.RLock()
        self.reset()
        routes: list[tuple[str, str, str, Callable[..., Response]]] = [
            ("seasons", "GET", r"/tournament/seasons", self._seasons),
            ("season", "GET", r"/tournament/seasons/(.*)", self._season),
            ("config", "GET", r"/tournament/configs/([^/]+)", self._config),
            ("versions", "GET", r"/stats/policy-versions", self._versions),
            ("memberships", "GET", r"/tournament/my-memberships", self._memberships),
            ("presigned", "POST", r"/stats/policies/submit/presigned-url", self._presigned),
            ("storage", "PUT", r"/storage/([^/]+)", self._storage),
            ("complete", "POST", r"/stats/policies/submit/complete", self._complete),
        ]
        for step, method, pattern, answer in routes:
            path = re.compile(f"{pattern}$")
            handler = self._http.expect_request(path, method=method)
            handler.respond_with_handler(lambda request, s=step, p=path, a=answer: self._answer(request, s, p, a))

    def reset(self) -> None:
        """Forgets everything but the token and the game."""
        self.release()
        self._http.clear_assertions()
        self._http.clear_handler_errors()
        self.seasons = [season("open-league", is_default=True), season("old-league", compat_version="0.7")]
        self.arrived: list[bytes] = []
        """The zips that were entered, in order."""
        self.versions: list[dict[str, Any]] = []
        """What was made of them."""
        self.requests: list[str] = []
        """Method and path of each request."""
        self._faults: dict[str, _Planned] = {}
        self._uploads: dict[str, bytes | None] = {}
        self._released = threading.Event()

    def fail(self, step: str, fault: Fault, *, done: bool = False, times: int = 10**9) -> None:
        """Lets a step fail; with `done` the server does what it is asked for, and its answer alone is replaced."""
        self._faults[step] = _Planned(fault, done, times)

    def mend(self) -> None:
        """Lets no step fail any more."""
        self._faults.clear()

    def release(self) -> None:
        """Ends the connections of requests that get no answer."""
        if hasattr(self, "_released"):
            self._released.set()

    def wait(self) -> None:
        """Waits until `release`, at most a minute."""
        self._released.wait(60)

    def check(self) -> None:
        """Raises AssertionError where a request was not what cogames sends."""
        self._http.check()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._http.url_for("").rstrip("/")

    @property
    def login_url(self) -> str:
        """The login server's address; nothing is asked there, it is the key of a token."""
        return f"{self.url}/api"

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()
        self._http.stop()

    def _answer(self, request: Request, step: str, path: re.Pattern[str], answer: Callable[..., Response]) -> Response:
        with self._lock:
            self.requests.append(f"{request.method} {request.path}")
            planned = self.planned(step)
            found = path.match(request.path)
            assert found is not None
            response = answer(request, *found.groups()) if planned is None or planned.done else Response()
        return response if planned is None else planned.fault(self, request)

    def planned(self, step: str) -> _Planned | None:
        """The fault of a step that is about to be answered; None when it has none, or no more."""
        planned = self._faults.get(step)
        if planned is None or planned.times == 0:
            return None
        planned.times -= 1
        return planned

    def cuts_early(self, request: Request) -> bool:
        """Whether the connection is to be cut while a bundle is still under way."""
        planned = self._faults.get("storage") if request.method == "PUT" else None
        return planned is not None and planned.times > 0 and planned.fault is cut and not planned.done

    def _seasons(self, _: Request) -> Response:
        return as_json(self.seasons)

    def _season(self, _: Request, name: str) -> Response:
        found = [one for one in self.seasons if one["name"] == name]
        return as_json(found[0]) if found else as_json({"detail": f"Season {name} not found"}, 404)

    def _config(self, _: Request, config_id: str) -> Response:
        known = [pool["config_id"] for one in self.seasons for pool in one["pools"]]
        return as_json(self.game) if config_id in known and self.game else as_json({"detail": "Config not found"}, 404)

    def _versions(self, request: Request) -> Response:
        if not self._is_ours(request):
            return as_json({"detail": "Not authenticated"}, 401)
        assert request.args["mine"] == "true"
        name = request.args.get("name_exact")
        found = [one for one in self.versions if name in (None, one["name"])]
        return as_json({"entries": found[::-1], "total_count": len(found)})

    def _memberships(self, request: Request) -> Response:
        return as_json({}) if self._is_ours(request) else as_json({"detail": "Not authenticated"}, 401)

    def _presigned(self, request: Request) -> Response:
        if not self._is_ours(request):
            return as_json({"detail": "Not authenticated"}, 401)
        upload_id = str(uuid.uuid4())
        self._uploads[upload_id] = None
        address = f"{self.url}/storage/{upload_id}?X-Amz-Expires=900&X-Amz-Signature={SIGNATURE}"
        return as_json({"upload_url": address, "upload_id": upload_id})

    def _storage(self, request: Request, upload_id: str) -> Response:
        if request.args.get("X-Amz-Signature") != SIGNATURE or upload_id not in self._uploads:
            return Response("<Error><Message>Request has expired</Message></Error>", 403, content_type="text/xml")
        assert request.content_type == "application/zip", request.content_type
        assert "X-Auth-Token" not in request.headers, "the storage is somebody else's"
        data = request.get_data()
        _check_bundle(data)
        self._uploads[upload_id] = data
        return Response()

    def _complete(self, request: Request) -> Response:
        if not self._is_ours(request):
            return as_json({"detail": "Not authenticated"}, 401)
        sent = request.get_json()
        assert sent.keys() <= {"upload_id", "name", "season"}, sent
        data = self._uploads.pop(sent["upload_id"], None)
        if data is None:
            return as_json({"detail": "Upload not found"}, 404)
        entered = [one for one in self.seasons if one["name"] == sent.get("season")]
        if "season" in sent and not entered:
            return as_json({"detail": f"Season {sent['season']} not found"}, 404)
        self.arrived.append(data)
        version = self.make_version(sent["name"])
        pools = [entered[0]["entry_pool"]] if entered else None
        return as_json({"id": version["id"], "name": version["name"], "version": version["version"], "pools": pools})

    def _is_ours(self, request: Request) -> bool:
        return request.headers.get("X-Auth-Token") == self.token

    def make_version(self, name: str, later: timedelta = timedelta()) -> dict[str, Any]:
        """Counts a version of a name more, as an upload does, also one from elsewhere; it is made that much `later`."""
        number = sum(one["name"] == name for one in self.versions) + 1
        times = {"created_at": (datetime.now(UTC) + later).isoformat(), "policy_created_at": TIME}
        version = {"id": str(uuid.uuid4()), "policy_id": _id_of(name), **times}
        self.versions.append(version | {"user_id": "me", "name": name, "version": number})
        return self.versions[-1]


class _Http(HTTPServer):
    """Answers each request in a thread of its own, and can cut a connection before it has read what is sent."""

    def __init__(self, leaderboard: LeaderboardServer) -> None:
        super().__init__("127.0.0.1", 0, threaded=True)
        self._leaderboard = leaderboard
        self.no_handler_status_code = 404

    def application(self, request: Request) -> Response:
        if self._leaderboard.cuts_early(request):
            self._leaderboard.requests.append(f"{request.method} {request.path}")
            self._leaderboard.planned("storage")
            return cut(self._leaderboard, request)
        return super().application(request)


def season(name: str, compat_version: str | None = "0.8", is_default: bool = False) -> dict[str, Any]:
    """A season as the server describes it, with a pool for newcomers."""
    newcomers = {"name": "qualifying", "description": "For newcomers", "config_id": _id_of(f"{name} newcomers")}
    league = {"name": "league", "description": "For the others", "config_id": _id_of(f"{name} league")}
    return {
        "id": _id_of(name),
        "name": name,
        "version": 1,
        "canonical": True,
        "summary": "A season of the tests",
        "entry_pool": "qualifying",
        "leaderboard_pool": "league",
        "is_default": is_default,
        "compat_version": compat_version,
        "pools": [{"id": _id_of(f"{name} {pool['name']}"), **pool} for pool in (newcomers, league)],
        "status": "in_progress",
        "display_name": name.title(),
        "started_at": TIME,
        "tournament_type": "policy",
        "entrant_count": 0,
        "active_entrant_count": 0,
        "match_count": 0,
        "stage_count": 1,
    }


def as_json(value: Any, status: int = 200) -> Response:
    """An answer of JSON."""
    return Response(json.dumps(value), status, content_type="application/json")


def says(value: Any, status: int = 200) -> Fault:
    """A fault: this JSON with this status."""
    return lambda _, __: as_json(value, status)


def html(status: int = 200) -> Fault:
    """A fault: a page."""
    return lambda _, __: Response("<!doctype html><p>Welcome</p>", status, content_type="text/html")


def xml(message: str, status: int) -> Fault:
    """A fault: what a storage says when it refuses."""
    text = f"<Error><Code>AccessDenied</Code><Message>{message}</Message><Signature>{SIGNATURE}</Signature></Error>"
    return lambda _, __: Response(text, status, content_type="application/xml")


def cut(_: LeaderboardServer, request: Request) -> Response:
    """A fault: the connection is closed without an answer; while it is sent, where it is a bundle."""
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return Response()


def silent(server: LeaderboardServer, request: Request) -> Response:
    """A fault: no answer, on a connection that stays open."""
    server.wait()
    return cut(server, request)


def dripping(server: LeaderboardServer, _: Request) -> Response:
    """A fault: an answer that never ends, a space at a time."""

    def spaces() -> Iterator[bytes]:
        for _ in range(600):
            if server._released.is_set():
                return
            yield b" "
            time.sleep(0.05)

    return Response(spaces(), content_type="application/json")


def _id_of(name: str) -> str:
    return str(uuid.UUID(bytes=hashlib.md5(name.encode()).digest()))


def _check_bundle(data: bytes) -> None:
    """Fails where the bytes are no bundle that has what it names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        spec = json.loads(archive.read("policy_spec.json"))
    module = spec["class_path"].rpartition(".")[0]
    assert module.startswith(("cogames.", "mettagrid.")) or f"{module.replace('.', '/')}.py" in names, spec
    assert spec["data_path"] is None or spec["data_path"] in names, spec
