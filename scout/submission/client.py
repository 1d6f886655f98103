"""cogames' client for the leaderboard's server, made safe: it ends in time, says nothing, and gives no secret away."""

import contextlib
import json
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import quote, unquote

import cogames.cli.base
import cogames.cli.compat
import httpx
from cogames.cli.client import PolicyVersionInfo, TournamentServerClient
from cogames.cli.login import DEFAULT_COGAMES_SERVER
from cogames.cli.submit import DEFAULT_SUBMIT_SERVER
from pydantic import TypeAdapter, ValidationError

from scout.errors import ScoutError

PRESIGNED, COMPLETE = "/stats/policies/submit/presigned-url", "/stats/policies/submit/complete"
STORING = "the upload to its storage"
# How long each request may take as a whole. cogames waits as long for any single sign of life.
ANSWER_SECONDS, STORAGE_SECONDS, COMPLETE_SECONDS = 30.0, 600.0, 120.0
MOST_VERSIONS = 100  # cogames asks for no more, and which ones the server then leaves out is not known
LONGEST = 300  # characters of what a server says that are shown


@dataclass(frozen=True)
class Failure:
    """Why a request came to nothing."""

    step: str
    """Which one: its method and path, or `STORING`."""
    said: str
    """The reason, on one line and without secrets."""
    status: int | None = None
    """HTTP status of an answer that is a refusal."""
    gone: bool = False
    """Whether there was no answer at all."""
    undone: bool = False
    """Whether the server has surely not done what it was asked for."""


class _Late(Exception):
    """The time of a request is over. No OSError, of which httpcore would make something else."""


class _Mission(TypedDict):
    """What every mission's config has; the rest is for others to check."""

    game: dict[str, Any]


class Client(TournamentServerClient):
    """cogames' client. It knows which request it is at, and how long that may take."""

    step = ""
    _seconds = 0.0

    def __init__(self, server_url: str, token: str | None = None, login_server: str | None = None) -> None:
        super().__init__(server_url, token, login_server)
        self._secrets = {token, quote(token, safe="")} if token else set()
        self._timed = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers

    def attempt[T](self, request: Callable[[], T]) -> T | Failure:
        """What a request returns, or why it failed.

        No exception is handed on, not even as the context of another one: in their texts are addresses with signatures.
        """
        try:
            try:
                return request()
            finally:
                self._begin(self.step, 0)  # before anything else is done, since until then `_Late` may come
        except Exception as error:
            return self._failure(error)

    def versions(self, name: str) -> list[PolicyVersionInfo]:
        """All of our versions of a name."""
        found = self.get_my_policy_versions(name=name)
        if len(found) >= MOST_VERSIONS:
            raise ValueError(f"{len(found)} or more, too many to tell")
        return found

    def mission(self, config_id: str) -> dict[str, Any]:
        """The config of a mission."""
        found = self.get_config(config_id)
        TypeAdapter(_Mission).validate_python(found)
        return found

    def cleaned(self, text: str) -> str:
        """A text on one line and not too long, without the token and the signatures of addresses."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "[secret]")
        text = " ".join(re.sub(r"(https?://[^\s?'\"<>]*)\?[^\s'\"<>]*", r"\1?[secret]", text).split())
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."

    def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """Each of cogames' requests but the one to the storage, which comes right after that for its address."""
        self._begin(f"{method} {path}", COMPLETE_SECONDS if path == COMPLETE else ANSWER_SECONDS)
        answer = super()._request(method, path, *args, **options)
        if path == PRESIGNED:
            place = answer.get("upload_url") if isinstance(answer, dict) else None
            if not place or not isinstance(place, str) or not answer.get("upload_id"):
                raise ValueError("no upload_url and upload_id")
            query = place.partition("?")[2]
            values = [part.partition("=")[2] for part in query.split("&")]
            self._secrets |= {value for value in (query, *values, *map(unquote, values)) if len(value) > 5}
            self._begin(STORING, STORAGE_SECONDS)
        elif path == COMPLETE and not isinstance(answer, dict):
            raise ValueError("no object")
        return answer

    def _begin(self, step: str, seconds: float) -> None:
        """Gives what comes next its name, and a time after which it ends with `_Late`; 0 is no such time."""
        self.step, self._seconds = step, seconds or self._seconds
        if self._timed:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _failure(self, error: Exception) -> Failure:
        match error:
            case httpx.HTTPStatusError(response=response):
                status = response.status_code
                said = f"{status} {response.reason_phrase}: {_detail(response)}".removesuffix(": ")
                return Failure(self.step, self.cleaned(said), status, undone=status < 500)
            case _Late() | httpx.TimeoutException():
                undone = isinstance(error, httpx.ConnectTimeout)
                return Failure(self.step, f"no answer within {self._seconds:g} s", gone=True, undone=undone)
            case httpx.TransportError():
                said = self.cleaned(str(error)).rstrip(".") or type(error).__name__
                return Failure(self.step, said, gone=True, undone=isinstance(error, httpx.ConnectError))
            case json.JSONDecodeError() | UnicodeDecodeError():
                return Failure(self.step, "something that is no JSON")
            case ValidationError():
                first = error.errors(include_url=False, include_input=False)[0]
                said = ": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": ")
                return Failure(self.step, self.cleaned(f"JSON of another kind ({said})"))
        return Failure(self.step, self.cleaned(f"{type(error).__name__}: {error}".removeprefix("ValueError: ")))


@contextlib.contextmanager
def connected(server: str, login_server: str) -> Iterator[Client]:
    """A client with the token of a login server; while it is open cogames and httpx say nothing.

    Raises ScoutError where there is no token, and for an address that is none.
    """
    with contextlib.ExitStack() as stack:
        for console in (cogames.cli.base.console, cogames.cli.compat.console):
            stack.callback(setattr, console, "quiet", console.quiet)
            console.quiet = True
        for name in ("httpx", "httpcore"):  # they log every address, and with it the signature of the storage's
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.WARNING)
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGALRM, _ring)
            stack.callback(signal.signal, signal.SIGALRM, before or signal.SIG_DFL)
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
        try:
            client = Client.from_login(server_url=server, login_server=login_server)
        except Exception as error:
            raise ScoutError(
                f"server={server} cannot be asked ({error}): look at the address, and at ~/.metta, where cogames keeps "
                "its tokens"
            ) from None
        if not isinstance(client, Client) or not re.fullmatch("[!-~]+", str(client._token)):
            raise ScoutError(
                f"login_server={login_server} has no token in ~/.metta/cogames.yaml, so nobody is logged in: call "
                f"`cogames login{options_for(login_server)}` first"
            )
        yield stack.enter_context(client)


def options_for(login_server: str, server: str = DEFAULT_SUBMIT_SERVER) -> str:
    """The options that lead a command of cogames to these servers; none for its own."""
    options = f" --server {server}" if server != DEFAULT_SUBMIT_SERVER else ""
    return options + (f" --login-server {login_server}" if login_server != DEFAULT_COGAMES_SERVER else "")


def _ring(_: int, __: Any) -> None:
    raise _Late


def _detail(response: httpx.Response) -> str:
    """What a refusal says for itself: FastAPI's detail, a storage's message, or plain text; no page of HTML."""
    try:
        found = response.json()
    except (ValueError, RecursionError):
        message = re.search(r"<Message>(.*?)</Message>", response.text, re.DOTALL)
        return message[1] if message else "" if "<" in response.text else response.text
    found = found.get("detail", found) if isinstance(found, dict) else found
    if isinstance(found, list):
        found = "; ".join(str(one.get("msg", one)) if isinstance(one, dict) else str(one) for one in found)
    return found if isinstance(found, str) else json.dumps(found)
