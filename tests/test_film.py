"""Films and their pictures: what a picture shows is what the simulator says, and a film is whole or not there."""

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation

from scout import film as film_module
from scout.config import MissionConfig
from scout.environment import with_map_seed
from scout.errors import ScoutError
from scout.film import Film, check_film_path
from scout.heatmap import check_heatmap_path
from scout.mission import make_game
from scout.picture import STRIP_WIDTH, Picture, head_texts, shorten
from scout.policies import RandomPolicy
from scout.replay import check_replay_path
from scout.rollout import play
from scout.seen import SeenCells
from scout.sprites import load_sprite, thing_sprite
from scout.team_view import IN_VIEW, NEVER_SEEN, SEEN, TeamView, agent_colour

STEPS = 12
GAME = make_game(MissionConfig(max_steps=STEPS))


def simulation_of(**mission: Any) -> Simulation:
    """An episode on one fixed map."""
    return Simulation(with_map_seed(make_game(MissionConfig(**mission)), 3), seed=0)


def walk(simulation: Simulation, action: str, steps: int, *followers: Picture | TeamView | SeenCells) -> None:
    """Lets every agent take the same action, followed from before the first step."""
    for step in range(steps + 1):
        if step:
            simulation._c_sim.actions()[:] = simulation.action_ids[action]
            simulation.step()
        for follower in followers:
            follower.look()


def places_of(simulation: Simulation) -> list[tuple[int, int]]:
    """Row and column of each agent, as the simulator's own list of objects has them."""
    agents = [thing for thing in simulation.grid_objects().values() if "agent_id" in thing]
    return [(thing["r"], thing["c"]) for thing in sorted(agents, key=lambda thing: thing["agent_id"])]


def film_that_breaks_off(path: Path, error: type[BaseException]) -> None:
    """Begins a film, and then something goes wrong."""
    with Film(path, overwrite=True) as film:
        film.show(simulation_of())
        raise error


def film_whose_name_is_taken(path: Path) -> None:
    """Begins a film, under whose name another process writes a file meanwhile."""
    with Film(path) as film:
        film.show(simulation_of())
        path.write_text("mine")


def film_random_play(path: Path, **options: Any) -> None:
    """Films the first episode of random play, 12 steps."""
    with Film(path, **options) as film:
        play(RandomPolicy(), GAME, 0, [0, 1], film.show)


@pytest.mark.parametrize(
    ("mission", "size"),
    [
        ({}, (960, 728)),
        ({"num_agents": 20}, (960, 840)),
        ({"site": "cogsguard_machina_1", "num_agents": 2}, (952, 720)),
    ],
)
def test_a_picture_has_the_documented_size(mission: dict[str, Any], size: tuple[int, int]) -> None:
    """52 rows of 14 pixels (arena) or 90 of 8 (machina_1) beside a strip of 232, taller where 20 agents need it."""
    picture = Picture(simulation_of(**mission), "title", 736)
    picture.look()
    assert picture.size == size
    assert picture.draw().shape == (size[1], size[0], 3)
    assert picture.draw().dtype == np.uint8


def test_what_no_agent_has_seen_is_dark_and_what_is_in_view_is_bright() -> None:
    """Bare floor that was never seen is darker than floor seen before, and that darker than floor in view."""
    simulation = simulation_of()
    picture, team = Picture(simulation, "", 736), TeamView(simulation)
    walk(simulation, "move_south", 8, picture, team)
    near = np.zeros(team.light.shape, dtype=bool)  # within two cells of anything, so of shadows too
    for thing in simulation.grid_objects().values():
        near[max(0, thing["r"] - 2) : thing["r"] + 3, max(0, thing["c"] - 2) : thing["c"] + 3] = True
    for row, column in places_of(simulation):
        near[row - 9 : row, column] = True  # its trail
    drawn = picture.draw().mean(axis=2)

    def brightness(light: int) -> list[float]:
        cells = (np.argwhere((team.light == light) & ~near) - picture.corner) * picture.cell
        return [drawn[y : y + picture.cell, x : x + picture.cell].mean() for y, x in cells]

    never, before, now = (brightness(light) for light in (NEVER_SEEN, SEEN, IN_VIEW))
    assert min(len(never), len(before), len(now)) > 10
    assert max(never) < min(before)
    assert max(before) < min(now)


def test_what_counts_as_seen_is_what_the_evaluation_counts() -> None:
    """The cells that are not dark are exactly those that `cells_seen` of episodes.json counts."""
    simulation = simulation_of()
    team, seen = TeamView(simulation), SeenCells(simulation)
    walk(simulation, "move_east", 8, team, seen)
    assert np.array_equal(team.light > NEVER_SEEN, seen.cells)


def test_each_agent_is_drawn_where_the_simulator_has_it() -> None:
    """The pure colour of an agent, its ring's and its number's, is found around its cell and nowhere else."""
    simulation = simulation_of()
    picture = Picture(simulation, "", 736)
    walk(simulation, "move_west", 6, picture)
    drawn = picture.draw()[:, :-STRIP_WIDTH]
    for agent, (row, column) in enumerate(places_of(simulation)):
        own = (drawn == agent_colour(agent)).all(axis=2)
        middle = (np.array([row, column]) - picture.corner) * picture.cell + picture.cell // 2
        distances = np.abs(np.argwhere(own) - middle).max(axis=1)
        assert len(distances) > 20
        assert distances.max() <= 2 * picture.cell


def test_an_agent_that_takes_gear_looks_different() -> None:
    """On the map nothing but the sprite on that agent's cell changes."""
    simulation = simulation_of()
    picture = Picture(simulation, "", 736)
    walk(simulation, "move_west", 6, picture)
    before = picture.draw()
    simulation.agent(2).set_inventory({"energy": 30, "hp": 90, "scout": 1})
    changed = (picture.draw() != before).any(axis=2)[:, :-STRIP_WIDTH]
    middle = (np.array(places_of(simulation)[2]) - picture.corner) * picture.cell + picture.cell // 2
    distances = np.abs(np.argwhere(changed) - middle).max(axis=1)
    assert len(distances) > 50
    assert distances.max() <= 1.5 * picture.cell


def test_an_agent_faces_where_it_moved_last_and_leaves_a_trail() -> None:
    """After a step to the east that succeeded the agent looks east, and the cell that it left has its colour."""
    simulation = simulation_of(num_agents=1, spawn_count=1)
    picture, team = Picture(simulation, "", 736), TeamView(simulation)
    start = places_of(simulation)[0]
    before = picture.cell * (np.array(start) - picture.corner) + picture.cell // 2
    walk(simulation, "move_west", 5, picture, team)
    assert places_of(simulation) == [(start[0], start[1] - 5)] == [tuple(place) for place in team.places.tolist()]
    assert team.headings == ["w"]
    patch = picture.draw()[before[0] - 5 : before[0] + 5, before[1] - 5 : before[1] + 5].astype(int)
    blueness = patch[..., 2] - patch[..., 0]  # floor is browner than it is blue; agent 0 is blue
    assert blueness.max() > 60
    walk(simulation, "move_south", 1, team)
    assert team.headings == ["s"]


def test_the_strip_has_the_simulators_numbers() -> None:
    """Gear, energy, HP and return are those that each agent observes and the simulator adds up."""
    simulation = simulation_of()
    simulation.agent(2).set_inventory({"energy": 30, "hp": 90, "scout": 1})
    team = TeamView(simulation)
    walk(simulation, "move_south", 7, team)
    statuses = team.statuses(team.things())
    assert [status.number for status in statuses] == [0, 1, 2, 3]
    for status in statuses:
        held = simulation.agent(status.number).inventory  # decoded from the agent's own observation
        energy, hp = status.levels
        assert energy.text == f"{held['energy']}/{100 if status.number == 2 else 20}"
        assert hp.text == f"{held['hp']}/{400 if status.number == 2 else 100}"
        assert status.gear_text == ("scout" if status.number == 2 else "no gear")
        assert status.return_text == f"return {simulation.episode_rewards[status.number]:.2f}"
    mean = sum(simulation.episode_rewards.tolist()) / 4
    assert mean > 0
    assert head_texts(7, 1000, statuses, 1234, 3600) == [
        ("step", "7 of 1,000"),
        ("return per agent", f"{mean:.2f}"),
        ("cells seen", "1,234 of 3,600"),
    ]


def test_a_mission_without_energy_and_own_place_can_be_filmed() -> None:
    """In an empty room, where agents do not observe their place, they are followed by the simulator's objects."""
    simulation = Simulation(MettaGridConfig.EmptyRoom(num_agents=2, width=12, height=10), seed=0)
    picture, team = Picture(simulation, "", 736), TeamView(simulation)
    walk(simulation, "move_west", 3, picture, team)
    assert [tuple(place) for place in team.places.tolist()] == places_of(simulation)
    assert [status.levels for status in team.statuses(team.things())] == [(), ()]
    assert picture.draw().shape == (400, 12 * 40 + STRIP_WIDTH, 3)


@pytest.mark.parametrize(
    ("thing", "sprite"),
    [
        ({"type_name": "c:scout"}, "objects/scout"),
        ({"type_name": "junction"}, "objects/junction"),
        ({"type_name": "junction", "collective_name": "cogs"}, "objects/junction.working"),
        ({"type_name": "junction", "collective_name": "clips"}, "objects/junction.clipped1"),
        ({"type_name": "carbon_extractor", "inventory": {6: 100}}, "objects/carbon_extractor"),
        ({"type_name": "carbon_extractor", "inventory": {6: 0}}, "objects/carbon_extractor.depleted"),
    ],
)
def test_things_look_as_they_are(thing: dict[str, Any], sprite: str) -> None:
    """A junction shows who holds it, an extractor whether it is empty, and mettagrid ships each of these sprites."""
    assert thing_sprite({"inventory": {}, **thing}) == sprite
    assert load_sprite(sprite).size != load_sprite("objects/nothing_of_this_name").size


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
def test_a_film_has_a_frame_for_each_step(ending: str, tmp_path: Path) -> None:
    """12 steps are 13 frames, read back at the picture's size, and the last two differ; no other file is left."""
    film_random_play(tmp_path / f"film{ending}", title="random")
    frames = imageio.imread(tmp_path / f"film{ending}")
    assert frames.shape == (STEPS + 1, *((728, 960, 3) if ending == ".mp4" else (520, 752, 3)))
    assert (frames[-1] != frames[-2]).any()
    assert [path.name for path in tmp_path.iterdir()] == [f"film{ending}"]


def test_a_film_shows_every_nth_step_of_a_long_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where about 3 frames are the most, every fifth of 13 steps is shown, and the last: 0, 5, 10, 12."""
    monkeypatch.setattr(film_module, "GIF_FRAMES", 3)
    film_random_play(tmp_path / "film.gif")
    assert len(imageio.imread(tmp_path / "film.gif")) == 4


def test_a_gif_stores_what_changes_alone(tmp_path: Path) -> None:
    """13 frames take less than 3 times what the first of them takes by itself."""
    film_random_play(tmp_path / "film.gif")
    with Film(tmp_path / "first.gif") as film:
        film.show(simulation_of(max_steps=STEPS))
    assert (tmp_path / "film.gif").stat().st_size < 3 * (tmp_path / "first.gif").stat().st_size


def test_browsers_can_play_an_mp4(tmp_path: Path) -> None:
    """It is H.264 in yuv420p, and says what is in it before it begins, so that it plays while it loads."""
    film_random_play(tmp_path / "film.mp4")
    meta = imageio.immeta(tmp_path / "film.mp4", plugin="FFMPEG")
    assert (meta["codec"], meta["pix_fmt"].partition("(")[0], meta["fps"]) == ("h264", "yuv420p", 25)
    content = (tmp_path / "film.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize(
    ("check", "key", "good", "bad"),
    [
        (check_film_path, "film", "a.mp4", "a.avi"),
        (check_film_path, "film", "a.gif", "mp4"),
        (check_replay_path, "replay", "a.json.z", "a.json"),
        (check_heatmap_path, "heatmap", "a.png", "a.jpg"),
    ],
)
def test_a_file_that_cannot_be_made_is_told_beforehand(
    check: Any, key: str, good: str, bad: str, tmp_path: Path
) -> None:
    """Another ending, a file in the way, a folder of that name and an impossible folder each have their message."""
    check(tmp_path / "new" / "folder" / good, False)
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    with pytest.raises(ScoutError, match=rf"^{key}=\S+ has an unknown ending: expected .*\.{good.partition('.')[2]}"):
        check(tmp_path / bad, False)
    (tmp_path / good).write_text("mine")
    with pytest.raises(ScoutError, match=f"^{key}=.* exists already: set overwrite=true .*, or choose another name$"):
        check(tmp_path / good, False)
    check(tmp_path / good, True)
    assert (tmp_path / good).read_text() == "mine"
    with pytest.raises(ScoutError, match=f"^{key}=.* cannot be written"):
        check(tmp_path / good / good, False)
    (tmp_path / "folder" / good).mkdir(parents=True)
    with pytest.raises(ScoutError, match=f"^{key}=.* is a folder"):
        check(tmp_path / "folder" / good, True)


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
def test_an_existing_film_is_replaced_only_when_asked(ending: str, tmp_path: Path) -> None:
    """Without overwrite the file stays as it was; with it the film takes its place."""
    path = tmp_path / f"film{ending}"
    path.write_text("mine")
    with pytest.raises(ScoutError, match="exists already"):
        film_random_play(path)
    assert path.read_text() == "mine"
    film_random_play(path, overwrite=True)
    assert len(imageio.imread(path)) == STEPS + 1


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """What another process wrote under the film's name while it was made stays, and nothing else is left."""
    path = tmp_path / "film.gif"
    with pytest.raises(ScoutError, match="exists already"):
        film_whose_name_is_taken(path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_film_that_breaks_off_leaves_nothing(ending: str, error: type[BaseException], tmp_path: Path) -> None:
    """Whatever passes through it, the folder is empty afterwards, and a film that was there is still the old one."""
    (tmp_path / f"old{ending}").write_text("mine")
    for name in ("new", "old"):
        with pytest.raises(error):
            film_that_breaks_off(tmp_path / f"{name}{ending}", error)
    assert list(tmp_path.iterdir()) == [tmp_path / f"old{ending}"]
    assert (tmp_path / f"old{ending}").read_text() == "mine"


def test_without_ffmpeg_the_gif_is_recommended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where imageio-ffmpeg finds no ffmpeg, an MP4 is refused beforehand and a GIF is made."""

    def nothing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", nothing)
    with pytest.raises(ScoutError, match=r"film\.mp4 needs ffmpeg.*\.gif"):
        check_film_path(tmp_path / "film.mp4", False)
    film_random_play(tmp_path / "film.gif")
    assert (tmp_path / "film.gif").is_file()


def test_what_ffmpeg_complains_about_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When ffmpeg fails half-way, as on a full disk, its last line is in the message, and nothing is left."""
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\nhead -c 100 > /dev/null\necho 'No space left on device' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    (tmp_path / "films").mkdir()
    with pytest.raises(ScoutError, match=r"film=\S+ could not be written \(No space left on device\)"):
        film_random_play(tmp_path / "films" / "film.mp4")
    assert list((tmp_path / "films").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("random", "random"),
        ("outputs/scout_tutorial/2026-11-26_05-35-00", ".../2026-11-26_05-35-00"),
        ("a/bb/c/2026-11-26_05-35-00", ".../2026-11-26_05-35-00"),
        ("aaaaaa/b/2026-11-26_05-35", ".../b/2026-11-26_05-35"),
        ("a_name_without_any_folder_in_it", "...hout_any_folder_in_it"),
    ],
)
def test_long_titles_keep_their_end(text: str, short: str) -> None:
    """What does not fit loses folders from the left, and a single name its beginning."""
    assert shorten(text, lambda candidate: len(candidate) <= 24) == short
