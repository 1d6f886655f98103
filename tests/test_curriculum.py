"""Missions in turn: which of them an environment plays in which episode, and that it really is that one."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from curriculum_helpers import NAMES, three
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.map_builder.random_map import RandomMapBuilder
from mettagrid.simulator import Simulator

from scout.config import VecenvConfig
from scout.environment import EnvFactory, Turns, training_map_seed, with_map_seed
from scout.lean_env import LeanEnv, Start
from scout.vecenv import make_vecenv

LETTERS: dict[str, str] = dict(zip(NAMES, "ABC", strict=True))
IN_TURN = Turns(missions=3, episodes=1, stagger=True)


def letter_of(game: MettaGridConfig) -> str:
    """A for the first of the three missions, by the name in the game's label."""
    (name,) = {name for name in NAMES if f".{name}." in game.label}
    return LETTERS[name]


def environment(index: int, max_steps: int, seed: int = 7, start: Start | None = None, **options: Any) -> LeanEnv:
    """One of a run's environments, after its first reset."""
    _, games = three(max_steps)
    options = {"early_reset": False, "turns": IN_TURN, **options}
    env = EnvFactory(games, seed, "spread", **options)(seed=index, start=start)
    env.reset()
    return env


def actions_of(episode: int, steps: int) -> np.ndarray:
    """Random actions of four agents, int32 [steps, agents], the same for every call."""
    return np.random.default_rng(episode).integers(5, size=(steps, 4)).astype(np.int32)


# -- whose turn it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stagger", "episodes", "expected"),
    [
        (True, 1, ["ABCAB", "BCABC", "CABCA", "ABCAB"]),
        (True, 2, ["AABBC", "BBCCA", "CCAAB", "AABBC"]),
        (False, 1, ["ABCAB"] * 4),
        (False, 2, ["AABBC"] * 4),
    ],
)
def test_the_missions_of_the_first_episodes(stagger: bool, episodes: int, expected: Sequence[str]) -> None:
    """Four environments play three missions as the table says, and what they tell of each episode is of its mission."""
    _, games = three(max_steps=3)
    config = VecenvConfig(num_envs=4, early_reset=False)
    vecenv = make_vecenv(config, games, run_seed=7, turns=Turns(3, episodes, stagger))
    vecenv.async_reset(42)
    vecenv.recv()
    played, told = [""] * 4, [""] * 4
    for _ in range(5):
        for index, env in enumerate(vecenv.envs):
            assert letter_of(env.env_cfg) == letter_of(env.current_simulation.config)
            played[index] += letter_of(env.current_simulation.config)
        for step in range(4):  # the third ends all episodes, and the one after it begins the next ones
            vecenv.send(np.ones(16, dtype=np.int32))
            infos = vecenv.recv()[5]
            assert len(infos) == (4 if step == 2 else 0)
            for index, info in enumerate(infos):
                told[index] += "ABC"[info["mission"]]
    vecenv.close()
    assert played == told == expected


def test_a_map_that_no_seed_makes_does_not_stop_the_turns() -> None:
    """The simulator counts the maps of seeded builders alone; the turns count episodes: A, B, C, A, B."""
    _, games = three(3)
    builder = RandomMapBuilder.Config(width=20, height=20, agents=4, objects={})
    games[1].game.map_builder = builder
    env = EnvFactory(games, 7, "spread", early_reset=False, turns=IN_TURN)(seed=0)
    env.reset()
    played = []
    while len(played) < 5:
        *_, infos = env.step(np.zeros(4, dtype=np.int32))
        played += [infos["mission"]] if infos else []
    assert played == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("stale", [False, True])
def test_an_episode_that_was_cut_short_is_one(stale: bool) -> None:
    """After an early reset comes the next mission, in whole episodes, also where they begin in upstream's way."""
    env = environment(1, max_steps=10, early_reset=True, stale_first_action=stale)
    ended = []
    while len(ended) < 4:
        *_, infos = env.step(np.zeros(4, dtype=np.int32))
        if infos:
            ended.append((infos["mission"], infos["attributes"]["steps"]))
    (first, cut), *others = ended
    assert cut < 10
    assert (first, others) == (1, [(2, 10), (0, 10), (1, 10)])


def test_a_rank_goes_on_counting_where_the_one_before_it_ended() -> None:
    """The second environment of a rank whose first one is the run's fifth begins as the run's sixth: with the third."""
    env = environment(1, max_steps=3, first_environment=4)
    assert letter_of(env.env_cfg) == letter_of(environment(5, max_steps=3).env_cfg) == "C"


# -- what is played ----------------------------------------------------------------------------------------------------


def alone(game: MettaGridConfig, map_seed: int, seed: int) -> MettaGridPufferEnv:
    """Upstream's environment of one mission, whose first episode is played on the map of `map_seed`."""
    env = MettaGridPufferEnv(Simulator(), with_map_seed(game, map_seed - 1), seed=seed)
    env.reset()
    return env


def test_each_episode_is_that_of_an_environment_of_its_mission_alone() -> None:
    """From the first observation to the end: the same observations, rewards and ends as upstream's environment.

    With the same maps and actions, over all three missions and the first one again, and with returns of their own.
    """
    steps = 25
    env, (_, games) = environment(1, max_steps=steps), three(max_steps=steps)
    returns = []
    for episode, mission in enumerate((1, 2, 0, 1)):
        plain = alone(games[mission], training_map_seed(7, 1) + 1 + episode, seed=7 + 1)
        assert np.array_equal(env.observations, plain.observations)
        earned, infos = np.zeros(4), {}
        for actions in actions_of(episode, steps):
            (*ours, infos), (*theirs, _) = env.step(actions), plain.step(actions)
            for own, other in zip(ours, theirs, strict=True):
                assert np.array_equal(own, other)
            earned += ours[1]
        assert env.terminals.all()
        assert infos["mission"] == mission
        assert infos["return"] == pytest.approx(earned.mean(), rel=1e-5)
        returns.append(infos["return"])
        env.step(actions_of(0, 1)[0])  # begins the next episode
    assert returns[1] == 0
    assert min(returns[0], returns[2], returns[3]) > 0


def test_the_missions_do_pay_differently() -> None:
    """On one map and with the same actions, the first and the third mission show the same and pay 1 a cell or nothing.

    So that the test before this one tells them apart.
    """
    _, games = three(max_steps=25)
    paid, _, unpaid = (alone(game, 9, seed=1) for game in games)
    rewards = np.zeros(2)
    for actions in actions_of(0, 25):
        (seen, one, *_), (seen_too, other, *_) = paid.step(actions), unpaid.step(actions)
        assert np.array_equal(seen, seen_too)
        rewards += one.sum(), other.sum()
    assert rewards[0] == int(rewards[0]) > 0
    assert rewards[1] == 0


def test_an_environment_that_is_rebuilt_goes_on_in_its_mission() -> None:
    """Made anew within its third episode, it shows what the one that had played until there does, and goes on alike."""
    played = environment(1, max_steps=6)
    for episode in range(2):
        for actions in [*actions_of(episode, 6), actions_of(9, 1)[0]]:
            played.step(actions)
    for actions in actions_of(2, 4):
        played.step(actions)
    rebuilt = environment(1, max_steps=6, start=Start(2, actions_of(2, 4)))
    assert letter_of(rebuilt.env_cfg) == letter_of(played.env_cfg) == "A"
    assert np.array_equal(rebuilt.observations, played.observations)
    told = []
    for actions in [*actions_of(3, 3), *actions_of(4, 6)]:  # the end of this episode, and the whole next one
        (*ours, infos), (*theirs, their_infos) = rebuilt.step(actions), played.step(actions)
        assert all(np.array_equal(own, other) for own, other in zip(ours, theirs, strict=True))
        assert infos.get("mission") == their_infos.get("mission")
        told += [infos["mission"]] if infos else []
    assert told == [0, 1]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_worker_processes_play_what_serial_environments_do() -> None:
    """Four environments in two processes: the same observations, rewards and missions at each of three episodes' steps.

    The processes play them as stages, two episodes long, all together.
    """
    _, games = three(max_steps=5)
    played: list[list[Any]] = []
    for backend in ({"name": "serial"}, {"name": "multiprocessing", "num_workers": 2}):
        config = VecenvConfig(num_envs=4, early_reset=False, **backend)  # pyright: ignore[reportArgumentType]
        vecenv = make_vecenv(config, games, run_seed=7, turns=Turns(3, 2, False))
        vecenv.async_reset(42)
        steps = [vecenv.recv()[0].copy()]
        missions = []
        for actions in np.random.default_rng(0).integers(5, size=(18, 16)).astype(np.int32):
            vecenv.send(actions)
            observations, rewards, *_, infos, _, _ = vecenv.recv()
            steps += [observations.copy(), rewards.copy()]
            missions += [info["mission"] for info in infos if info]
        vecenv.close()
        played.append([steps, missions])
    (serial, missions), (workers, their_missions) = played
    assert missions == their_missions == [0] * 8 + [1] * 4
    assert all(np.array_equal(one, other) for one, other in zip(serial, workers, strict=True))
