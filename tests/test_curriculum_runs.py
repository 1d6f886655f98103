"""Runs over missions in turn: what they tell of each mission, and where their report has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from config_helpers import nested
from conftest import merge, tiny_experiment
from curriculum_helpers import NAMES, in_turn, three
from evaluation_helpers import network_of
from ppo_helpers import trainer_of
from report_helpers import only_section, row, write_evaluation, write_run

from scout.checkpoint import read_checkpoint
from scout.config import MissionConfig
from scout.environment import held_out_map_seed
from scout.policies import NetworkPolicy
from scout.report.content import section_parts
from scout.report.pictures import missions_picture
from scout.report.runs import read
from scout.report.sections import sections_of
from scout.rollout import play
from scout.statistics import bootstrap_interval
from scout.training import episode_statistics, train

RETURN, HELD_OUT = "environment/episode_return", "evaluation/return"


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_each_missions_episodes_have_a_mean_of_their_own() -> None:
    """By hand: of six episodes one was cut short; 4 and 6 are the first mission's, 1 and 3 the second's, 7 the third's.

    The mean over all whole episodes is 21 / 5; the statistics are over all six.
    """
    episodes = {
        "attributes/steps": [4, 10, 10, 10, 10, 10],
        "mission": [2, 0, 1, 1, 0, 2],
        "return": [99.0, 4.0, 1.0, 3.0, 6.0, 7.0],
        "per_label_rewards/first": [0.0] * 5,
        "agent/death": [1.0, 2.0],
    }
    assert episode_statistics(episodes, 10, ["first", "second", "third"]) == {
        "episodes": 6.0,
        "episode_return": 4.2,
        "episode_return/first": 5.0,
        "episode_return/second": 2.0,
        "episode_return/third": 7.0,
        "agent/death": 0.5,
    }


def test_a_mission_without_a_whole_episode_has_no_mean() -> None:
    """Neither one whose only episode was cut short, nor one that was not played."""
    episodes = {"attributes/steps": [10, 3], "mission": [0, 1], "return": [4.0, 9.0]}
    assert episode_statistics(episodes, 10, ["first", "second", "third"]) == {
        "episodes": 2.0,
        "episode_return": 4.0,
        "episode_return/first": 4.0,
    }


def test_a_runs_environments_play_by_its_own_turns() -> None:
    """As stages of two episodes: in a rollout of four episodes of each of four environments, two of either mission."""
    turns = in_turn(max_steps=3, episodes=2, stagger=False)
    trainer = trainer_of(tiny_experiment(**turns, vecenv={"early_reset": False}))
    told = trainer.evaluate()["mission"]
    trainer.close()
    assert told == [0] * 8 + [1] * 8


@pytest.fixture(scope="module")
def run_of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over three missions, long enough for whole episodes of each, and judged at its end."""
    judged = {"every": 10**6, "episodes": 2}
    experiment = tiny_experiment(**in_turn(), total_timesteps=6 * 256, evaluation=judged)
    return train(experiment, tmp_path_factory.mktemp("runs") / "three").run_dir


def test_training_tells_the_return_of_each_mission(run_of_three: Path) -> None:
    """Where whole episodes ended, there is the mean of each of their missions: more than 0 but for the unpaid one."""
    told: dict[str, list[float]] = {name: [] for name in NAMES}
    for line in lines_of(run_of_three):
        found = {key.rpartition("/")[2]: line[key] for key in line if key.startswith(f"{RETURN}/")}
        assert found.keys() <= set(NAMES)
        assert bool(found) == (RETURN in line)
        if found:
            assert min(found.values()) <= line[RETURN] <= max(found.values())
        for name, value in found.items():
            told[name].append(value)
    assert all(told.values())
    assert set(told["unpaid"]) == {0.0}
    assert min(told["scout_tutorial"] + told["large"]) > 0


def test_a_run_is_judged_by_the_mean_over_its_missions(run_of_three: Path) -> None:
    """The final network's episodes of each mission, played by hand, give its mean, and the mean of these the run's.

    The interval is that of the means over the missions: an episode's number has the same held-out map seed in each.
    """
    network = network_of(0)
    network.load_state_dict(read_checkpoint(run_of_three / "checkpoints/000006.pt")["model"])
    policy, (_, games) = NetworkPolicy("", network, "cpu", False), three()
    episodes = [play(policy, game, 0, range(2), map_seed=held_out_map_seed) for game in games]
    returns = np.array([[episode.record["return"] for episode in of_mission] for of_mission in episodes])
    line = lines_of(run_of_three)[-1]
    for name, of_mission in zip(NAMES, returns, strict=True):
        assert line[f"{HELD_OUT}/{name}"] == pytest.approx(of_mission.mean())
    assert returns[2].max() == 0 < returns[:2].min()
    assert line[HELD_OUT] == line["evaluation/best_return"] == pytest.approx(returns.mean())
    interval = bootstrap_interval([float(value) for value in returns.mean(axis=0)])
    assert (line["evaluation/interval_low"], line["evaluation/interval_high"]) == pytest.approx(interval)
    seen = [episode.record["cells_seen"] for of_mission in episodes for episode in of_mission]
    assert line["evaluation/cells_seen"] == pytest.approx(np.mean(seen))
    assert read_checkpoint(run_of_three / "checkpoints/best.pt")["evaluation_return"] == line[HELD_OUT]


def test_a_run_of_one_mission_has_no_keys_of_missions(train_tiny: Callable[..., Path]) -> None:
    """Neither of training's episodes nor of evaluations."""
    lines = lines_of(train_tiny(mission={"max_steps": 10}, evaluation={"every": 256, "episodes": 1}))
    assert RETURN in lines[-1]
    assert HELD_OUT in lines[-1]
    assert [key for line in lines for key in line if key.startswith((f"{RETURN}/", f"{HELD_OUT}/"))] == []


# -- report ------------------------------------------------------------------------------------------------------------


def test_runs_over_the_same_missions_are_a_section(tmp_path: Path) -> None:
    """Apart from runs of the first mission alone, titled by all missions, and without a baseline's line.

    The reference lines and the evaluations of that mission stay with the runs of it alone.
    """
    whole = MissionConfig().model_dump()
    curriculum = {**in_turn(1000), "mission": whole}
    write_run(tmp_path / "alone", [], mission=whole)
    write_run(tmp_path / "one", [], **curriculum)
    write_run(tmp_path / "two", [], **curriculum, seed=2)
    write_evaluation(tmp_path / "judged", {"random": [1, 2]}, policies=["random"], mission=whole)
    in_turns, alone = sections_of(read([tmp_path]))
    assert (in_turns.title, alone.title) == ("scout_tutorial, large, unpaid", "scout_tutorial")
    assert [[run.name for run in group.runs] for group in in_turns.groups] == [["one", "two"]]
    assert (in_turns.references, in_turns.evaluations) == ({}, [])
    assert "random" in alone.references
    assert len(alone.evaluations) == 1
    text = "".join(section_parts(in_turns, 1, tmp_path))
    assert "cogsguard_arena, 4 agents, 1,000 steps; cogsguard_machina_1, 4 agents, 1,000 steps." in text
    assert "The missions are played in turn, and a return is the mean over them." in text
    assert "in turn" not in "".join(section_parts(alone, 2, tmp_path))


@pytest.mark.parametrize(("metric", "held_out"), [(RETURN, False), (HELD_OUT, True)])
def test_each_mission_has_a_panel_with_its_returns(metric: str, held_out: bool, tmp_path: Path) -> None:
    """Updates at 100 and 1,000 agent steps, in the first and the last of five bins: a straight line between."""
    logged = {f"{metric}/{name}": 10.0 * number for number, name in enumerate(NAMES)}
    first, last = {metric: 1.0, **logged}, {metric: 2.0, **{key: value + 4 for key, value in logged.items()}}
    write_run(tmp_path / "one", [row(1, **first), row(10, **last)], **in_turn())
    (section,) = sections_of(read([tmp_path]))
    assert section.held_out == held_out
    figure = missions_picture(section)
    assert figure is not None
    lines = {axes.get_title(loc="left"): np.asarray(axes.lines[0].get_ydata()) for axes in figure.axes}
    assert {name: line.tolist() for name, line in lines.items()} == {
        name: [10 * number + add for add in range(5)] for number, name in enumerate(NAMES)
    }


def test_a_single_mission_has_no_panels(tmp_path: Path) -> None:
    """Its return is in the picture of all."""
    write_run(tmp_path / "one", [row(1, **{HELD_OUT: 1.0})])
    assert missions_picture(only_section(tmp_path)) is None


def test_other_turns_are_another_group_of_the_section(tmp_path: Path) -> None:
    """Runs that play the same missions otherwise are told apart by that."""
    write_run(tmp_path / "mixed", [], **in_turn())
    write_run(tmp_path / "stages", [], **in_turn(episodes=3, stagger=False))
    (section,) = sections_of(read([tmp_path]))
    assert sorted(group.name for group in section.groups) == [
        "curriculum.episodes=1 curriculum.stagger=true",
        "curriculum.episodes=3 curriculum.stagger=false",
    ]


def test_sections_of_equal_names_are_told_apart_by_the_key_that_differs(tmp_path: Path) -> None:
    """Each key that differs stands with the name of its mission."""
    write_run(tmp_path / "0", [], **in_turn())
    write_run(tmp_path / "1", [], **merge(in_turn(), nested("mission.heart_limit", 3)))
    write_run(tmp_path / "2", [], **merge(in_turn(), nested("curriculum.missions.large.heart_limit", 3)))
    assert sorted(section.title for section in sections_of(read([tmp_path]))) == [
        "scout_tutorial, large, unpaid scout_tutorial.heart_limit=10 large.heart_limit=10",
        "scout_tutorial, large, unpaid scout_tutorial.heart_limit=10 large.heart_limit=3",
        "scout_tutorial, large, unpaid scout_tutorial.heart_limit=3 large.heart_limit=10",
    ]
