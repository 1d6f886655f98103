"""What the tests of uploads send, read and compare."""

import hashlib
import json
import traceback
import zipfile
from pathlib import Path
from typing import Any

import pytest
from leaderboard_server import SIGNATURE, TOKEN, LeaderboardServer

from scout.errors import ScoutError
from scout.submission.bundle import Bundle
from scout.submission.journal import JOURNAL
from scout.submission.upload import Answer, Leaderboard
from scout.submit_config import SubmitConfig

NAME = "my-scout"
PRESIGNED, COMPLETE = "POST /stats/policies/submit/presigned-url", "POST /stats/policies/submit/complete"
SEASON_QUESTIONS = ["GET /tournament/seasons", "GET /tournament/seasons/open-league", "GET /stats/policy-versions"]
NOT_A_LEADERBOARD = ("server=", "is not the leaderboard that cogames 0.8.1 knows", "has no command line any more")
SURE, LOST = "failed", "unknown"


def bundle_in(path: Path, weights: bytes) -> Bundle:
    """A bundle as small as there can be one."""
    spec = {"class_path": "scout.policy.ScoutPolicy", "data_path": "network.pt", "init_kwargs": {}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy_spec.json", json.dumps(spec))
        archive.writestr("scout/policy.py", "class ScoutPolicy: ...")
        archive.writestr("network.pt", weights)
    data = path.read_bytes()
    return Bundle(path, spec["class_path"], hashlib.sha256(data).hexdigest(), len(data))


def board_of(server: LeaderboardServer, /, **changes: Any) -> Leaderboard:
    """The leaderboard of a submission with some keys changed."""
    values = {"checkpoint": "RUN_DIR", "name": NAME, "server": server.url, "login_server": server.login_url}
    return Leaderboard(SubmitConfig.model_validate(values | changes))


def send(server: LeaderboardServer, bundle: Bundle, folder: Path, **changes: Any) -> Answer:
    """What a submission does with a bundle that is proven."""
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
    """Fails where a text has the token, or the signature of the storage's address."""
    assert TOKEN not in text
    assert SIGNATURE not in text


def assert_says(message: str, *words: str) -> None:
    """Fails where a message lacks one of these."""
    assert [word for word in words if word not in message] == [], message


def states(folder: Path) -> list[str]:
    """What the journal says of each step."""
    return [record["state"] for record in records(folder)]


def records(folder: Path) -> list[dict[str, Any]]:
    """The journal."""
    return [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
