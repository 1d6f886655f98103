"""Missions: those of conf/ are cogames' own, and every name of cogames' works here."""

from pathlib import Path
from typing import Any

import pytest
from cogames.cogs_vs_clips.mission import CvCMission
from cogames.cogs_vs_clips.missions import get_core_missions
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.mapgen.mapgen import MapGen
from mettagrid.simulator import Simulation

from scout.cli import compose_experiment
from scout.config import MissionConfig
from scout.environment import with_map_seed
from scout.errors import ScoutError
from scout.mission import DIFFICULTIES, MISSION_VARIANTS, REWARD_VARIANTS, make_game

# The option in conf/mission, and the name and site under which cogames has the same mission.
COGAMES = {
    "scout_tutorial": ("scout_tutorial", "cogsguard_arena"),
    "miner_tutorial": ("miner_tutorial", "cogsguard_machina_1"),
    "aligner_tutorial": ("aligner_tutorial", "cogsguard_arena"),
    "scrambler_tutorial": ("scrambler_tutorial", "cogsguard_arena"),
    "arena": ("basic", "cogsguard_arena"),
    "machina_1": ("basic", "cogsguard_machina_1"),
}

WITHOUT_EFFECT = {
    *("standard", "hard", "single_use", "energy_crisis"),  # cogames reads none of what they set
    "super_charged",  # adds as much to the night as to the day, and cogames applies their difference alone
    "clips_medium",  # how cogames' clips are by default
    "small_50",  # the arena has this size
    "objective",  # a name for the rewards that are there
}

OWN_MISSION = '''
from scout.config import MissionConfig
from scout.mission import make_game

def tiny(config):
    """Two agents on the arena, and the steps that the config asks for."""
    return make_game(MissionConfig(num_agents=2, max_steps=config.max_steps))

NUMBER = 3
'''


def cogames_mission(option: str) -> CvCMission:
    """cogames' own mission of an option in conf/mission."""
    (mission,) = [found for found in get_core_missions() if (found.name, found.site.name) == COGAMES[option]]
    return mission


def weights(game: MettaGridConfig) -> list[dict[str, float]]:
    """Each agent's rewards and their weights."""
    return [{name: reward.weight for name, reward in agent.rewards.items()} for agent in game.game.agents]


def unlabelled(game: MettaGridConfig) -> MettaGridConfig:
    """The same game without its label, which names the mission and its variants."""
    return game.model_copy(update={"label": ""})


def refusal(**values: Any) -> str:
    """The message with which a mission is refused."""
    with pytest.raises(ScoutError) as error:
        make_game(MissionConfig(**values))
    return str(error.value)


# -- cogames' missions -------------------------------------------------------------------------------------------------


def test_every_core_mission_of_cogames_has_an_option() -> None:
    """The six options of conf/mission are the six core missions."""
    assert sorted(COGAMES.values()) == sorted((mission.name, mission.site.name) for mission in get_core_missions())


@pytest.mark.parametrize("option", COGAMES)
def test_a_mission_of_conf_is_cogames_own(option: str) -> None:
    """The option builds the very config that cogames builds, but for its label: same map, rules, events and rewards."""
    config = compose_experiment(f"mission={option}").mission
    ours, theirs = make_game(config), cogames_mission(option).make_env()
    assert ours.model_dump(exclude={"label"}) == theirs.model_dump(exclude={"label"})
    assert unlabelled(ours) == unlabelled(theirs)  # classes too, which a dump does not show


def test_building_a_mission_leaves_no_trace() -> None:
    """A mission built after one with many variants is the same as one built first."""
    before = make_game(MissionConfig()).model_dump()
    make_game(
        MissionConfig(variants=["forced_role_vibes", "braveheart", "small_50", "energized", "credit"], rewards={})
    )
    assert make_game(MissionConfig()).model_dump() == before


# -- cogames' names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("difficulty", [None, *DIFFICULTIES])
def test_every_difficulty_builds_a_game(difficulty: str | None) -> None:
    """Each difficulty of cogames', and none, gives a game of the config's number of agents."""
    config = MissionConfig(difficulty=difficulty)
    assert make_game(config).game.num_agents == config.agents_per_env


def test_difficulties_set_the_clips_events() -> None:
    """The clips scramble at no step with easy, at 50, 150 and 250 with medium, and at 50, 150 ... 950 with hard."""
    events = {name: make_game(MissionConfig(difficulty=name)).game.events for name in DIFFICULTIES}
    assert {name for name in events["easy"] if not name.startswith("weather_")} == set()
    assert events["medium"]["cogs_to_neutral"].timesteps == [50, 150, 250]
    assert events["hard"]["cogs_to_neutral"].timesteps == list(range(50, 1000, 100))


@pytest.mark.parametrize("variant", [*sorted(MISSION_VARIANTS), *sorted(REWARD_VARIANTS)])
def test_every_variant_builds_a_game_that_starts(variant: str) -> None:
    """Each variant of cogames' gives a game of the config's number of agents, whose map holds them all."""
    places = 4 if variant == "multi_team" else 20  # two teams must fill their places
    config = MissionConfig(variants=[variant], spawn_count=places, rewards={})
    game = make_game(config)
    simulation = Simulation(with_map_seed(game, 5))
    assert game.game.num_agents == simulation.num_agents == config.agents_per_env
    assert sum("agent_id" in thing for thing in simulation.grid_objects().values()) == config.agents_per_env
    simulation.close()


@pytest.mark.parametrize("variant", [*sorted(MISSION_VARIANTS), *sorted(REWARD_VARIANTS)])
def test_every_variant_is_applied(variant: str) -> None:
    """Each variant of cogames' changes the game, but for those that change nothing in cogames' own arena either."""
    config = MissionConfig(difficulty=None, variants=[], rewards={})
    plain, varied = make_game(config), make_game(config.model_copy(update={"variants": [variant]}))
    assert (unlabelled(varied) == unlabelled(plain)) == (variant in WITHOUT_EFFECT)


def test_variants_are_applied_in_their_order() -> None:
    """Of two variants that set the same thing the last one counts."""

    def build(*variants: str) -> MettaGridConfig:
        return unlabelled(make_game(MissionConfig(difficulty=None, variants=list(variants), rewards={})))

    assert build("clips_easy", "clips_hard") == build("clips_hard")
    assert build("clips_hard", "clips_easy") == build("clips_easy")
    assert build("clips_easy") != build("clips_hard")


@pytest.mark.parametrize(
    ("values", "start", "valid"),
    [
        (
            {"difficulty": "medum"},
            "mission.difficulty=medum is unknown; did you mean medium? valid: ",
            ["easy", "medium", "hard"],
        ),
        (
            {"variants": ["scout_rewards", "scout_reward"]},
            "mission.variants=scout_reward is unknown; did you mean scout_rewards? valid: ",
            [*MISSION_VARIANTS, *REWARD_VARIANTS],
        ),
        (
            {"rewards": {"cell_visitd": 1.0}},
            "mission.rewards.cell_visitd=1.0: this mission has no such reward; set it to null or add the variant "
            "that brings it; did you mean cell_visited? valid: ",
            ["aligned_junction_held", "cell_visited", "scout_gained", "scout_lost"],
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_one(values: dict[str, Any], start: str, valid: list[str]) -> None:
    """The message names the key, the value, the nearest spelling, and all of the right ones."""
    message = refusal(**values)
    assert message.startswith(start)
    assert sorted(message.removeprefix(start).split(", ")) == sorted(valid)


# -- keys of the mission -----------------------------------------------------------------------------------------------


def test_reward_weights_reach_every_agent() -> None:
    """A weight under mission.rewards is that of each of the three agents, and the others stay as they were."""
    game = make_game(MissionConfig(num_agents=3, rewards={"cell_visited": 0.5, "scout_lost": -7.0}))
    expected = {"aligned_junction_held": 0.001, "scout_gained": 2.0, "scout_lost": -7.0, "cell_visited": 0.5}
    assert weights(game) == [expected] * 3


def test_a_weight_of_null_is_cogames_own() -> None:
    """null leaves a reward as cogames made it: aligned_junction_held is 1 / max_steps."""
    names = ("aligned_junction_held", "scout_gained", "scout_lost", "cell_visited")
    game = make_game(MissionConfig(max_steps=500, rewards=dict.fromkeys(names)))
    expected = {"aligned_junction_held": 0.002, "scout_gained": 2.0, "scout_lost": -2.0, "cell_visited": 0.0001}
    assert weights(game) == [expected] * 4


def test_a_weight_of_null_may_name_a_reward_that_is_not_there() -> None:
    """A mission's rewards can be set to null and its reward variant left out, to be rid of them."""
    game = make_game(MissionConfig(variants=[], rewards={"scout_gained": None}))
    assert weights(game) == [{"aligned_junction_held": 0.001}] * 4


def test_a_reward_variant_brings_its_rewards() -> None:
    """cogames' reward variants are applied before the weights, so that their rewards can be weighted."""
    config = MissionConfig(variants=["scout", "no_objective"], rewards={"cell_visited": 3.0})
    assert weights(make_game(config)) == [{"scout_gained": 2.0, "scout_lost": -2.0, "cell_visited": 3.0}] * 4


def test_the_keys_of_the_mission_reach_the_game() -> None:
    """Agents, steps, places, heart limit and site are in the config that the simulator gets."""
    config = MissionConfig(num_agents=3, max_steps=77, spawn_count=5, heart_limit=9, site="cogsguard_machina_1")
    game = make_game(config)
    assert isinstance(game.game.map_builder, MapGen.Config)
    built = game.game.map_builder
    assert (game.game.num_agents, len(game.game.agents), game.game.max_steps) == (3, 3, 77)
    assert (built.width, built.height, getattr(built.instance, "spawn_count", None)) == (88, 88, 5)
    assert {agent.inventory.limits["heart"].max for agent in game.game.agents} == {9}


@pytest.mark.parametrize(("hearts", "expected"), [(0, 0), (12, 12), (None, 10)])
def test_the_team_reaches_the_game(hearts: int | None, expected: int) -> None:
    """The hub starts with the team's hearts, by default 5 x wealth, and its elements grow with its wealth."""
    rich, poor = (make_game(MissionConfig(team={"wealth": wealth, "initial_hearts": hearts})) for wealth in (2, 1))  # pyright: ignore[reportArgumentType]
    assert rich.game.objects["c:hub"].inventory.initial["heart"] == expected  # pyright: ignore[reportAttributeAccessIssue]
    rich_elements, poor_elements = (game.game.collectives["cogs"].inventory.initial for game in (rich, poor))
    assert rich_elements == {element: 2 * amount for element, amount in poor_elements.items()}
    assert sum(poor_elements.values()) > 0


# -- a mission of one's own --------------------------------------------------------------------------------------------


@pytest.fixture
def own_mission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a mission in a folder on the path."""
    (tmp_path / "own_mission.py").write_text(OWN_MISSION)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_mission")
def test_a_mission_of_ones_own_is_built() -> None:
    """mission.target names the function that builds the game from this very config."""
    game = make_game(MissionConfig(target="own_mission.tiny", num_agents=2, max_steps=33))
    assert (game.game.num_agents, game.game.max_steps) == (2, 33)


@pytest.mark.usefixtures("own_mission")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"target": "own_mission.tiny", "name": "mine"},
            "mission.num_agents=4: the mission mine was built for 2 agents; set mission.num_agents=2",
        ),
        (
            {"target": "own_mission"},
            "mission.target=own_mission is not valid: expected module.attribute, such as my_module.Net",
        ),
        (
            {"target": "own_mission.tny"},
            "mission.target=own_mission.tny cannot be loaded: module 'own_mission' has no attribute 'tny'",
        ),
        (
            {"target": "no_such_module.tiny"},
            "mission.target=no_such_module.tiny cannot be loaded: No module named 'no_such_module'; it is looked for "
            "in the folder that the command is given in, and in PYTHONPATH",
        ),
        (
            {"target": "own_mission.NUMBER"},
            "mission.target=own_mission.NUMBER is a int: expected a class or a function",
        ),
    ],
)
def test_a_wrong_mission_of_ones_own_is_answered(values: dict[str, Any], message: str) -> None:
    """A wrong number of agents, a missing module or function and what cannot be called are named under the key."""
    assert refusal(**values) == message


def test_variants_that_cogames_cannot_build_together_are_an_error_that_names_them() -> None:
    """Contradicting variants are the user's mistake, not a fault of the program."""
    message = r"^mission\.variants=\['all_clips', 'no_clips'\]: cogames cannot build them together \(KeyError"
    with pytest.raises(ScoutError, match=message):
        make_game(MissionConfig(variants=["all_clips", "no_clips"], rewards={}))


def test_a_mission_of_ones_own_that_makes_something_else_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that forgot its return is told so, instead of failing somewhere later."""
    (tmp_path / "forgetful.py").write_text("def mission(config):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ScoutError, match=r"^mission\.target=forgetful\.mission made a NoneType: expected a MettaGrid"):
        make_game(MissionConfig(target="forgetful.mission"))
