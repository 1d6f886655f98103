"""What the report reads of runs and evaluations, and what it makes of them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_helpers import only_run, only_section, row, rows, write_evaluation, write_run

from scout.config import MissionConfig
from scout.errors import ScoutError
from scout.files import RETURN
from scout.references import Reference
from scout.report.content import runs_csv
from scout.report.runs import read, read_metrics
from scout.report.sections import sections_of, written

# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_real_run_is_read(finished_run: Path) -> None:
    """What training left behind: its state, every update, their seconds, and the memory."""
    run = only_run(finished_run)
    assert (run.name, run.state, run.left_out) == ("finished", "finished", 0)
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert list(run.steps) == [line["agent_steps"] for line in lines]
    assert run.has(RETURN) == any(RETURN in line for line in lines)
    assert run.minutes[-1] > 0
    assert run.memory > 100


@pytest.mark.parametrize(
    "damage",
    [
        b'{"agent_steps": 400, "upd',
        b"\x00\xff\xfe garbage\n",
        b"[1, 2]\n",
        b"\n",
        b'{"update": 4}\n',
        b'{"agent_steps": "400"}\n',
        b'{"agent_steps": 300, "update": 3}\n',
        b"[" * 100_000,
    ],
    ids=["cut off", "no text", "no object", "empty", "no steps", "steps as text", "steps that go back", "very deep"],
)
def test_a_damaged_line_is_left_out_and_counted(tmp_path: Path, damage: bytes) -> None:
    """The good lines are used, whatever stands after them."""
    path = write_run(tmp_path / "run", rows([1, 2, 3])) / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + damage)
    metrics, left_out = read_metrics(path)
    assert left_out == 1
    assert list(metrics["agent_steps"]) == [100, 200, 300]


def test_lines_after_a_damaged_one_are_used(tmp_path: Path) -> None:
    """A damaged line costs itself alone; values that are no finite numbers are missing ones."""
    path = tmp_path / "metrics.jsonl"
    lines = [
        json.dumps(row(1)),
        "{",
        json.dumps(row(2, episode_return=float("inf"))),
        json.dumps(row(3) | {RETURN: None}),
    ]
    path.write_text("\n".join(lines))
    metrics, left_out = read_metrics(path)
    assert left_out == 1
    assert list(metrics["agent_steps"]) == [100, 200, 300]
    assert np.isnan(metrics[RETURN]).all()


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    """A status that says running, of a run that no process trains, is not believed."""
    assert only_run(write_run(tmp_path / "run", rows([1]), state="running")).state == "killed"


def test_a_run_that_is_being_trained_runs(tmp_path: Path) -> None:
    """While another process holds the run's lock, it is running."""
    folder = write_run(tmp_path / "run", rows([1]), state="running")
    lock = f"import fcntl; f = open({str(folder / 'metrics.jsonl')!r}, 'a'); fcntl.lockf(f, fcntl.LOCK_EX)"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{lock}; print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert only_run(folder).state == "running"
        holder.communicate(b"\n")


def test_a_failed_run_has_its_reason(tmp_path: Path) -> None:
    """State and reason are those of status.json."""
    run = only_run(write_run(tmp_path / "run", [], state="failed", reason="losses/value_loss=nan"))
    assert (run.state, run.reason) == ("failed", "losses/value_loss=nan")


def test_runs_are_found_at_any_depth_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Names are paths from what all have in common; checkpoints/ and wandb/ are not searched."""
    for name in ("sweep/10", "sweep/2", "other/deep/run"):
        write_run(tmp_path / name, [])
    write_run(tmp_path / "sweep/2/wandb/not", [])
    write_run(tmp_path / "sweep/2/checkpoints/not", [])
    assert [run.name for run in read([tmp_path]).runs] == ["other/deep/run", "sweep/2", "sweep/10"]


def test_a_folder_that_is_given_twice_is_read_once(tmp_path: Path) -> None:
    """A run counts once, also when a folder above it is given as well."""
    folder = write_run(tmp_path / "run", [])
    assert len(read([tmp_path, folder, folder / ".." / "run"]).runs) == 1


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A config of another version and episodes of another kind are left out, with what is wrong."""
    write_run(tmp_path / "good", rows([1]))
    config = write_run(tmp_path / "old", rows([1])) / "config.yaml"
    config.write_text(config.read_text() + "learning: 3\n")
    (write_evaluation(tmp_path / "judged", {"random": [1]}) / "episodes.json").write_text('[{"policy": "random"}]')
    found = read([tmp_path])
    assert [run.name for run in found.runs] == ["good"]
    assert set(found.unreadable) == {"old", "judged"}
    assert "learning=3 is not a key" in found.unreadable["old"]
    assert "a policy and a return" in found.unreadable["judged"]


@pytest.mark.parametrize(
    ("name", "problem"), [("nowhere", "does not exist"), ("file", "is a file"), ("empty", "has no")]
)
def test_a_path_without_runs_is_one_message(tmp_path: Path, name: str, problem: str) -> None:
    """The message names the path and what was expected."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ScoutError, match=rf"{name} {problem}.*expected run folders"):
        read([tmp_path / name])


# -- wall time and final values ----------------------------------------------------------------------------------------


def test_wall_time_is_that_of_rollouts_updates_and_evaluations(tmp_path: Path) -> None:
    """Two updates of 2 seconds each, and an evaluation of 56 in the second."""
    run = only_run(write_run(tmp_path / "run", [row(1), row(2, evaluation_seconds=56), row(3)]))
    assert list(run.minutes) == pytest.approx([2 / 60, 1, 62 / 60])


def test_the_final_training_return_is_that_of_the_last_tenth_of_the_episodes(tmp_path: Path) -> None:
    """Of 19 episodes the last 2 count, one of which ended in an update together with others."""
    metrics = [
        row(1, episode_return=0, episodes=15),
        row(2, episode_return=4, episodes=3),
        row(3, episode_return=7),
        row(4),
    ]
    assert only_run(write_run(tmp_path / "run", metrics)).final(held_out=False) == pytest.approx((4 + 7) / 2)


def test_the_final_held_out_return_is_the_last_and_the_best_the_highest(tmp_path: Path) -> None:
    """Evaluations of 3, 9 and 5."""
    run = only_run(write_run(tmp_path / "run", [row(1, held_out=3), row(2, held_out=9), row(3, held_out=5), row(4)]))
    assert (run.final(held_out=True), run.best) == (5, 9)


@pytest.mark.parametrize(
    ("other", "held_out", "final"),
    [
        ({"metrics": rows([2, 2])}, False, 4),
        ({"metrics": [row(1, held_out=8)]}, True, 7),
        ({"metrics": rows([2, 2]), "state": "failed"}, True, 7),
        ({"metrics": []}, True, 7),
    ],
    ids=["not evaluated", "evaluated", "failed before", "without returns"],
)
def test_final_returns_of_a_mission_are_of_one_kind(tmp_path: Path, other: dict, held_out: bool, final: float) -> None:
    """They are held-out ones where every finished run with returns has one, and else training's for all."""
    write_run(tmp_path / "a", [row(1, episode_return=4, held_out=7)])
    write_run(tmp_path / "b", **other, optimizer={"learning_rate": 0.5})
    section = only_section(tmp_path)
    assert section.held_out == held_out
    (group,) = [group for group in section.groups if group.runs[0].name == "a"]
    assert group.finals == [final]


def test_means_are_of_finished_runs_where_there_are_any(tmp_path: Path) -> None:
    """A run that failed early does not count beside one that finished; alone it does."""
    write_run(tmp_path / "a", rows([10]))
    write_run(tmp_path / "b", rows([2]), seed=2, state="failed")
    write_run(tmp_path / "c", rows([3]), state="failed", optimizer={"learning_rate": 0.5})
    assert [group.mean for group in only_section(tmp_path).groups] == [10, 3]


# -- groups and missions -----------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    """The names of the groups below the folder, in alphabetical order."""
    return sorted(group.name for group in only_section(folder).groups)


def test_runs_that_differ_in_seed_and_logging_are_one_group(tmp_path: Path) -> None:
    """Nothing that is without effect on the result sets runs apart."""
    write_run(tmp_path / "a", [])
    without_effect = {"seed": 2, "log_interval": 1.0, "wandb": {"tags": ["x"]}, "checkpoint": {"keep": 9}}
    write_run(tmp_path / "b", [], **without_effect, device={"threads": 1}, evaluation={"every": None})
    (group,) = only_section(tmp_path).groups
    assert [run.name for run in group.runs] == ["a", "b"]


def test_a_group_is_called_by_what_sets_it_apart(tmp_path: Path) -> None:
    """Keys that differ are named in full, those that do not are not named."""
    for number, (rate, clip) in enumerate([(0.001, 0.1), (0.001, 0.2), (1e-5, 0.1)]):
        write_run(tmp_path / str(number), [], optimizer={"learning_rate": rate}, trainer={"clip_coef": clip})
    assert names(tmp_path) == [
        "trainer.clip_coef=0.1 optimizer.learning_rate=0.001",
        "trainer.clip_coef=0.1 optimizer.learning_rate=1e-05",
        "trainer.clip_coef=0.2 optimizer.learning_rate=0.001",
    ]


def test_configs_that_look_alike_are_one_group(tmp_path: Path) -> None:
    """A difference beyond the sixth digit, which no name shows, makes no group of its own."""
    for number, rate in enumerate((0.1 + 0.2, 0.3, 0.300001)):
        write_run(tmp_path / str(number), [], optimizer={"learning_rate": rate})
    assert names(tmp_path) == ["optimizer.learning_rate=0.3", "optimizer.learning_rate=0.300001"]


def test_a_group_with_another_network_is_called_by_its_name_alone(tmp_path: Path) -> None:
    """Keys that only one network has are not named, but those in which two runs of one network differ are."""
    write_run(tmp_path / "0", [])
    write_run(tmp_path / "1", [], model={"name": "conv", "hidden_size": 8})
    write_run(tmp_path / "2", [], model={"name": "conv", "hidden_size": 16})
    assert names(tmp_path) == [
        "model=cnn_lstm model.hidden_size=16",
        *(f"model=conv model.hidden_size={n}" for n in (16, 8)),
    ]
    assert "model.embedding_size" in only_section(tmp_path).differing


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0001, "0.0001"), (0.123456789, "0.123457"), (None, "null"), (True, "true"), ([1, 2], "[1,2]")],
)
def test_values_are_written_as_one_types_them(value: object, text: str) -> None:
    """Numbers with six digits, everything else whole."""
    assert written(value) == text


def test_runs_of_two_missions_are_two_sections(tmp_path: Path) -> None:
    """Missions that differ in their name alone are one; where names are alike, titles say what differs."""
    write_run(tmp_path / "0", [])
    write_run(tmp_path / "1", [], mission={"name": "another name"})
    write_run(tmp_path / "2", [], mission={"max_steps": 30})
    sections = sections_of(read([tmp_path]))
    assert [len(section.groups[0].runs) for section in sections] == [2, 1]
    assert [section.title for section in sections] == ["scout_tutorial max_steps=25", "scout_tutorial max_steps=30"]


def test_the_table_of_runs_has_a_row_each(tmp_path: Path) -> None:
    """Numbers are whole, and what is not known is empty."""
    write_run(tmp_path / "a", [row(1, held_out=3.25), row(2)], seed=7)
    write_run(tmp_path / "b", [], state="failed", optimizer={"learning_rate": 0.5})
    head, *lines = runs_csv(sections_of(read([tmp_path])))
    assert head[:5] == ["name", "mission", "group", "seed", "state"]
    group = "optimizer.learning_rate="
    assert lines == [
        [
            "a",
            "scout_tutorial",
            f"{group}0.00092",
            "7",
            "finished",
            "200",
            "3.25",
            "held-out episodes",
            "3.25",
            "0.06666666667",
            "50",
        ],
        ["b", "scout_tutorial", f"{group}0.5", "1", "failed", "0", "", "held-out episodes", "", "0", ""],
    ]


def test_copies_of_one_seed_are_one_run_in_means(tmp_path: Path) -> None:
    """Of two runs with the same seed the last counts, so that an interval is over seeds."""
    for name, seed, value in (("a", 1, 9.0), ("b", 1, 3.0), ("c", 2, 5.0)):
        write_run(tmp_path / name, [row(1, held_out=value)], seed=seed)
    (group,) = only_section(tmp_path).groups
    assert (len(group.runs), group.finals) == (3, [3.0, 5.0])


# -- evaluations -------------------------------------------------------------------------------------------------------


def test_baselines_that_were_judged_are_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They replace what is known of the mission from no more episodes; a network's evaluation is none."""
    known = {name: Reference(mean=1, low=0, high=2, episodes=2) for name in ("random", "walker")}
    known["noop"] = Reference(mean=0, low=0, high=0, episodes=40)
    monkeypatch.setattr("scout.report.sections.references", lambda mission: known)
    run = write_run(tmp_path / "run", [])
    mission = MissionConfig(max_steps=25).model_dump()
    policies = {"random": [4, 6], "cogames/starter": [2, 2], "noop": [3, 3], str(run): [9, 9]}
    write_evaluation(tmp_path / "judged", policies, policies=[*policies], mission=mission)
    references = only_section(tmp_path).references
    assert {name: reference.mean for name, reference in references.items()} == {
        "random": 5,
        "walker": 1,
        "cogames/starter": 2,
        "noop": 0,
    }
    assert references["random"].episodes == 2


def test_an_evaluation_says_which_mission_was_played(judge: Callable[..., Any]) -> None:
    """What evaluate.py leaves behind names the whole mission and its baselines; a folder without a config does not."""
    folder = judge(policy="noop", mission={"max_steps": 20, "heart_limit": 4}).folder
    (evaluation,) = read([folder]).evaluations
    assert evaluation.mission == MissionConfig(max_steps=20, heart_limit=4)
    assert (list(evaluation.returns), evaluation.baselines) == (["noop"], {"noop"})
    (folder / "config.yaml").unlink()
    assert read([folder]).evaluations[0].mission is None
