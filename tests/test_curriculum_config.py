"""Missions in turn, as they are configured: how they are composed, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from config_helpers import nested, refusal
from conftest import TINY, merge, tiny_experiment
from curriculum_helpers import OTHERS, in_turn

from scout.cli import compose_experiment
from scout.config import Experiment
from scout.errors import ScoutError
from scout.mission import make_game, make_games
from scout.resume import changes
from scout.training import train
from scout.validation import unknown_key

TUTORIALS = ("scout_tutorial", "miner_tutorial", "aligner_tutorial", "scrambler_tutorial")


# -- composing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, {"max_steps": 500, "num_agents": 6}])
def test_the_tutorials_are_those_of_conf_with_the_first_ones_agents_and_steps(changed: dict[str, int]) -> None:
    """`curriculum=tutorials` has the options of conf/mission, and follows mission.num_agents and mission.max_steps."""
    overrides = [f"mission.{key}={value}" for key, value in changed.items()]
    composed = compose_experiment("curriculum=tutorials", *overrides).missions
    assert [mission.name for mission in composed] == [*TUTORIALS]
    assert composed == tuple(compose_experiment(f"mission={name}", *overrides).mission for name in TUTORIALS)


def test_one_network_can_play_all_tutorials() -> None:
    """They make four games, each of its own mission, with the same observations and actions."""
    experiment = compose_experiment("curriculum=tutorials")
    games = make_games(experiment, make_game(experiment.mission))
    assert [game.label.split(".")[1] for game in games] == [*TUTORIALS]


def test_a_mission_can_be_taken_out() -> None:
    """`~curriculum.missions.miner_tutorial` leaves the other three, as they were, and lets it be the first."""
    without = compose_experiment("curriculum=tutorials", "~curriculum.missions.miner_tutorial")
    whole = compose_experiment("curriculum=tutorials")
    assert without.missions == tuple(mission for mission in whole.missions if mission.name != "miner_tutorial")
    overrides = ("mission=miner_tutorial", "~curriculum.missions.miner_tutorial")
    others = compose_experiment("curriculum=tutorials", *overrides)
    assert [mission.name for mission in others.missions] == ["miner_tutorial", "aligner_tutorial", "scrambler_tutorial"]


def test_a_key_of_one_mission_changes_it_alone() -> None:
    """`curriculum.missions.miner_tutorial.heart_limit=3` is no other mission's."""
    changed = compose_experiment("curriculum=tutorials", "curriculum.missions.miner_tutorial.heart_limit=3")
    whole = compose_experiment("curriculum=tutorials")
    expected = {mission.name: mission for mission in whole.missions}
    expected["miner_tutorial"] = expected["miner_tutorial"].model_copy(update={"heart_limit": 3})
    assert changed.missions == tuple(expected.values())


def test_without_a_curriculum_there_is_one_mission() -> None:
    """The default run plays its mission alone."""
    experiment = compose_experiment()
    assert experiment.missions == (experiment.mission,)


# -- what is refused ---------------------------------------------------------------------------------------------------

KEY = "curriculum.missions.large"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "agents": (
        nested(f"{KEY}.num_agents", 3),
        f"{KEY}.num_agents=3 makes 3 agents of an environment, and mission.num_agents=4 makes 4: all must have as many",
    ),
    "two teams": (
        nested(KEY, {"variants": ["multi_team"], "spawn_count": 4}),
        f"{KEY}.num_agents=4 makes 8 agents of an environment, and mission.num_agents=4 makes 4: all must have as many",
    ),
    "steps": (
        nested(f"{KEY}.max_steps", 30),
        f"{KEY}.max_steps=30 must be mission.max_steps=20: episodes of all missions are of one length",
    ),
    "the same twice": (
        nested("mission.name", "large"),
        f"mission=large is in the curriculum, which has {KEY}, too: take it out with ~{KEY}",
    ),
    "consecutive maps": (
        nested("vecenv.map_seeds", "consecutive"),
        "vecenv.map_seeds=consecutive is the seed's way, for one mission: take vecenv.map_seeds=spread",
    ),
    "another name": (
        nested(f"{KEY}.name", "small"),
        f"{KEY}.name=small is not valid: expected large, the name that the curriculum gives it",
    ),
    "an unknown key": (
        nested(f"{KEY}.heart_limt", 3),
        f"{KEY}.heart_limt=3 is not a key in {KEY}; did you mean heart_limit? valid: difficulty, heart_limit, "
        "max_steps, name, num_agents, rewards, site, spawn_count, target, team, variants",
    ),
    "an unknown key of a group": (
        nested(f"{KEY}.team.welth", 3),
        f"{KEY}.team.welth=3 is not a key in {KEY}.team; did you mean wealth? valid: initial_hearts, wealth",
    ),
    "too few places": (
        nested(f"{KEY}.spawn_count", 3),
        f"{KEY}.num_agents=4 does not fit {KEY}.spawn_count=3: the map needs a place for each agent; "
        f"set {KEY}.spawn_count=4 or more",
    ),
    "a wrong value": (
        nested(f"{KEY}.heart_limit", "many"),
        f"{KEY}.heart_limit=many is not valid: expected a valid integer",
    ),
    "a wrong weight": (
        nested(f"{KEY}.rewards.cell_visited", "much"),
        f"{KEY}.rewards.cell_visited=much is not valid: expected a valid number",
    ),
    "no name": (
        nested("curriculum.name", "none"),
        "curriculum.name=none has missions (large, unpaid): give the curriculum another name",
    ),
    "a mission in part": (
        nested("curriculum.missions.other", {"name": "other", "heart_limit": 3}),
        "curriculum.missions.other lacks difficulty, max_steps, num_agents, rewards, site, spawn_count, target, team, "
        "variants: a mission is given whole, as +mission@curriculum.missions.other=OPTION, or "
        "/mission@missions.other: OPTION in a file's defaults",
    ),
    "no episode": (
        nested("curriculum.episodes", 0),
        "curriculum.episodes=0 is not valid: expected greater than or equal to 1",
    ),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED)
def test_missions_that_cannot_be_played_in_turn_are_refused(changed: dict[str, Any], message: str) -> None:
    """The message names the key within the curriculum, the values that do not fit, and what would; it is all."""
    assert refusal(**merge(merge(TINY, in_turn()), changed)) == message


def test_every_mission_that_does_not_fit_is_named() -> None:
    """With another number of steps in the first mission, both others are refused, a line each."""
    lines = refusal(**merge(merge(TINY, in_turn()), nested("mission.max_steps", 30))).splitlines()
    assert [line.split("=")[0] for line in lines] == [f"curriculum.missions.{name}.max_steps" for name in OTHERS]


@pytest.mark.parametrize(
    ("turns", "shown"),
    [
        ({"episodes": 2}, "curriculum.episodes=2 and curriculum.stagger=true"),
        ({"stagger": False}, "curriculum.episodes=1 and curriculum.stagger=false"),
    ],
)
def test_turns_without_missions_are_refused(turns: dict[str, Any], shown: str) -> None:
    """What would have no effect is no key that one may set."""
    expected = f"{shown} have no effect without missions: take curriculum=tutorials, or leave them out"
    assert refusal(curriculum=turns) == expected


OTHERS_SEEN: dict[str, tuple[dict[str, Any], str]] = {
    "obs_features": ({"variants": ["scout_rewards", "forced_role_vibes"]}, "obs_features"),
    "tags": ({"variants": ["scout_rewards", "multi_team"], "num_agents": 2, "spawn_count": 2}, "tags"),
    "tokens": ({"target": "own_missions.of_few_tokens"}, "observation_shape"),
    "window": ({"target": "own_missions.of_a_narrow_window"}, "egocentric_shape"),
}


@pytest.mark.parametrize(("mission", "what"), OTHERS_SEEN.values(), ids=OTHERS_SEEN)
def test_a_mission_with_other_observations_is_refused(mission: dict[str, Any], what: str) -> None:
    """Other features, tags, tokens or windows than the first mission's are named, with how to leave the mission out."""
    experiment = tiny_experiment(**merge(in_turn(), nested(KEY, mission)))
    with pytest.raises(ScoutError) as error:
        make_games(experiment, make_game(experiment.mission))
    assert str(error.value) == (
        f"{KEY} has other {what} than mission=scout_tutorial: one network cannot play both; take it out with ~{KEY}"
    )


def test_a_mission_whose_variants_make_it_shorter_is_refused() -> None:
    """speed_run sets 600 steps, whatever max_steps says."""
    experiment = tiny_experiment(**merge(in_turn(), nested(KEY, {"variants": ["scout_rewards", "speed_run"]})))
    with pytest.raises(ScoutError) as error:
        make_games(experiment, make_game(experiment.mission))
    assert str(error.value) == (
        f"{KEY} has episodes of 600 steps and mission=scout_tutorial of 20: episodes of all missions are of one length"
    )


def test_a_wrong_key_on_the_command_line_is_answered_by_the_missions_keys() -> None:
    """Hydra asks about the whole key; the nearest one among those of that mission is named, not how to add it."""
    key = "curriculum.missions.miner_tutorial"
    assert unknown_key(Experiment, f"{key}.heart_limt", 3).startswith(
        f"{key}.heart_limt=3 is not a key in {key}; did you mean heart_limit? valid: difficulty, "
    )


def test_a_mission_that_cannot_be_built_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    """A variant that cogames does not know is answered under the mission's name, and there is no run yet."""
    experiment = tiny_experiment(**merge(in_turn(), nested(KEY, {"variants": ["scout_reward"]})))
    with pytest.raises(ScoutError) as error:
        train(experiment, tmp_path / "run")
    start = f"{KEY}: mission.variants=scout_reward is unknown; did you mean scout_rewards? valid: "
    assert str(error.value).startswith(start)
    assert not (tmp_path / "run" / "status.json").exists()


def reordered(curriculum: dict[str, Any]) -> dict[str, Any]:
    """The same missions, the last first."""
    return {**curriculum, "missions": dict(reversed(curriculum["missions"].items()))}


@pytest.mark.parametrize(
    ("goes_on_with", "named"),
    [
        (in_turn(stagger=False), "curriculum.stagger=False cannot be resumed with, the run has True"),
        (in_turn(episodes=2), "curriculum.episodes=2 cannot be resumed with, the run has 1"),
        (
            merge(in_turn(), nested(f"{KEY}.heart_limit", 3)),
            f"{KEY}.heart_limit=3 cannot be resumed with, the run has 10",
        ),
        (
            {"mission": in_turn()["mission"]},
            "curriculum.missions=[] cannot be resumed with, the run has ['large', 'unpaid']",
        ),
        (
            {**in_turn(), "curriculum": reordered(in_turn()["curriculum"])},
            "curriculum.missions=['unpaid', 'large'] cannot be resumed with, the run has ['large', 'unpaid']",
        ),
    ],
    ids=["turns", "episodes", "a key of a mission", "none", "another order"],
)
def test_a_run_does_not_go_on_with_another_curriculum(goes_on_with: dict[str, Any], named: str) -> None:
    """The refusal names the key, both values, and why it cannot change."""
    with pytest.raises(ScoutError) as error:
        changes(tiny_experiment(**in_turn()), tiny_experiment(**goes_on_with))
    reason = "its environments are in the middle of episodes, each of the mission whose turn it was"
    assert f"{named}: {reason}\n" in str(error.value)
