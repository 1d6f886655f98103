"""While it trains, a run is judged on held-out maps, which decides its best checkpoint and changes nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_experiment
from evaluation_helpers import network_of

from scout.checkpoint import load_weights, read_checkpoint, save_whole
from scout.config import Experiment
from scout.environment import held_out_map_seed
from scout.mission import make_game
from scout.policies import NetworkPolicy
from scout.rollout import play
from scout.run_folder import load_experiment
from scout.training import train

EVALUATION = {"every": 256, "episodes": 2, "film": False}


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What does not depend on the clock or on whether the run was judged."""
    return [
        {key: value for key, value in line.items() if not key.startswith(("performance/", "evaluation/"))}
        for line in lines
    ]


@pytest.mark.parametrize("trainer", ["ppo", "pufferl"])
def test_training_is_the_same_with_and_without_evaluations(trainer: str, train_tiny: Callable[..., Path]) -> None:
    """Every loss of a run that is judged after each update is that of a run that never is, to the last bit."""
    common: dict[str, Any] = {"total_timesteps": 1024, "trainer": {"name": trainer}}
    judged = train_tiny("judged", evaluation=EVALUATION, **common)
    alone = train_tiny("alone", evaluation={"every": None, "film": False}, **common)
    assert without_seconds(lines_of(judged)) == without_seconds(lines_of(alone))
    assert sum("evaluation/return" in line for line in lines_of(judged)) == 4


@pytest.mark.parametrize(("every", "steps"), [(300, [512, 768, 1024]), (5000, [1024]), (512, [512, 1024])])
def test_a_run_is_judged_at_each_multiple_and_at_its_end(
    every: int, steps: list[int], train_tiny: Callable[..., Path]
) -> None:
    """An update of 256 steps that crosses a multiple of `every` is followed by an evaluation, and so is the last."""
    run_dir = train_tiny(evaluation={**EVALUATION, "every": every}, total_timesteps=1024)
    assert [line["agent_steps"] for line in lines_of(run_dir) if "evaluation/return" in line] == steps


def test_what_is_logged_is_what_the_network_plays_on_the_held_out_maps(train_tiny: Callable[..., Path]) -> None:
    """The final evaluation's numbers are those of the final network's episodes, played by hand."""
    run_dir = train_tiny(evaluation=EVALUATION)
    experiment = tiny_experiment()
    game = make_game(experiment.mission)
    last = read_checkpoint(run_dir / "checkpoints/000002.pt")
    network = network_of(0)
    network.load_state_dict(last["model"])
    episodes = play(NetworkPolicy("", network, "cpu", False), game, 0, range(2), map_seed=held_out_map_seed)
    line = lines_of(run_dir)[-1]
    for logged, key in (("return", "return"), ("cells_seen", "cells_seen"), ("deaths", "deaths")):
        assert line[f"evaluation/{logged}"] == pytest.approx(np.mean([episode.record[key] for episode in episodes]))


def test_the_best_checkpoint_is_the_one_that_did_best(train_tiny: Callable[..., Path]) -> None:
    """best.pt holds the update of the highest mean return, the first of equals, and a run folder is judged by it."""
    run_dir = train_tiny(
        evaluation=EVALUATION,
        total_timesteps=2048,
        checkpoint={"keep": 20},
        mission={"max_steps": 100},
        optimizer={"learning_rate": 0.05},
    )
    lines = lines_of(run_dir)
    returns = [line["evaluation/return"] for line in lines]
    best = lines[int(np.argmax(returns))]
    assert len(set(returns)) > 1, "this run does not show what this test is about"
    weights = load_weights(str(run_dir))
    assert (weights.path.name, weights.agent_steps) == ("best.pt", best["agent_steps"])
    numbered = read_checkpoint(run_dir / f"checkpoints/{best['update']:06d}.pt")["model"]
    assert all(torch.equal(weights.state_dict[name], value) for name, value in numbered.items())
    assert [line["evaluation/best_return"] for line in lines] == list(np.maximum.accumulate(returns))


def go_on(run_dir: Path, **changes: Any) -> Path:
    """Resumes a run of one update for a second one."""
    experiment = load_experiment(run_dir).model_dump()
    changed = experiment | {"evaluation": experiment["evaluation"] | changes, "total_timesteps": 512}
    return train(Experiment.model_validate(changed), run_dir, resumed=True).run_dir


@pytest.mark.parametrize("weight", [1e-4, 0.0])
def test_a_run_that_was_killed_before_its_best_checkpoint_makes_it_up(
    weight: float, train_tiny: Callable[..., Path]
) -> None:
    """The update's own checkpoint is there, best.pt is not: it is made, and an equal return does not replace it."""
    run_dir = train_tiny(evaluation=EVALUATION, total_timesteps=256, mission={"rewards": {"cell_visited": weight}})
    (run_dir / "checkpoints/best.pt").unlink()
    first, second = (line["evaluation/return"] for line in lines_of(go_on(run_dir)))
    assert first == second, "this run does not show what this test is about"
    best = read_checkpoint(run_dir / "checkpoints/best.pt")
    assert (best["update"], best["evaluation_return"]) == (1, first)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_best_checkpoint_that_cannot_be_gone_on_from_is_put_aside(
    damaged: bool, train_tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged one, and one of an update still to come, becomes best.old, with a warning; the run has a new one."""
    run_dir = train_tiny(evaluation=EVALUATION, total_timesteps=256)
    path = run_dir / "checkpoints/best.pt"
    if damaged:
        path.write_bytes(b"damaged")
    else:
        save_whole(path, read_checkpoint(path) | {"update": 99, "evaluation_return": 1e9})
    go_on(run_dir)
    assert (run_dir / "checkpoints/best.old").is_file()
    assert "it is now best.old" in caplog.text
    assert read_checkpoint(path)["update"] == 1


def test_returns_on_other_maps_are_not_compared(train_tiny: Callable[..., Path]) -> None:
    """With another number of episodes, from now on, the best so far no longer counts."""
    run_dir = train_tiny(evaluation=EVALUATION, total_timesteps=256)
    path = run_dir / "checkpoints/best.pt"
    save_whole(path, read_checkpoint(path) | {"evaluation_return": 1e9})
    assert lines_of(go_on(run_dir, episodes=1))[-1]["evaluation/best_return"] < 1e9
    assert read_checkpoint(path)["evaluation_return"] < 1e9


def test_a_run_ends_with_a_film(train_tiny: Callable[..., Path]) -> None:
    """The run folder gets a film of an episode that the best network plays; without `film` it gets none."""
    filmed = train_tiny("filmed", evaluation={**EVALUATION, "film": True}, mission={"max_steps": 10})
    assert (filmed / "film.mp4").stat().st_size > 1000
    assert not (train_tiny("not", evaluation=EVALUATION) / "film.mp4").exists()
