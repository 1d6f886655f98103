"""The replay file: a whole episode in mettascope's format, or none."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mettagrid.simulator import Simulation

from scout.config import MissionConfig
from scout.environment import with_map_seed
from scout.errors import ScoutError
from scout.mission import make_game
from scout.policies import RandomPolicy
from scout.replay import ReplayRecorder
from scout.rollout import play

STEPS = 15
GAME = make_game(MissionConfig(max_steps=STEPS))
# What a replay must have and the one version that mettascope reads: its validation.nim and replays.nim.
REQUIRED = {"version", "num_agents", "max_steps", "map_size", "action_names", "item_names", "type_names", "objects"}
VERSION = 4


def read(path: Path) -> dict[str, Any]:
    """What a replay file holds."""
    return json.loads(zlib.decompress(path.read_bytes()))


def value_at(changes: Any, step: int) -> Any:
    """What a time series says at a step: a single value, or that of the last change until then."""
    if not (isinstance(changes, list) and changes and isinstance(changes[0], list) and len(changes[0]) == 2):
        return changes
    return [value for changed, value in changes if changed <= step][-1]


def record(path: Path, error: type[BaseException] | None = None, at_step: int = 0, **options: Any) -> None:
    """Records the first of two episodes of random play, unless something goes wrong at a step."""

    def on_step(simulation: Simulation) -> None:
        if error is not None and simulation.current_step == at_step:
            raise error

    with ReplayRecorder(path, **options) as recorder:
        play(RandomPolicy(), GAME, 0, [0, 1], on_step, event_handlers=[recorder.event_handler])


def test_a_replay_has_every_step_of_the_episode(tmp_path: Path) -> None:
    """It has the version and the keys that mettascope asks for, as many steps, and every object of the map."""
    record(tmp_path / "episode.json.z")
    replay = read(tmp_path / "episode.json.z")
    assert replay.keys() >= REQUIRED
    assert (replay["version"], replay["max_steps"], replay["num_agents"]) == (VERSION, STEPS, 4)
    assert replay["infos"]["attributes"]["steps"] == STEPS
    kinds = [value_at(thing["type_name"], 0) for thing in replay["objects"]]
    assert kinds.count("agent") == 4
    assert kinds.count("c:hub") == 1
    assert kinds.count("wall") > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["episode.json.z"]


def test_a_replay_has_the_agents_where_they_were(tmp_path: Path) -> None:
    """Played again with the actions that the replay holds, each agent is where the replay has it, step by step."""
    recorder = ReplayRecorder(tmp_path / "episode.json.z")
    simulation = Simulation(with_map_seed(GAME, 3), seed=0, event_handlers=[recorder.event_handler])
    generator = np.random.default_rng(0)
    places = []
    while not simulation.is_done():
        simulation._c_sim.actions()[:] = generator.integers(5, size=4)
        simulation.step()
        things = simulation.grid_objects(ignore_types=["wall"]).values()
        places.append({thing["agent_id"]: [thing["c"], thing["r"]] for thing in things if "agent_id" in thing})
    simulation.close()
    recorder.close()
    agents = {thing["agent_id"]: thing for thing in read(tmp_path / "episode.json.z")["objects"] if "agent_id" in thing}
    assert len(places) == STEPS
    assert places[0] != places[-1]
    for step, where in enumerate(places):
        assert {agent: value_at(thing["location"], step) for agent, thing in agents.items()} == where


def test_an_existing_replay_is_replaced_only_when_asked(tmp_path: Path) -> None:
    """Without overwrite the file stays as it was; with it the replay takes its place."""
    path = tmp_path / "episode.json.z"
    path.write_text("mine")
    with pytest.raises(ScoutError, match="exists already"):
        record(path)
    assert path.read_text() == "mine"
    record(path, overwrite=True)
    assert read(path)["max_steps"] == STEPS


@pytest.mark.parametrize(("error", "at_step"), [(KeyboardInterrupt, 5), (ValueError, 5), (ValueError, STEPS)])
def test_an_episode_that_breaks_off_leaves_no_replay(error: type[BaseException], at_step: int, tmp_path: Path) -> None:
    """Whatever passes through the recorder, in mid-episode or at its end, the folder is empty afterwards."""
    with pytest.raises(error):
        record(tmp_path / "episode.json.z", error, at_step)
    assert list(tmp_path.iterdir()) == []
