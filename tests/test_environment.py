"""Environments and their seeds: who gets which map, and when an episode ends early."""

import os
import pickle
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_script
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.mapgen.mapgen import MapGen
from mettagrid.simulator import Simulation

from scout.config import MissionConfig, VecenvConfig
from scout.environment import (
    EVALUATION_MAP_SEEDS,
    HELD_OUT_MAP_SEEDS,
    TRAINING_MAP_SEEDS,
    EnvFactory,
    evaluation_map_seed,
    held_out_map_seed,
    training_map_seed,
    with_map_seed,
)
from scout.mission import make_game
from scout.vecenv import make_vecenv

LAST_SEED, LAST_ENV, LAST_MAP = 2**32 - 1, 8191, 2**16 - 1  # the largest run seed, environment, and map of one
TWO_TEAMS: dict[str, Any] = {"variants": ["multi_team"], "spawn_count": 4, "rewards": {}}
LAST_EVALUATION, LAST_EPISODE = 2**30 - 1, 2**32 - 1


def map_of(simulation: Simulation) -> Hashable:
    """Every object of a simulation's map with its place, but for the agents."""
    things = simulation.grid_objects().values()
    return frozenset((thing["r"], thing["c"], thing["type_name"]) for thing in things if "agent_id" not in thing)


def vectorised(run_seed: int = 7, max_steps: int = 3, mission: dict[str, Any] | None = None, **options: Any) -> Any:
    """Two environments, or as the options say, that have been reset."""
    config = VecenvConfig(**{"num_envs": 2, "early_reset": False} | options)
    vecenv = make_vecenv(config, [make_game(MissionConfig(max_steps=max_steps, **mission or {}))], run_seed)
    vecenv.async_reset(42)
    vecenv.recv()
    return vecenv


def step(vecenv: Any) -> tuple[np.ndarray, np.ndarray]:
    """All agents stand still for a step: terminals and truncations, [environments, agents] each."""
    vecenv.send(np.zeros(vecenv.num_agents, dtype=np.int32))
    _, _, terminals, truncations, *_ = vecenv.recv()
    return terminals.reshape(len(vecenv.envs), -1).copy(), truncations.reshape(len(vecenv.envs), -1).copy()


def maps_played(episodes: int, **options: Any) -> list[list[Hashable]]:
    """The map of each environment's first episodes, which all end together: [environments][episodes]."""
    vecenv = vectorised(**options)
    played: list[list[Hashable]] = [[] for _ in vecenv.envs]
    for _ in range(episodes):
        for env, maps in zip(vecenv.envs, played, strict=True):
            maps.append(map_of(env.current_simulation))
        while not all(env.current_simulation.is_done() for env in vecenv.envs):
            step(vecenv)
        step(vecenv)  # the step after the end begins the next episode
    vecenv.close()
    return played


def first_lengths(run_seed: int, max_steps: int = 40, **options: Any) -> list[int]:
    """After how many steps each environment's first episode ends."""
    vecenv = vectorised(run_seed, max_steps, num_envs=4, early_reset=True, **options)
    lengths = [0] * 4
    for count in range(1, max_steps + 1):
        terminals, truncations = step(vecenv)
        ended = [bool(end.all()) for end in np.logical_or(terminals, truncations)]
        lengths = [length or (count if end else 0) for length, end in zip(lengths, ended, strict=True)]
    vecenv.close()
    return lengths


def factory(run_seed: int = 7, map_seeds: str = "spread") -> EnvFactory:
    """What makes the environments of a run."""
    return EnvFactory((make_game(MissionConfig(max_steps=25)),), run_seed, map_seeds, early_reset=False)


def first_map_seed(env: MettaGridPufferEnv) -> int:
    """The seed of the first map of an environment, as its map's builder has it."""
    builder = env.env_cfg.game.map_builder
    assert isinstance(builder, MapGen.Config)
    assert builder.seed is not None
    return builder.seed


# -- map seeds ---------------------------------------------------------------------------------------------------------


def test_training_and_evaluations_draw_from_disjoint_ranges() -> None:
    """No map seed is in two of the ranges, and all are what the simulator takes: 0 to 2**63 - 1.

    So the maps on which a run's best checkpoint is chosen are neither training's nor those it is judged on.
    """
    assert TRAINING_MAP_SEEDS.start == 0
    assert TRAINING_MAP_SEEDS.stop == HELD_OUT_MAP_SEEDS.start
    assert HELD_OUT_MAP_SEEDS.stop == EVALUATION_MAP_SEEDS.start
    assert EVALUATION_MAP_SEEDS.stop == 2**63
    assert held_out_map_seed(0, 0) in HELD_OUT_MAP_SEEDS
    assert held_out_map_seed(7, 2**31) in HELD_OUT_MAP_SEEDS


@pytest.mark.parametrize("run_seed", [0, 1, LAST_SEED])
@pytest.mark.parametrize("env_index", [0, 1, LAST_ENV])
def test_spread_map_seeds_are_training_seeds(run_seed: int, env_index: int) -> None:
    """From the first map of an environment to its last one, for the smallest and largest seeds and environments."""
    first = training_map_seed(run_seed, env_index)
    assert first in TRAINING_MAP_SEEDS
    assert first + LAST_MAP in TRAINING_MAP_SEEDS


@pytest.mark.parametrize("run_seed", [0, 1, LAST_SEED])
@pytest.mark.parametrize("env_index", [0, 1, LAST_ENV])
def test_consecutive_map_seeds_are_training_seeds(run_seed: int, env_index: int) -> None:
    """A real environment of the seed notebook's way stays far below evaluation's seeds."""
    first = first_map_seed(factory(run_seed, "consecutive")(seed=env_index))
    assert first == run_seed + env_index
    assert first + LAST_MAP in TRAINING_MAP_SEEDS


@pytest.mark.parametrize("seed", [0, 1, LAST_EVALUATION])
@pytest.mark.parametrize("episode", [0, 1, LAST_EPISODE])
def test_evaluation_map_seeds_are_evaluation_seeds(seed: int, episode: int) -> None:
    """For the smallest and largest evaluation seeds and episodes."""
    assert evaluation_map_seed(seed, episode) in EVALUATION_MAP_SEEDS


def test_spread_map_seeds_never_meet() -> None:
    """The last map of any environment of any run comes before the first one of the next, so that no two overlap."""
    environments = (0, 1, 2, 4095, 4096, LAST_ENV - 1, LAST_ENV)
    firsts = sorted(training_map_seed(run_seed, env) for run_seed in (*range(9), LAST_SEED) for env in environments)
    assert all(first + LAST_MAP < following for first, following in pairwise(firsts))


def test_evaluation_map_seeds_never_meet() -> None:
    """No two episodes of any evaluations have the same map seed."""
    episodes = (0, 1, 2, 2**31 - 1, 2**31, LAST_EPISODE - 1, LAST_EPISODE)
    seeds = sorted(evaluation_map_seed(seed, episode) for seed in (*range(9), LAST_EVALUATION) for episode in episodes)
    assert all(seed < following for seed, following in pairwise(seeds))


def test_the_largest_seeds_build_a_map() -> None:
    """The simulator takes the last map seed of training and of evaluation, and the two maps differ."""
    env = factory(LAST_SEED)(seed=LAST_ENV)
    assert first_map_seed(env) == training_map_seed(LAST_SEED, LAST_ENV)
    last = evaluation_map_seed(LAST_EVALUATION, LAST_EPISODE)
    judged = Simulation(with_map_seed(make_game(MissionConfig()), last))
    assert map_of(env.current_simulation) != map_of(judged)


def test_a_config_is_not_changed_by_its_map_seed() -> None:
    """with_map_seed returns a copy, so that environments made from one config do not share a seed."""
    game = make_game(MissionConfig())
    before = game.model_dump()
    assert with_map_seed(game, 5).model_dump() != before
    assert game.model_dump() == before


# -- maps played -------------------------------------------------------------------------------------------------------


def test_spread_environments_never_share_a_map() -> None:
    """Two environments play three episodes each on six different maps."""
    played = maps_played(3, map_seeds="spread")
    assert len(set(played[0] + played[1])) == 6


def test_consecutive_environments_share_maps() -> None:
    """The seed notebook's way: what one environment plays second is what the next one played first."""
    first, second = maps_played(3, map_seeds="consecutive")
    assert first[1:] == second[:2]
    assert len(set(first + second)) == 4


@pytest.mark.parametrize("map_seeds", ["spread", "consecutive"])
def test_the_same_seed_gives_the_same_maps(map_seeds: str) -> None:
    """Two runs of one seed play the same maps in the same order."""
    assert maps_played(2, map_seeds=map_seeds) == maps_played(2, map_seeds=map_seeds)


def test_another_seed_gives_other_maps() -> None:
    """Runs of two seeds share no map."""
    one, other = (maps_played(2, run_seed=seed) for seed in (7, 8))
    assert set(one[0] + one[1]).isdisjoint(other[0] + other[1])


def test_the_same_seed_gives_two_teams_the_same_maps() -> None:
    """The variant multi_team, whose map is built within another one, plays six maps, and the same ones again."""
    played = maps_played(3, mission=TWO_TEAMS)
    assert len(set(played[0] + played[1])) == 6
    assert maps_played(3, mission=TWO_TEAMS) == played


def test_an_evaluations_seed_gives_two_teams_the_same_map() -> None:
    """For the variant multi_team, too, a map seed stands for one map."""
    game = make_game(MissionConfig(**TWO_TEAMS))
    one, same, other = (map_of(Simulation(with_map_seed(game, seed))) for seed in (5, 5, 6))
    assert one == same != other


def test_a_vectorised_reset_keeps_the_seeds() -> None:
    """PufferLib's reset hands out seeds of its own; each environment keeps run seed + index for its simulator."""
    vecenv = vectorised(run_seed=7, num_envs=3)
    assert [env.current_simulation.seed for env in vecenv.envs] == [7, 8, 9]


def test_the_simulators_seed_stays_within_its_31_bits() -> None:
    """The largest run seed wraps around: 2**32 - 1 + 2 is 1 modulo 2**31, which the simulator accepts."""
    assert factory(LAST_SEED)(seed=2).current_simulation.seed == 1


# -- early resets ------------------------------------------------------------------------------------------------------


def test_early_resets_differ_between_environments() -> None:
    """Four environments of one run end their first episodes at four different steps, within the episode's length."""
    lengths = first_lengths(run_seed=7)
    assert len(set(lengths)) == 4
    assert min(lengths) >= 1
    assert max(lengths) <= 40


def test_early_resets_come_from_the_seed_alone() -> None:
    """Whatever numpy's global generator does, the same seed ends the same episodes at the same steps."""
    np.random.seed(1)
    once = first_lengths(run_seed=7)
    np.random.seed(2)
    assert first_lengths(run_seed=7) == once


def test_early_resets_differ_between_seeds() -> None:
    """Another run seed ends other episodes at other steps."""
    assert first_lengths(run_seed=7) != first_lengths(run_seed=8)


def test_consecutive_early_resets_come_from_numpys_global_generator() -> None:
    """The seed notebook's way: numpy's global generator, seeded before, decides."""
    np.random.seed(1)
    once = first_lengths(run_seed=7, map_seeds="consecutive")
    np.random.seed(1)
    assert first_lengths(run_seed=7, map_seeds="consecutive") == once
    np.random.seed(2)
    assert first_lengths(run_seed=7, map_seeds="consecutive") != once


@pytest.mark.parametrize("map_seeds", ["spread", "consecutive"])
def test_without_early_resets_episodes_are_whole(map_seeds: str) -> None:
    """With early_reset=false nothing is cut short: of 25 steps only the last one ends the episode, as a terminal."""
    vecenv = vectorised(max_steps=25, map_seeds=map_seeds)
    ends = [step(vecenv) for _ in range(25)]
    assert not any(truncations.any() for _, truncations in ends)
    assert [bool(terminals.any()) for terminals, _ in ends] == [False] * 24 + [True]


@pytest.mark.parametrize("stale", [False, True])
def test_only_the_first_episode_is_cut_short(stale: bool) -> None:
    """After an early reset, which is a truncation, the next episode runs for all of its steps.

    A step more shows its first observation, but for upstream's way, which never shows it.
    """
    vecenv = vectorised(max_steps=25, num_envs=1, early_reset=True, stale_first_action=stale)
    cut = 1
    while not step(vecenv)[1].all():
        cut += 1
    assert cut < 25
    ends = [step(vecenv) for _ in range(25 if stale else 26)]
    assert not any(truncations.any() for _, truncations in ends)
    assert [bool(terminals.all()) for terminals, _ in ends] == [False] * (len(ends) - 1) + [True]


# -- processes ---------------------------------------------------------------------------------------------------------


def test_the_factory_survives_a_pickle() -> None:
    """What a spawned worker process unpickles makes the same environment."""
    original = factory()
    copy = pickle.loads(pickle.dumps(original))
    one, other = original(seed=3), copy(seed=3)
    assert map_of(one.current_simulation) == map_of(other.current_simulation)
    assert np.array_equal(one.reset()[0], other.reset()[0])


def test_an_environment_writes_into_the_buffers_it_is_given() -> None:
    """The observations of the vectorised environments are those of each environment, in its agents' rows."""
    vecenv = vectorised()
    assert vecenv.observations.shape[0] == 8
    for index, env in enumerate(vecenv.envs):
        own = env.current_simulation._c_sim.observations()
        assert np.array_equal(vecenv.observations[4 * index : 4 * index + 4], own)
        assert own.any()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_worker_processes_begin_as_serial_environments_do() -> None:
    """Four environments in two processes show the same first observations, and the next ones, as in this process."""
    game = make_game(MissionConfig(max_steps=25))
    seen = []
    for backend in ({"name": "serial"}, {"name": "multiprocessing", "num_workers": 2}):
        config = VecenvConfig(num_envs=4, early_reset=False, **backend)  # pyright: ignore[reportArgumentType]
        vecenv = make_vecenv(config, [game], 7)
        assert len(getattr(vecenv, "processes", [])) == (2 if config.name == "multiprocessing" else 0)
        vecenv.async_reset(42)
        first = vecenv.recv()[0].copy()
        vecenv.send(np.ones(16, dtype=np.int32))
        seen.append((first, vecenv.recv()[0].copy()))
        vecenv.close()
    (serial_first, serial_next), (workers_first, workers_next) = seen
    assert np.array_equal(serial_first, workers_first)
    assert np.array_equal(serial_next, workers_next)
    assert not np.array_equal(serial_first, serial_next)


SPAWNED = """
import multiprocessing
import numpy as np
from scout.config import MissionConfig, VecenvConfig
from scout.vecenv import make_vecenv
from scout.mission import make_game
from scout.vecenv import make_vecenv

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    game = make_game(MissionConfig(max_steps=20))
    first = []
    for config in (VecenvConfig(num_envs=2), VecenvConfig(name="multiprocessing", num_envs=2, num_workers=2)):
        vecenv = make_vecenv(config, [game], run_seed=3)
        vecenv.async_reset(0)
        first.append(np.array(vecenv.recv()[0]))
        vecenv.close()
    print(np.array_equal(*first), first[0].shape)
"""


@pytest.mark.slow
def test_environments_start_in_spawned_processes(tmp_path: Path) -> None:
    """Where processes are spawned instead of forked, as on macOS, the workers make the same environments."""
    (tmp_path / "spawned.py").write_text(SPAWNED)
    result = run_script(str(tmp_path / "spawned.py"))
    assert result.stdout == "True (8, 200, 3)\n", result.stderr
