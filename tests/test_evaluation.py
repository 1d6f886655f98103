"""An evaluation plays whole episodes on maps of its own, the same way each time, and counts what happened in them."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import tiny_experiment
from evaluation_helpers import ENV_INFO, GAME, STEPS, config_of, policy_of, records, run_folder
from mettagrid.policy.loader import discover_and_register_policies, initialize_or_load_policy
from mettagrid.policy.policy import PolicySpec
from mettagrid.simulator.rollout import Rollout

from scout.build import build
from scout.checkpoint import load_experiment
from scout.config import MissionConfig
from scout.environment import EVALUATION_MAP_SEEDS, with_map_seed
from scout.errors import ScoutError
from scout.evaluation import EvaluationResult, evaluate
from scout.evaluation_config import EvaluationConfig
from scout.mission import make_game
from scout.policies import NetworkPolicy, NoopPolicy, RandomPolicy
from scout.rollout import play

# -- what is written ---------------------------------------------------------------------------------------------------


def test_there_is_one_object_per_episode(tmp_path: Path) -> None:
    """episodes.json holds, for each episode in order, who played, where, how long, and what came of it."""
    result = evaluate(config_of(), tmp_path)
    episodes = json.loads((tmp_path / "episodes.json").read_text())
    assert episodes == result.episodes
    assert [episode["episode"] for episode in episodes] == [0, 1, 2]
    keys = ["policy", "episode", "map_seed", "steps", "return", "agent_returns"]
    keys += ["cell_visited", "gear", "deaths", "moves", "failed_moves", "cells_seen"]
    assert all(list(episode) == keys for episode in episodes)
    assert {episode["policy"] for episode in episodes} == {"random"}


def test_the_config_loads_back_to_the_same_evaluation(tmp_path: Path) -> None:
    """config.yaml beside the episodes holds every key of the evaluation, and the whole mission that was played."""
    config = config_of(seed=5)
    evaluate(config, tmp_path)
    stored = EvaluationConfig.model_validate(yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert stored == config.model_copy(update={"mission": MissionConfig(max_steps=20).model_dump()})


def test_an_evaluation_in_the_folder_of_a_run_does_not_spoil_the_run(small_run: Path) -> None:
    """Where the output folder is the judged run's own, the run can be loaded as before, refused or not."""
    before = load_experiment(small_run)
    with contextlib.suppress(ScoutError):
        evaluate(config_of(checkpoint=str(small_run), mission=None), small_run)
    assert load_experiment(small_run) == before


def test_the_return_is_the_mean_over_agents_and_the_result_the_mean_over_episodes(
    judge: Callable[..., EvaluationResult],
) -> None:
    """An episode's return is the mean of its agents' returns, and the evaluation's the mean of the episodes'."""
    result = judge()
    for episode in result.episodes:
        assert len(episode["agent_returns"]) == 4
        assert episode["return"] == pytest.approx(sum(episode["agent_returns"]) / 4)
    assert result.mean_return == pytest.approx(sum(episode["return"] for episode in result.episodes) / 3)


def test_an_earlier_evaluation_is_not_overwritten(tmp_path: Path) -> None:
    """A folder that holds an evaluation is refused before anything is played, and stays as it was."""
    (tmp_path / "episodes.json").write_text("mine")
    with pytest.raises(ScoutError, match=r"episodes\.json exists already: choose another folder with hydra\.run\.dir="):
        evaluate(config_of(), tmp_path)
    assert (tmp_path / "episodes.json").read_text() == "mine"


def test_the_folder_is_made_where_it_is_missing(tmp_path: Path) -> None:
    """The library writes into a new folder, as training does."""
    evaluate(config_of(), tmp_path / "new")
    assert (tmp_path / "new" / "episodes.json").is_file()


def test_the_table_shows_the_means(judge: Callable[..., EvaluationResult], capsys: pytest.CaptureFixture[str]) -> None:
    """The printed row has the number of episodes, the mean return, its interval, and the means of the rest."""
    result = judge(mission={"max_steps": 300})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (row,) = [row for row in rows if row[:2] == ["random", "3"]]

    def mean(key: str) -> float:
        return sum(episode[key] for episode in result.episodes) / 3

    assert result.interval is not None
    low, high = result.interval
    middle = sorted(episode["return"] for episode in result.episodes)  # a quarter of three is none, so all count
    assert row[2:] == [
        f"{result.mean_return:.2f}",
        *(f"{low:.2f}", "..", f"{high:.2f}"),
        f"{sum(middle) / 3:.2f}",
        *(f"{mean('gear'):.2f}", f"{mean('deaths'):.2f}"),
        f"{mean('cells_seen'):,.0f}",
    ]


def test_the_table_names_the_policy_as_it_is(
    judge: Callable[..., EvaluationResult], small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder whose name has brackets stands above the table letter for letter."""
    judge(checkpoint=str(small_run.rename(small_run.with_name("[o]"))), mission=None)
    assert "[o]" in capsys.readouterr().out.replace("\n", "")  # wherever the line is broken


# -- the same again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["random", "noop", "sampled", "greedy"])
def test_the_same_seed_gives_the_same_numbers(kind: str) -> None:
    """Two evaluations of one seed agree in every number, to the last bit."""
    first, second = (records(policy_of(kind), seed=3) for _ in range(2))
    assert first == second


def test_another_seed_gives_other_maps_and_other_noise() -> None:
    """No map seed of one evaluation seed appears under another, and random play fares differently."""
    first, second = (records(RandomPolicy(), seed=seed, episodes=4) for seed in (0, 1))
    assert not {one["map_seed"] for one in first} & {one["map_seed"] for one in second}
    assert all(one["agent_returns"] != other["agent_returns"] for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2**30 - 1])
def test_every_map_is_from_the_range_of_evaluation_and_different(seed: int) -> None:
    """All episodes are on maps that training never draws, each on one of its own."""
    episodes = records(NoopPolicy(), seed=seed, episodes=4)
    map_seeds = [episode["map_seed"] for episode in episodes]
    assert all(map_seed in EVALUATION_MAP_SEEDS for map_seed in map_seeds)
    assert len(set(map_seeds)) == 4


@pytest.mark.parametrize("kind", ["random", "sampled", "greedy"])
@pytest.mark.parametrize("parallel", [2, 3, 4])
def test_how_many_are_played_side_by_side_changes_nothing(kind: str, parallel: int) -> None:
    """Four episodes one by one, in twos, in three and one, and all at once agree in every number."""
    alone = records(policy_of(kind), episodes=4, parallel=1)
    assert records(policy_of(kind), episodes=4, parallel=parallel) == alone


@pytest.mark.parametrize("kind", ["sampled", "greedy"])
def test_the_recurrent_state_is_zero_at_each_episodes_start(kind: str) -> None:
    """An episode played after others is the episode played alone: the network remembers nothing of them."""
    used = policy_of(kind)
    records(used, episodes=1)
    after, alone = (play(policy, GAME, 0, [1])[0].record for policy in (used, policy_of(kind)))
    assert after == alone


def test_every_episode_lasts_to_its_last_step() -> None:
    """No early reset cuts an episode short, as it does in training."""
    episodes = records(RandomPolicy(), episodes=8)
    assert [episode["steps"] for episode in episodes] == [STEPS] * 8


def test_greedy_play_differs_from_sampled_play(judge: Callable[..., EvaluationResult], finished_run: Path) -> None:
    """The key `greedy` reaches the policy: the same network fares differently on the same maps."""
    greedy, sampled = (judge(checkpoint=str(finished_run), greedy=greedy) for greedy in (True, False))
    assert [one["map_seed"] for one in greedy.episodes] == [one["map_seed"] for one in sampled.episodes]
    assert all(
        one["agent_returns"] != other["agent_returns"]
        for one, other in zip(greedy.episodes, sampled.episodes, strict=True)
    )


def test_a_reloaded_policy_scores_what_it_scored_in_memory(
    judge: Callable[..., EvaluationResult], tmp_path: Path
) -> None:
    """A network that was just trained plays the same episodes as its checkpoint, to the last bit."""
    experiment = tiny_experiment()
    game = make_game(experiment.mission)
    trainer = build(experiment, game, "cpu")
    try:
        trainer.evaluate()
        trainer.train()
    finally:
        trainer.close()
    network = trainer.uncompiled_policy
    run_dir = run_folder(tmp_path / "run", experiment, network)
    in_memory = records(NetworkPolicy(str(run_dir), network, "cpu", greedy=False), game)
    reloaded = judge(checkpoint=str(run_dir), mission=None)
    assert reloaded.episodes == in_memory


# -- baselines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        "random",
        "noop",
        "cogames/starter",
        "cogames/scout",
        "cogames/random",
    ],
)
def test_a_baseline_plays_whole_episodes(policy: str, judge: Callable[..., EvaluationResult]) -> None:
    """Each baseline can be named, plays to the end, and stands under its name in the record."""
    result = judge(policy=policy)
    assert [(episode["policy"], episode["steps"]) for episode in result.episodes] == [(policy, 20)] * 3


def test_a_policy_of_cogames_fares_as_under_mettagrids_own_rollout(judge: Callable[..., EvaluationResult]) -> None:
    """The starter policy's returns are those that mettagrid's Rollout gives on the same maps with the same seeds."""
    result = judge(policy="cogames/starter", mission={"max_steps": STEPS})
    discover_and_register_policies()
    for episode in result.episodes:
        team = initialize_or_load_policy(ENV_INFO, PolicySpec(class_path="starter"))
        rollout = Rollout(
            with_map_seed(GAME, episode["map_seed"]),
            [team.agent_policy(agent) for agent in range(4)],
            seed=episode["episode"],
        )
        rollout.run_until_done()
        assert episode["agent_returns"] == rollout._sim.episode_rewards.tolist()


@pytest.mark.parametrize(
    ("policy", "hint"),
    [
        ("randm", r"policy=randm is unknown; did you mean random\? valid: cogames/NAME, noop, random"),
        ("starter", r"policy=starter is unknown; valid: cogames/NAME, noop, random"),
        ("cogames/startr", r"policy=cogames/startr is unknown; did you mean cogames/starter\? valid: .*cogames/scout,"),
        ("cogames/token", r"policy=cogames/token cannot be made: .*missing 3 required"),
    ],
)
def test_a_wrong_policy_is_an_error_with_the_right_ones(
    policy: str, hint: str, judge: Callable[..., EvaluationResult]
) -> None:
    """A name that is not there is answered with those that are; one that needs more than its name says so."""
    with pytest.raises(ScoutError, match=hint):
        judge(policy=policy)


# -- a single episode ------


def test_a_single_episode_has_no_interval(
    judge: Callable[..., EvaluationResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """One episode says nothing about the spread: the interval is None, and a dash in the table."""
    assert judge(episodes=1).interval is None
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:2] == ["random", "1"]]
    assert row[3] == "-"
