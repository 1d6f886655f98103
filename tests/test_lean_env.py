"""The lean environment against MettaGridPufferEnv, step by step."""

from typing import Any

import mettagrid.config.mettagrid_c_config as c_config
import numpy as np
import pytest
from curriculum_helpers import three
from mettagrid.envs.early_reset_handler import EarlyResetHandler
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.envs.stats_tracker import StatsTracker
from mettagrid.simulator import Simulator
from mettagrid.util.stats_writer import NoopStatsWriter

from scout.config import MissionConfig
from scout.environment import EnvFactory, Turns, with_map_seed
from scout.lean_env import LeanEnv
from scout.mission import make_game

MAX_STEPS = 60
MISSIONS: dict[str, dict[str, Any]] = {
    "scout_tutorial": {},
    "arena_with_clips": {"difficulty": "medium", "variants": [], "rewards": {}, "num_agents": 3},
}


def pair(mission: dict[str, Any], early_reset: bool) -> tuple[LeanEnv, MettaGridPufferEnv]:
    """A lean environment and upstream's, with the same seeds."""
    game = make_game(MissionConfig(max_steps=MAX_STEPS, **mission))
    np.random.seed(5)  # upstream's early reset draws from numpy's global generator
    lean = LeanEnv(with_map_seed(game, 9), 3, EarlyResetHandler() if early_reset else None, stale_first_action=True)
    simulator = Simulator()
    simulator.add_event_handler(StatsTracker(NoopStatsWriter()))
    if early_reset:
        np.random.seed(5)
        simulator.add_event_handler(EarlyResetHandler())
    return lean, MettaGridPufferEnv(simulator, with_map_seed(game, 9), seed=3)


def without_clocks(infos: dict[str, Any]) -> dict[str, Any]:
    """Infos but for what a clock wrote: the timings, and when the episode was completed."""
    infos = {key: value for key, value in infos.items() if not key.startswith("timing_")}
    attributes = {key: value for key, value in infos.get("attributes", {}).items() if key != "completion_time"}
    return infos | {"attributes": attributes} if attributes else infos


@pytest.mark.parametrize("early_reset", [False, True])
@pytest.mark.parametrize("mission", MISSIONS)
def test_every_step_equals_upstreams(mission: str, early_reset: bool) -> None:
    """Over four episodes: the same observations, rewards, ends and infos at each step, clocks aside."""
    lean, upstream = pair(MISSIONS[mission], early_reset)
    assert np.array_equal(lean.reset()[0], upstream.reset()[0])
    generator = np.random.default_rng(0)
    ended, own_infos, other_infos = 0, {}, {}
    while ended < 4:
        actions = generator.integers(5, size=lean.num_agents).astype(np.int32)
        (*own, own_infos), (*other, other_infos) = lean.step(actions), upstream.step(actions)
        for ours, theirs in zip(own, other, strict=True):
            assert np.array_equal(ours, theirs)
        assert without_clocks(own_infos) == without_clocks(other_infos)
        assert bool(own_infos) == bool(own[2].all() or own[3].all())
        ended += bool(own_infos)
    assert "timing_per_epoch" in other_infos
    assert "timing_per_epoch" not in own_infos


def test_an_episode_begins_with_its_first_observation() -> None:
    """After an end, the next step shows what a reset shows, with reward 0 and no end, and its actions do nothing."""
    game = make_game(MissionConfig(max_steps=5))
    lean, fresh = (LeanEnv(with_map_seed(game, seed), 3) for seed in (9, 10))
    for env in (lean, fresh):
        env.reset()  # the simulation before it does not write into the environment's buffers, upstream's neither
    generator = np.random.default_rng(0)
    for _ in range(5):
        lean.step(generator.integers(5, size=4).astype(np.int32))
    assert lean.terminals.all()
    last = lean.observations.copy()
    observations, rewards, terminals, truncations, infos = lean.step(np.full(4, 2, dtype=np.int32))
    assert not np.array_equal(observations, last)
    assert np.array_equal(observations, fresh.observations)  # the third map of seed 9 is the second of seed 10
    assert (rewards == 0).all()
    assert not terminals.any()
    assert not truncations.any()
    assert infos == {}
    assert lean.current_simulation.current_step == 0


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every game that was turned into the simulator's own config, in their order."""
    games: list[Any] = []
    convert = c_config.convert_to_cpp_game_config

    def noted(game: Any) -> Any:
        games.append(game)
        return convert(game)

    monkeypatch.setattr(c_config, "convert_to_cpp_game_config", noted)
    return games


def test_the_simulators_config_is_made_once(converted: list[Any]) -> None:
    """Episodes of one environment share it, though each has a map of its own, and a new config is not overlooked."""
    first, second = (with_map_seed(make_game(MissionConfig(max_steps=steps)), 9) for steps in (5, 7))
    lean = LeanEnv(first, 3)
    for _ in range(3):
        lean.reset()
    assert [game.max_steps for game in converted] == [5]
    lean.set_mg_config(second)
    for _ in range(2):
        lean.reset()
    assert [game.max_steps for game in converted] == [5, 7]
    for step in range(7):
        _, _, terminals, _, _ = lean.step(np.zeros(4, dtype=np.int32))
        assert terminals.all() == (step == 6)


def test_the_simulators_config_is_made_once_for_each_mission(converted: list[Any]) -> None:
    """Over seven episodes of three missions in turn an environment converts three games, when first it plays them."""
    _, games = three(max_steps=5)
    env = EnvFactory(games, 7, "spread", early_reset=False, turns=Turns(3, 1, True))(seed=0)
    counts = [len(converted)]
    for _ in range(7):
        env.reset()
        counts.append(len(converted))
    assert counts == [1, 1, 2, 3, 3, 3, 3, 3]
    pays = [[agent.rewards["cell_visited"].weight for agent in game.agents] for game in converted]
    assert pays == [[1.0] * 4, [3.0] * 4, [0.0] * 4]
