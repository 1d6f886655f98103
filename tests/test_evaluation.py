"""An evaluation plays whole episodes on maps of its own, the same way each time, and counts what happened in them."""

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from conftest import tiny_experiment
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.policy.loader import discover_and_register_policies, initialize_or_load_policy
from mettagrid.policy.policy import PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulation, Simulator
from mettagrid.simulator.rollout import Rollout
from torch import nn

from scout.checkpoint import load_experiment, save_checkpoint
from scout.config import EvaluationConfig, Experiment, MissionConfig, ModelConfig
from scout.environment import EVALUATION_MAP_SEEDS, evaluation_map_seed, with_map_seed
from scout.errors import ScoutError
from scout.evaluation import EvaluationResult, bootstrap_interval, evaluate, play_all
from scout.mission import make_game
from scout.models import make_model
from scout.policies import NetworkPolicy, NoopPolicy, Policy, RandomPolicy
from scout.rollout import play
from scout.training import build

STEPS = 40
GAME = make_game(MissionConfig(max_steps=STEPS))
ENV_INFO = PolicyEnvInterface.from_mg_cfg(GAME)
TINY_MODEL = tiny_experiment().model


def network_of(seed: int) -> nn.Module:
    """A small network whose actions depend strongly on what it sees and remembers."""
    torch.manual_seed(seed)
    network = make_model(TINY_MODEL, ENV_INFO)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    return network


def policy_of(kind: str) -> Policy:
    """A fresh policy of a kind: random, noop, or a network whose actions are sampled or greedy."""
    if kind in ("random", "noop"):
        return RandomPolicy() if kind == "random" else NoopPolicy()
    return NetworkPolicy(kind, network_of(1), "cpu", greedy=kind == "greedy")


def config_of(**changes: Any) -> EvaluationConfig:
    """A short evaluation of random play with some keys changed."""
    base: dict[str, Any] = {
        "policy": "random",
        "episodes": 3,
        "parallel": 2,
        "mission": {"max_steps": 20},
        "device": {"name": "cpu"},
    }
    if "checkpoint" in changes:
        base["policy"] = None
    return EvaluationConfig.model_validate(base | changes)


def run_folder(run_dir: Path, experiment: Experiment, network: nn.Module) -> Path:
    """What an evaluation needs of a run: its config and one checkpoint."""
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(yaml.safe_dump(experiment.model_dump()))
    save_checkpoint(run_dir, {"model": network.state_dict(), "agent_steps": 256}, update=1, keep=3)
    return run_dir


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., EvaluationResult]:
    """Runs a short evaluation, each in a folder of its own: judge(policy="noop")."""
    count = 0

    def run(**changes: Any) -> EvaluationResult:
        nonlocal count
        count += 1
        output_dir = tmp_path / f"evaluation_{count}"
        output_dir.mkdir()
        return evaluate(config_of(**changes), output_dir)

    return run


# -- what is written ---------------------------------------------------------------------------------------------------


def test_there_is_one_object_per_episode(tmp_path: Path) -> None:
    """episodes.json holds, for each episode in order, who played, where, how long, and what came of it."""
    result = evaluate(config_of(), tmp_path)
    episodes = json.loads((tmp_path / "episodes.json").read_text())
    assert episodes == result.episodes
    assert [episode["episode"] for episode in episodes] == [0, 1, 2]
    keys = ["policy", "episode", "map_seed", "steps", "return", "agent_returns"]
    assert all(list(episode) == [*keys, "cell_visited", "gear", "deaths", "cells_seen"] for episode in episodes)
    assert {episode["policy"] for episode in episodes} == {"random"}


def test_the_config_loads_back_to_the_same_evaluation(tmp_path: Path) -> None:
    """config.yaml beside the episodes holds every key of the evaluation."""
    config = config_of(seed=5, greedy=True)
    evaluate(config, tmp_path)
    assert EvaluationConfig.model_validate(yaml.safe_load((tmp_path / "config.yaml").read_text())) == config


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
    (row,) = [row for row in rows if row[:1] == ["3"]]

    def mean(key: str) -> float:
        return sum(episode[key] for episode in result.episodes) / 3

    assert result.interval is not None
    low, high = result.interval
    assert row == [
        "3",
        f"{result.mean_return:.2f}",
        *(f"{low:.2f}", "..", f"{high:.2f}"),
        f"{mean('cell_visited'):,.0f}",
        *(f"{mean('gear'):.2f}", f"{mean('deaths'):.2f}"),
        f"{mean('cells_seen'):,.0f}",
    ]


def test_the_table_names_the_policy_as_it_is(
    judge: Callable[..., EvaluationResult], small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder whose name has brackets stands above the table letter for letter."""
    judge(checkpoint=str(small_run.rename(small_run.with_name("[old]"))), mission=None)
    assert "[old]" in capsys.readouterr().out


# -- the same again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["random", "noop", "sampled", "greedy"])
def test_the_same_seed_gives_the_same_numbers(kind: str) -> None:
    """Two evaluations of one seed agree in every number, to the last bit."""
    first, second = (play_all(policy_of(kind), GAME, config_of(seed=3)) for _ in range(2))
    assert first == second


def test_another_seed_gives_other_maps_and_other_noise() -> None:
    """No map seed of one evaluation seed appears under another, and random play fares differently."""
    first, second = (play_all(RandomPolicy(), GAME, config_of(seed=seed, episodes=4)) for seed in (0, 1))
    assert not {one["map_seed"] for one in first} & {one["map_seed"] for one in second}
    assert all(one["agent_returns"] != other["agent_returns"] for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2**30 - 1])
def test_every_map_is_from_the_range_of_evaluation_and_different(seed: int) -> None:
    """All episodes are on maps that training never draws, each on one of its own."""
    episodes = play_all(NoopPolicy(), GAME, config_of(seed=seed, episodes=4))
    map_seeds = [episode["map_seed"] for episode in episodes]
    assert all(map_seed in EVALUATION_MAP_SEEDS for map_seed in map_seeds)
    assert len(set(map_seeds)) == 4


@pytest.mark.parametrize("kind", ["random", "sampled", "greedy"])
@pytest.mark.parametrize("parallel", [2, 3, 4])
def test_how_many_are_played_side_by_side_changes_nothing(kind: str, parallel: int) -> None:
    """Four episodes one by one, in twos, in three and one, and all at once agree in every number."""
    alone = play_all(policy_of(kind), GAME, config_of(episodes=4, parallel=1))
    assert play_all(policy_of(kind), GAME, config_of(episodes=4, parallel=parallel)) == alone


@pytest.mark.parametrize("kind", ["sampled", "greedy"])
def test_the_recurrent_state_is_zero_at_each_episodes_start(kind: str) -> None:
    """An episode played after others is the episode played alone: the network remembers nothing of them."""
    used = policy_of(kind)
    play(used, GAME, 0, [0])
    assert play(used, GAME, 0, [1]) == play(policy_of(kind), GAME, 0, [1])


def test_every_episode_lasts_to_its_last_step() -> None:
    """No early reset cuts an episode short, as it does in training."""
    episodes = play_all(RandomPolicy(), GAME, config_of(episodes=8, parallel=8))
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
    in_memory = play_all(NetworkPolicy(str(run_dir), network, "cpu", greedy=False), game, config_of())
    reloaded = judge(checkpoint=str(run_dir), mission=None)
    assert reloaded.episodes == in_memory


# -- actions -----------------------------------------------------------------------------------------------------------


class Biased(nn.Module):
    """A network that wants each action with a probability of its own, whatever it sees."""

    hidden_size = 1
    probabilities = (0.5, 0.3, 0.1, 0.06, 0.04)

    def forward_eval(self, observations: torch.Tensor, state: dict | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.tensor(self.probabilities).log().expand(len(observations), -1)
        return logits, torch.zeros(len(observations), 1)


def frequencies(policy: Policy) -> list[float]:
    """How often each of the five actions is taken in two episodes of 300 steps of four agents."""
    game = make_game(MissionConfig(max_steps=300))
    taken: list[np.ndarray] = []

    def watch(simulation: Simulation) -> None:
        if simulation.current_step:
            taken.append(simulation._c_sim.actions().copy())

    for episode in (0, 1):
        play(policy, game, 0, [episode], watch)
    counts = np.bincount(np.concatenate(taken))
    assert counts.sum() == 2 * 300 * 4
    return list(counts / counts.sum())


def test_sampled_actions_have_the_networks_probabilities() -> None:
    """2,400 actions are spread as the softmax of the logits says."""
    # Four standard deviations of a share of 0.5 among 2,400 are 0.041.
    sampled = frequencies(NetworkPolicy("biased", Biased(), "cpu", greedy=False))
    assert sampled == pytest.approx(Biased.probabilities, abs=0.041)


def test_greedy_actions_are_the_most_probable_ones() -> None:
    """A greedy network takes the first action, which it finds the most probable, and no other."""
    assert frequencies(NetworkPolicy("biased", Biased(), "cpu", greedy=True)) == [1]


def test_random_play_spreads_over_noop_and_the_four_moves() -> None:
    """Each of the five primary actions has a share of a fifth, and nothing else is done."""
    assert ENV_INFO.action_names == ["noop", "move_north", "move_south", "move_west", "move_east"]
    # Four standard deviations of a share of 0.2 among 2,400 are 0.033.
    assert frequencies(RandomPolicy()) == pytest.approx([0.2] * 5, abs=0.033)


# -- what is counted ---------------------------------------------------------------------------------------------------


class Watched:
    """What a plain reader sees of one episode: the agents' returns at each step, their statistics, their places."""

    def __init__(self, policy: Policy, game: MettaGridConfig, episode: int, places: bool = False) -> None:
        """Asking the simulator for `places` at each step takes most of the time."""
        self.places: list[list[tuple[int, int]]] = []
        self.returns: list[list[float]] = []
        self.statistics: list[dict[str, float]] = []
        self.size = (0, 0)
        self._with_places = places
        (self.record,) = play(policy, game, 0, [episode], self._watch)

    def _watch(self, simulation: Simulation) -> None:
        self.returns.append(simulation.episode_rewards.tolist())
        self.statistics = simulation.episode_stats["agent"]
        self.size = (simulation.map_height, simulation.map_width)
        if self._with_places:
            things = simulation.grid_objects(ignore_types=["wall"]).values()
            self.places.append([(thing["r"], thing["c"]) for thing in things if "agent_id" in thing])

    def cells_seen(self) -> int:
        """Cells seen over the whole episode."""
        return self.cells_seen_at(range(len(self.places)))

    def cells_seen_at(self, steps: Iterable[int]) -> int:
        """The union of the windows of 11 x 11 cells around every agent at these steps, cut off at the map's edge."""
        height, width = self.size
        return len(
            {
                (row, column)
                for step in steps
                for agent_row, agent_column in self.places[step]
                for row in range(max(agent_row - 5, 0), min(agent_row + 6, height))
                for column in range(max(agent_column - 5, 0), min(agent_column + 6, width))
            }
        )


class Scripted:
    """Takes the given actions, int [steps, agents]."""

    name = "scripted"

    def __init__(self, actions: np.ndarray) -> None:
        self._actions = iter(actions)

    def begin(self, simulations: Sequence[Simulation], generators: Sequence[np.random.Generator]) -> None:
        (self._simulation,) = simulations

    def act(self) -> None:
        self._simulation._c_sim.actions()[:] = next(self._actions)


def test_cells_seen_without_moving_are_the_windows_around_the_starts() -> None:
    """For agents that stand still, the count is that of the union of their first windows."""
    watched = Watched(NoopPolicy(), GAME, 0, places=True)
    assert all(places == watched.places[0] for places in watched.places)
    assert watched.record["cells_seen"] == watched.cells_seen()


@pytest.mark.parametrize("site", ["cogsguard_arena", "cogsguard_machina_1"])
def test_cells_seen_are_those_in_the_agents_windows_at_every_step(site: str) -> None:
    """For random walks in which agents also die, the count is what the simulator's own positions give, step by step."""
    game = make_game(MissionConfig.model_validate({"site": site, "max_steps": 300}))
    records = []
    for episode in (0, 2):
        watched = Watched(RandomPolicy(), game, episode, places=True)
        assert len(watched.places) == 301
        assert watched.record["cells_seen"] == watched.cells_seen()
        assert 400 < watched.cells_seen() < watched.size[0] * watched.size[1]
        records.append(watched.record)
    assert sum(record["deaths"] for record in records) > 0


def room(local_position: bool) -> MettaGridConfig:
    """An empty room of 14 x 12 cells, smaller than two windows, with two agents."""
    game = MettaGridConfig.EmptyRoom(num_agents=2, width=14, height=12)
    game.game.max_steps = 30
    game.game.obs.global_obs.local_position = local_position
    return game


def test_cells_seen_end_at_the_edge_of_the_map() -> None:
    """Windows that reach beyond the map's edges count only what lies on the map."""
    for episode in range(4):
        watched = Watched(RandomPolicy(), room(local_position=True), episode, places=True)
        assert watched.size == (12, 14)
        assert watched.record["cells_seen"] == watched.cells_seen() <= 12 * 14


def test_cells_seen_are_unknown_where_agents_do_not_observe_their_place() -> None:
    """Where the count cannot be made it is None, and not a wrong number."""
    watched = Watched(RandomPolicy(), room(local_position=False), 0, places=True)
    assert watched.places[0] != watched.places[-1]
    assert watched.record["cells_seen"] is None


def test_cells_seen_include_those_after_the_last_step() -> None:
    """In an episode of one step, in which agents walk east, the count is of the windows before and after it."""
    watched = Watched(Scripted(np.full((1, 4), 4)), make_game(MissionConfig(max_steps=1)), 0, places=True)
    at_start = watched.cells_seen_at([0])
    assert watched.cells_seen() > at_start, "this episode does not show what this test is about"
    assert watched.record["cells_seen"] == watched.cells_seen()


def test_returns_are_what_the_mission_rewards() -> None:
    """On the scout tutorial each agent's return is 1e-4 x cell.visited + 2 x (scout gear gained - lost)."""
    game = make_game(MissionConfig(max_steps=300))
    gained = lost = 0.0
    for episode in (4, 5):
        watched = Watched(RandomPolicy(), game, episode)
        expected = [
            1e-4 * agent["cell.visited"] + 2 * agent.get("scout.gained", 0) - 2 * agent.get("scout.lost", 0)
            for agent in watched.statistics
        ]
        assert watched.record["agent_returns"] == pytest.approx(expected, abs=1e-4)
        gained += sum(agent.get("scout.gained", 0) for agent in watched.statistics)
        lost += sum(agent.get("scout.lost", 0) for agent in watched.statistics)
    assert gained > lost > 0, "these episodes do not show what this test is about"


def test_gear_deaths_and_visits_are_means_over_the_agents() -> None:
    """The record has the sum over agents and roles of gear gained, of deaths and of visits, divided by four."""
    watched = Watched(RandomPolicy(), make_game(MissionConfig(max_steps=300)), 4)
    roles = ("aligner", "miner", "scout", "scrambler")

    def mean(*names: str) -> float:
        return sum(agent.get(name, 0) for agent in watched.statistics for name in names) / 4

    gear, deaths, visits = mean(*(f"{role}.gained" for role in roles)), mean("death"), mean("cell.visited")
    assert (watched.record["gear"], watched.record["deaths"]) == (gear, deaths)
    assert watched.record["cell_visited"] == visits
    assert min(gear, deaths, visits) > 0, "this episode does not show what this test is about"


@pytest.mark.parametrize("still", [True, False], ids=["noop", "fixed walk"])
def test_rewards_are_those_of_mettagrids_own_environment(still: bool) -> None:
    """For the same map, simulator seed and actions, MettaGridPufferEnv pays the same rewards at every step."""
    episode, steps = 4, 300
    game = make_game(MissionConfig(max_steps=steps))
    actions = np.random.default_rng(5).integers(5, size=(steps, 4), dtype=np.int32) * np.int32(not still)
    watched = Watched(Scripted(actions), game, episode)

    # The environment's first reset goes on to the map after that of its seed.
    env = MettaGridPufferEnv(Simulator(), with_map_seed(game, evaluation_map_seed(0, episode) - 1), seed=episode)
    env.reset()
    paid, done = [np.zeros(4)], []
    for action in actions:
        _, rewards, terminated, _, _ = env.step(action)
        paid.append(paid[-1] + rewards)
        done.append(bool(terminated.all()))
    env.close()
    assert done == [False] * (steps - 1) + [True]
    np.testing.assert_allclose(watched.returns, paid, atol=1e-4)
    assert watched.record["agent_returns"] == pytest.approx(list(paid[-1]), abs=1e-4)


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


# -- another mission or model ------------------------------------------------------------------------------------------


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """The run folder of a mission of its own: two agents, nine steps."""
    experiment = tiny_experiment(mission={"num_agents": 2, "max_steps": 9})
    return run_folder(tmp_path / "small", experiment, network_of(1))


@pytest.mark.parametrize(
    ("mission", "agents", "steps"),
    [
        (None, 2, 9),
        ({"max_steps": 7}, 2, 7),
        ({"team": {"wealth": 1}}, 2, 9),
        (MissionConfig(max_steps=7).model_dump(), 4, 7),
        ({"name": "mine", "max_steps": 7}, 2, 7),
    ],
    ids=["the run's", "one key", "one key of a group", "a whole group", "a name of one's own"],
)
def test_the_mission_is_the_runs_with_single_keys_or_another_one(
    mission: dict[str, Any] | None, agents: int, steps: int, small_run: Path, judge: Callable[..., EvaluationResult]
) -> None:
    """Single keys change the run's mission; a named one takes its place whole, and nothing of the run's remains."""
    config = EvaluationConfig(checkpoint=str(small_run), episodes=1, mission=mission)
    output_dir = small_run.parent / "output"
    output_dir.mkdir()
    (episode,) = evaluate(config, output_dir).episodes
    assert (len(episode["agent_returns"]), episode["steps"]) == (agents, steps)


def test_single_keys_of_a_group_leave_its_other_keys_as_they_were(
    judge: Callable[..., EvaluationResult], tmp_path: Path
) -> None:
    """With the rewards for gear set to 0, only the run's own weight of visits is left: 0.01 for each."""
    weights = {"scout_gained": 2.0, "scout_lost": -2.0, "cell_visited": 0.01}
    run_dir = run_folder(tmp_path / "run", tiny_experiment(mission={"rewards": weights}), network_of(1))
    changes = {"max_steps": 200, "rewards": {"scout_gained": 0.0, "scout_lost": 0.0}}
    result = judge(checkpoint=str(run_dir), mission=changes)
    for episode in result.episodes:
        assert episode["return"] == pytest.approx(0.01 * episode["cell_visited"], rel=1e-4)


@pytest.mark.parametrize(
    ("mission", "message"),
    [
        ({"max_stepz": 7}, r"mission\.max_stepz=7 is not a key in mission; did you mean max_steps\?"),
        ({"max_steps": "seven"}, r"mission\.max_steps=seven is not valid"),
        ({"team": {"welth": 1}}, r"mission\.team\.welth=1 is not a key"),
        ({"max_steps": {"first": 1}}, r"mission\.max_steps="),
    ],
)
def test_a_wrong_key_of_the_mission_is_an_error_that_names_it(
    mission: dict[str, Any], message: str, judge: Callable[..., EvaluationResult]
) -> None:
    """A key of the mission that does not exist or does not fit is told under the name that the user gave it."""
    with pytest.raises(ScoutError, match=message):
        judge(mission=mission)


def test_a_model_beside_a_run_is_refused(judge: Callable[..., EvaluationResult], small_run: Path) -> None:
    """A run folder has the sizes of its network, so model= would have no effect."""
    with pytest.raises(ScoutError, match=r"^model=cnn_lstm has no effect: .*small has its own; leave it out$"):
        judge(checkpoint=str(small_run), model=ModelConfig().model_dump())


def test_a_model_beside_a_baseline_is_refused(judge: Callable[..., EvaluationResult]) -> None:
    """A baseline has no network, so model= would have no effect."""
    with pytest.raises(ScoutError, match=r"^model=cnn_lstm has no effect with policy=noop: leave it out$"):
        judge(policy="noop", model=ModelConfig().model_dump())


def test_a_bare_state_dict_is_played_with_the_sizes_that_are_given(
    judge: Callable[..., EvaluationResult], small_run: Path, tmp_path: Path
) -> None:
    """The weights alone, with model= and mission= beside them, score what the run that made them scores."""
    path = tmp_path / "weights.pt"
    torch.save(network_of(1).state_dict(), path)
    bare = judge(checkpoint=str(path), model=TINY_MODEL.model_dump(), mission={"num_agents": 2, "max_steps": 9})
    of_run = judge(checkpoint=str(small_run), mission=None)
    assert [one["agent_returns"] for one in bare.episodes] == [one["agent_returns"] for one in of_run.episodes]


def test_a_bare_state_dict_of_other_sizes_is_an_error(judge: Callable[..., EvaluationResult], tmp_path: Path) -> None:
    """Without model= the seed's sizes are meant; weights of others are refused with what differs."""
    path = tmp_path / "weights.pt"
    torch.save(network_of(1).state_dict(), path)
    with pytest.raises(ScoutError, match=r"weights\.pt is of another architecture: .* is \[4, .* expected \[64, "):
        judge(checkpoint=str(path))


# -- the interval ------------------------------------------------------------------------------------------------------

RETURNS = [0.0, 0.1, 2.2, 0.3, 4.0, 0.2, 0.1, 2.4]


def test_the_interval_is_scipys_and_contains_the_mean() -> None:
    """The 95% interval is that of scipy's bias-corrected and accelerated bootstrap with 9,999 resamples."""
    interval = bootstrap_interval(RETURNS)
    by_hand = scipy.stats.bootstrap(
        (np.array(RETURNS),),
        np.mean,
        n_resamples=9_999,
        confidence_level=0.95,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert interval == (by_hand.low, by_hand.high)
    assert interval is not None
    assert interval[0] < np.mean(RETURNS) < interval[1]


def test_the_interval_narrows_with_more_episodes() -> None:
    """Four times as many episodes of the same spread halve the interval's width, by and large."""
    few, many = bootstrap_interval(RETURNS), bootstrap_interval(RETURNS * 4)
    assert few is not None
    assert many is not None
    assert (many[1] - many[0]) / (few[1] - few[0]) == pytest.approx(0.5, abs=0.1)


def test_the_interval_of_equal_returns_is_a_point() -> None:
    """Returns that are all the same have an interval without width, and not one of nan."""
    assert bootstrap_interval([0.3] * 5) == (0.3, 0.3)


def test_a_single_episode_has_no_interval(
    judge: Callable[..., EvaluationResult], capsys: pytest.CaptureFixture[str]
) -> None:
    """One episode says nothing about the spread: the interval is None, and a dash in the table."""
    assert judge(episodes=1).interval is None
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["1"]]
    assert row[2] == "-"
