"""Runs are named by what sets them apart."""

import pytest
from conftest import tiny_experiment

from scout.cli import compose_experiment
from scout.config import Experiment
from scout.evaluation_config import EvaluationConfig
from scout.naming import evaluation_name, run_name, setting, tags


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "scout_tutorial conv seed=1"),
        ("seed=2", "scout_tutorial conv seed=2"),
        (
            "model=cnn_lstm optimizer.learning_rate=3e-4 seed=2",
            "scout_tutorial cnn_lstm learning_rate=0.0003 seed=2",
        ),
        ("device.fast_layers=false", "scout_tutorial conv fast_layers=false seed=1"),
        ("mission.difficulty=null", "scout_tutorial conv difficulty=null seed=1"),
        (
            "mission.variants=[scout_rewards,dark_side]",
            "scout_tutorial conv variants=[scout_rewards,dark_side] seed=1",
        ),
        ("mission.rewards.cell_visited=2e-4", "scout_tutorial conv cell_visited=0.0002 seed=1"),
        ("~mission.rewards.scout_lost", "scout_tutorial conv ~scout_lost seed=1"),
        ("vecenv.num_envs=auto", "scout_tutorial conv num_envs=auto seed=1"),
    ],
)
def test_a_name_has_the_keys_that_are_not_the_defaults(overrides: str, name: str) -> None:
    """Values stand as one would type them, and a key that was taken out has Hydra's ~."""
    assert run_name(compose_experiment(*overrides.split())) == name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("model=attention", "scout_tutorial attention seed=1"),
        ("model=attention model.memory=lstm", "scout_tutorial attention memory=lstm seed=1"),
        ("model=conv_memoryless", "scout_tutorial conv memory=none seed=1"),
        ("trainer=pufferl", "scout_tutorial conv pufferl seed=1"),
        ("optimizer=adamw", "scout_tutorial conv adamw seed=1"),
        ("optimizer=adamw optimizer.weight_decay=0.1", "scout_tutorial conv adamw weight_decay=0.1 seed=1"),
        ("vecenv=multiprocessing", "scout_tutorial conv multiprocessing seed=1"),
        ("mission=miner_tutorial", "miner_tutorial conv seed=1"),
        ("mission=miner_tutorial mission.num_agents=8", "miner_tutorial conv num_agents=8 seed=1"),
        ("curriculum=tutorials", "scout_tutorial tutorials conv seed=1"),
        (
            "curriculum=tutorials ~curriculum.missions.miner_tutorial trainer.gamma=0.9",
            "scout_tutorial tutorials conv ~curriculum.missions.miner_tutorial gamma=0.9 seed=1",
        ),
        (
            "curriculum=tutorials mission.num_agents=6",  # which the others follow
            "scout_tutorial tutorials conv mission.num_agents=6 seed=1",
        ),
        (
            "curriculum=tutorials curriculum.episodes=4 curriculum.stagger=false",
            "scout_tutorial tutorials conv curriculum.episodes=4 stagger=false seed=1",
        ),
        (
            "curriculum=tutorials curriculum.missions.miner_tutorial.heart_limit=3",
            "scout_tutorial tutorials conv curriculum.missions.miner_tutorial.heart_limit=3 seed=1",
        ),
    ],
)
def test_an_option_brings_its_own_defaults(overrides: str, name: str) -> None:
    """Of another network, mission and so on only what is not as that option has it stands in the name."""
    assert run_name(compose_experiment(*overrides.split())) == name


def test_a_key_whose_last_part_is_not_unique_is_named_in_full() -> None:
    """trainer and vecenv both have a batch_size."""
    experiment = compose_experiment("trainer.batch_size=4096")
    assert run_name(experiment) == "scout_tutorial conv trainer.batch_size=4096 seed=1"


@pytest.mark.parametrize(
    "changes",
    [
        {"wandb": {"project": "other", "tags": ["a"]}},
        {"resume": "auto"},
        {"log_interval": 1.0},
        {"checkpoint": {"interval": 1, "keep": 1}},
        {"evaluation": {"every": None}},
        {"device": {"name": "cpu", "precision": "float32", "threads": 1}},
    ],
)
def test_keys_from_which_nothing_is_learned_are_left_out(changes: dict[str, object]) -> None:
    """So are those that the machine decides, which a run's config has as they were decided."""
    assert run_name(Experiment.model_validate(changes)) == "scout_tutorial conv seed=1"


def test_the_users_name_wins() -> None:
    """wandb.name is the name."""
    assert run_name(Experiment.model_validate({"seed": 2, "wandb": {"name": "mine"}})) == "mine"


def test_keys_of_a_network_of_ones_own_are_named() -> None:
    """model.options has free keys, each of which stands in the name."""
    experiment = Experiment.model_validate({"model": {"target": "mine.Net", "options": {"depth": 3}}})
    assert run_name(experiment) == "scout_tutorial conv model.target=mine.Net depth=3 seed=1"


def test_a_long_name_ends_with_what_is_missing() -> None:
    """Of the 9 keys that the recipe notebook changes 2 fit in, and the others are counted, within 128 characters."""
    name = run_name(compose_experiment("experiment=notebook"))
    start = "scout_tutorial cnn_lstm pufferl total_timesteps=100000 trainer.batch_size=4096 +8 more #"
    assert name.startswith(start)
    assert name.endswith(" seed=42")
    assert len(name) <= 128


def test_long_names_that_differ_in_what_is_missing_differ() -> None:
    """Two runs of a sweep over a key for which there is no room have two names."""
    first, second = (compose_experiment("experiment=notebook", f"vecenv.num_envs={number}") for number in (4, 8))
    assert run_name(first).split(" #")[0] == run_name(second).split(" #")[0]
    assert run_name(first) != run_name(second)


def test_a_name_is_never_longer_than_wandb_takes() -> None:
    """Not even with words of any length, and the longest seed."""
    experiment = tiny_experiment(seed=2**32 - 1, mission={"name": "m" * 300}, initial_weights="w" * 300)
    assert len(run_name(experiment)) <= 128


def test_the_seeds_of_a_setting_share_it() -> None:
    """The setting, by which a dashboard averages seeds, is the same for all seeds, and another for another rate."""
    first, second = compose_experiment("seed=1"), compose_experiment("seed=2")
    assert setting(first) == setting(second) == "scout_tutorial conv"
    assert setting(compose_experiment("optimizer.learning_rate=3e-4")) == "scout_tutorial conv learning_rate=0.0003"


def test_tags_are_mission_network_and_trainer_and_the_users() -> None:
    """Each once, and cut to the 64 characters that W&B takes."""
    experiment = compose_experiment("mission=arena", "model=attention", "wandb.tags=[mine,arena]")
    assert tags(experiment) == ["arena", "attention", "ppo", "mine"]
    assert tags(tiny_experiment(mission={"name": "m" * 65}))[0] == "m" * 64


def test_missions_in_turn_are_a_tag() -> None:
    """Beside the first of them; a run of one mission has no such tag."""
    experiment = compose_experiment("curriculum=tutorials", "wandb.tags=[mine]")
    assert tags(experiment) == ["scout_tutorial", "conv", "ppo", "tutorials", "mine"]
    assert tags(compose_experiment()) == ["scout_tutorial", "conv", "ppo"]


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"policy": "random"}, "evaluate policy=random"),
        ({"policy": "random", "wandb": {"name": "mine"}}, "mine"),
        (
            {"checkpoint": "outputs/a", "greedy": True, "episodes": 40, "mission": {"max_steps": 500}},
            "evaluate checkpoint=outputs/a mission.max_steps=500 episodes=40 greedy=true",
        ),
        (
            {"policies": ["outputs/a", "random"], "seed": 3, "film": "out.mp4"},
            "evaluate policies=[outputs/a,random] seed=3",
        ),
        (
            {"policy": "noop", "mission": compose_experiment("mission=arena").mission.model_dump()},
            "evaluate policy=noop mission=arena",
        ),
    ],
)
def test_an_evaluation_is_named_by_what_is_judged_and_how(keys: dict[str, object], name: str) -> None:
    """What is only shown is left out, and a mission that was chosen as a whole has its name alone."""
    assert evaluation_name(EvaluationConfig.model_validate(keys)) == name
