"""What agents see and do where each sees the world turned by its number of quarter turns."""

import numpy as np
import pytest
import torch
from evaluation_helpers import ENV_INFO
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulation
from torch import Tensor

from scout.config import MissionConfig
from scout.environment import evaluation_map_seed, with_map_seed
from scout.errors import ScoutError
from scout.mission import make_game
from scout.model_config import AttentionConfig, ConvConfig
from scout.models.attention import Attention
from scout.models.conv import Conv
from scout.models.turned_views import TurnedViews
from scout.observation import NO_CELL, PADDING

ID = {feature.name: int(feature.id) for feature in ENV_INFO.obs_features}
ACTIONS = {name: index for index, name in enumerate(ENV_INFO.action_names)}
OWN_CELL, NORTH, EAST = 0x55, 0x15, 0x59  # the centre, four cells north of it and four cells east


def observation(agent: int, *tokens: tuple[int, int, int]) -> Tensor:
    """Tokens uint8 [1, T, 3] of an agent, with its number and some padding."""
    return torch.tensor([[(OWN_CELL, ID["agent_id"], agent), *tokens, (PADDING,) * 3]], dtype=torch.uint8)


@pytest.mark.parametrize(("agent", "expected"), [(0, 0x15), (1, 0x51), (2, 0x95), (3, 0x59), (4, 0x15), (6, 0x95)])
def test_what_is_north_is_seen_further_round_by_each_agent(agent: int, expected: int) -> None:
    """A thing four cells north is seen there by agent 0, in the west by 1, in the south by 2, in the east by 3."""
    tokens, _ = TurnedViews(ENV_INFO, True)(observation(agent, (NORTH, ID["tag"], 7)))
    assert tokens[0, 1].tolist() == [expected, ID["tag"], 7]
    assert tokens[0, 0].tolist() == [OWN_CELL, ID["agent_id"], agent]
    assert tokens[0, 2].tolist() == [PADDING] * 3


def test_corners_turn_into_corners() -> None:
    """The north-eastern corner of the window is agent 1's north-western one, and agent 2's south-western one."""
    views = TurnedViews(ENV_INFO, True)
    seen = [int(views(observation(agent, (0x0A, ID["tag"], 7)))[0][0, 1, 0]) for agent in range(4)]
    assert seen == [0x0A, 0x00, 0xA0, 0xAA]


def test_the_offset_from_the_start_and_the_last_action_turn_too() -> None:
    """Agent 1, which is 3 cells east of its start and moved south, sees itself 3 cells north and moved east."""
    given = observation(1, (NO_CELL, ID["lp:east"], 3), (NO_CELL, ID["last_action"], ACTIONS["move_south"]))
    tokens, _ = TurnedViews(ENV_INFO, True)(given)
    assert tokens[0, 1:3].tolist() == [
        [NO_CELL, ID["lp:north"], 3],
        [NO_CELL, ID["last_action"], ACTIONS["move_east"]],
    ]


def test_a_walk_that_the_agents_see_alike_leads_them_apart() -> None:
    """In the simulator, four agents that walk to their own north move north, east, south and west.

    Each sees itself walk north.
    """
    views = TurnedViews(ENV_INFO, True)
    simulation = Simulation(with_map_seed(make_game(MissionConfig()), evaluation_map_seed(0, 0)), seed=0)
    observed = simulation._c_sim.observations()
    own_north = torch.zeros(4, len(ACTIONS))
    own_north[:, ACTIONS["move_north"]] = 1
    _, turns = views(torch.as_tensor(observed))
    chosen = views.back(own_north, turns).argmax(dim=1)
    assert [ENV_INFO.action_names[int(action)] for action in chosen] == [
        "move_north",
        "move_east",
        "move_south",
        "move_west",
    ]
    for _ in range(6):
        simulation._c_sim.actions()[:] = chosen.numpy()
        simulation.step()
    tokens, _ = views(torch.as_tensor(observed))
    walked = np.array([[int(v) for p, f, v in agent if (p, f) == (NO_CELL, ID["lp:north"])] for agent in tokens])
    assert (walked > 0).all(), "an agent was blocked: this map does not show what this test is about"
    for side in ("east", "south", "west"):
        assert not ((tokens[..., 0] == NO_CELL) & (tokens[..., 1] == ID[f"lp:{side}"]) & (tokens[..., 2] > 0)).any()
    simulation.close()


@pytest.mark.parametrize(
    "network", [Conv(ENV_INFO, ConvConfig()), Attention(ENV_INFO, AttentionConfig())], ids=["conv", "attention"]
)
def test_a_network_sees_and_acts_in_the_turned_world(network: Conv | Attention) -> None:
    """What it says of agent 1's observation is what it says, with its views off, of the turned one, turned back."""
    given = observation(1, (NORTH, ID["tag"], 7), (EAST, ID["tag"], 8), (NO_CELL, ID["lp:east"], 3))
    turned = observation(1, (0x51, ID["tag"], 7), (0x15, ID["tag"], 8), (NO_CELL, ID["lp:north"], 3))
    with torch.no_grad():
        logits, value = network(given)
        network.views.turned = False
        expected, expected_value = network(turned)
        assert not torch.allclose(network(given)[0], expected)
    from_own = {
        "move_north": "move_west",
        "move_west": "move_south",
        "move_south": "move_east",
        "move_east": "move_north",
    }
    for name, index in ACTIONS.items():
        assert logits[0, index] == pytest.approx(expected[0, ACTIONS[from_own.get(name, name)]].item(), rel=1e-5)
    torch.testing.assert_close(value, expected_value)


def test_without_turned_views_nothing_is_touched() -> None:
    """Every agent sees the world as the simulator shows it, and its actions are the simulator's."""
    views = TurnedViews(ENV_INFO, False)
    given = observation(3, (NORTH, ID["tag"], 7), (EAST, ID["tag"], 8))
    tokens, turns = views(given)
    logits = torch.randn(1, len(ACTIONS))
    assert tokens is given
    assert views.back(logits, turns) is logits


def test_a_window_that_is_not_square_is_refused() -> None:
    """It cannot be turned by a quarter: the message names the key and what to do."""
    game = make_game(MissionConfig())
    game.game.obs.width = 9
    oblong = PolicyEnvInterface.from_mg_cfg(game)
    with pytest.raises(ScoutError, match=r"11 x 9 cells: set model.turned_views=false"):
        TurnedViews(oblong, True)
    TurnedViews(oblong, False)
