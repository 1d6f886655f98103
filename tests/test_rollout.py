"""What agents do in an episode, and what is counted of it."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from evaluation_helpers import ENV_INFO, GAME
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.simulator import Simulation, Simulator
from torch import nn

from scout.config import MissionConfig
from scout.environment import evaluation_map_seed, with_map_seed
from scout.mission import make_game
from scout.policies import NetworkPolicy, NoopPolicy, Policy, RandomPolicy
from scout.rollout import play

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
        (played,) = play(policy, game, 0, [episode], self._watch)
        self.record, self.visits = played.record, played.visits

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


def test_visits_are_the_agents_places_at_every_step() -> None:
    """Each agent counts once a step in the cell in which the simulator has it, the first and the last included."""
    watched = Watched(RandomPolicy(), make_game(MissionConfig(max_steps=50)), 1, places=True)
    expected = np.zeros(watched.size, dtype=int)
    for places in watched.places:
        for row, column in places:
            expected[row, column] += 1
    assert (watched.visits == expected).all()
    assert watched.visits.sum() == 51 * 4


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


def test_gear_deaths_moves_and_visits_are_means_over_the_agents() -> None:
    """The record has the sum over agents and roles of gear gained, of deaths, moves and visits, divided by four."""
    watched = Watched(RandomPolicy(), make_game(MissionConfig(max_steps=300)), 4)
    roles = ("aligner", "miner", "scout", "scrambler")

    def mean(*names: str) -> float:
        return sum(agent.get(name, 0) for agent in watched.statistics for name in names) / 4

    gear, deaths, visits = mean(*(f"{role}.gained" for role in roles)), mean("death"), mean("cell.visited")
    assert (watched.record["gear"], watched.record["deaths"]) == (gear, deaths)
    assert watched.record["cell_visited"] == visits
    assert watched.record["moves"] == mean("action.move.success")
    assert watched.record["failed_moves"] == mean("action.move.failed") > 0
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
