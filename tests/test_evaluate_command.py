"""`python evaluate.py` from outside: what it leaves behind, and what it does when stopped or asked for nonsense."""

import csv
import json
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, run_script, wait_until
from PIL import Image

from scout.errors import ScoutError
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig

LONG = ["policy=random", "+mission.max_steps=1000000", "episodes=2"]


@pytest.fixture(scope="module")
def judged(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of two policies, with everything that can be asked for, W&B included."""
    folder = tmp_path_factory.mktemp("judged")
    config = EvaluationConfig.model_validate(
        {
            "policies": [str(finished_run), "random"],
            "episodes": 3,
            "episode": 2,
            "processes": 2,
            "film": str(folder / "film.gif"),
            "replay": str(folder / "replay.json.z"),
            "heatmap": str(folder / "heatmap.png"),
            "wandb": {"mode": "offline"},
        }
    )
    evaluate(config, folder / "out")
    return folder


def test_the_csv_is_the_json(judged: Path) -> None:
    """episodes.csv has a row for each object of episodes.json, with the same values but for single agents' returns."""
    episodes = json.loads((judged / "out/episodes.json").read_text())
    with (judged / "out/episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(episodes) == 6
    assert rows == [{key: str(value) for key, value in one.items() if key != "agent_returns"} for one in episodes]


def test_the_summary_has_the_tables(judged: Path, finished_run: Path) -> None:
    """summary.json has a standing for each policy and the first one's comparison with the other, by hand."""
    episodes = json.loads((judged / "out/episodes.json").read_text())
    ours, theirs = (np.array([episode["return"] for episode in part]) for part in (episodes[:3], episodes[3:]))
    summary = json.loads((judged / "out/summary.json").read_text())
    assert [(row["policy"], row["mean"]) for row in summary["standings"]] == [
        (str(finished_run), pytest.approx(ours.mean())),
        ("random", pytest.approx(theirs.mean())),
    ]
    (comparison,) = summary["comparisons"]
    assert comparison["difference"] == pytest.approx((ours - theirs).mean())
    assert comparison["probability"] == pytest.approx(np.mean((ours > theirs) + 0.5 * (ours == theirs)))


def test_the_pictures_are_of_the_episode_that_was_chosen(judged: Path) -> None:
    """The replay ends with the returns of the first policy's episode 2, and the film has a frame for each step."""
    replay = json.loads(zlib.decompress((judged / "replay.json.z").read_bytes()))
    episode = json.loads((judged / "out/episodes.json").read_text())[2]
    agents = [thing for thing in replay["objects"] if "agent_id" in thing]
    totals = {agent["agent_id"]: agent["total_reward"] for agent in agents}
    last = [value[-1][1] if isinstance(value, list) else value for _, value in sorted(totals.items())]
    assert last == pytest.approx(episode["agent_returns"], abs=1e-4)
    with Image.open(judged / "film.gif") as film:
        assert getattr(film, "n_frames", 0) == 26
    with Image.open(judged / "heatmap.png") as picture:
        assert picture.width > 500


def test_wandb_gets_tables_film_and_picture(judged: Path) -> None:
    """The offline files of W&B hold the three tables, the film and the heat map."""
    (folder,) = (judged / "out/wandb").glob("offline-run-*")
    media = sorted(path.relative_to(folder / "files/media").parts[0] for path in (folder / "files/media").rglob("*.*"))
    assert media == ["images", "table", "table", "table", "videos"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_evaluation_leaves_nothing_behind(number: int, code: int, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end its processes, and half a film is removed."""
    command = [
        sys.executable,
        "evaluate.py",
        *LONG,
        f"film={tmp_path / 'film.mp4'}",
        f"hydra.run.dir={tmp_path / 'out'}",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: any(path.stat().st_size > 0 for path in tmp_path.glob(".*")))
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert b"Traceback" not in (process.stderr.read() if process.stderr else b"")


def test_no_process_outlives_a_killed_evaluation(tmp_path: Path) -> None:
    """After kill -9 of the command its players end by themselves."""
    command = [sys.executable, "evaluate.py", *LONG, "processes=2", f"hydra.run.dir={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family = psutil.Process(process.pid)
    wait_until(lambda: len(family.children()) == 2)
    players = family.children()
    process.kill()
    process.wait()
    wait_until(lambda: not any(player.is_running() for player in players), seconds=20)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("greedy=maybe", "greedy=maybe is not valid: expected one of False, True or 'both'"),
        ("episode=5", "episode=5 has no effect without render, film or replay"),
        ("checkpoint=a[b]", "checkpoint=a[b] cannot be read: a value with one of"),
    ],
)
def test_nonsense_is_one_message(argument: str, message: str, tmp_path: Path) -> None:
    """What cannot be meant is answered by a message that says what was expected, exit code 1, and no traceback."""
    done = run_script("evaluate.py", "policy=random", argument, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"policy": "random", "greedy": True}, "greedy=true has no effect on random: leave it out"),
        ({"policy": "random", "film": "out.avi"}, r"film=out\.avi has an unknown ending: expected \.mp4 or \.gif"),
        ({"policy": "random", "heatmap": "out.jpg"}, r"heatmap=out\.jpg has an unknown ending: expected \.png"),
        ({"policy": "random", "film": f"{'x' * 300}.mp4"}, r"cannot be written \(File name too long\)"),
        ({"checkpoint": "x" * 300}, r"cannot be looked for \(File name too long\)"),
        ({"policies": ["x" * 300]}, "is neither a baseline nor a run folder"),
    ],
)
def test_what_cannot_be_done_is_an_error_before_anything_is_played(
    asked: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is played or written, and the message says what was expected."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScoutError, match=message):
        evaluate(EvaluationConfig(**asked), tmp_path / "out")
    assert not list(tmp_path.rglob("*.*"))
