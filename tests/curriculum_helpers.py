"""Three small missions to play in turn: on maps of their own, and each visited cell pays 1, 3 or nothing."""

from typing import Any

from conftest import tiny_experiment
from mettagrid.config.mettagrid_config import MettaGridConfig

from scout.config import Experiment, MissionConfig
from scout.mission import make_game, make_games

NAMES = ("scout_tutorial", "large", "unpaid")
_UNPAID = dict.fromkeys(("aligned_junction_held", "scout_gained", "scout_lost", "cell_visited"), 0.0)
OTHERS: dict[str, dict[str, Any]] = {
    "large": {"name": "large", "site": "cogsguard_machina_1", "rewards": {"cell_visited": 3.0}},
    "unpaid": {"name": "unpaid", "rewards": _UNPAID},
}


def in_turn(max_steps: int = 20, **turns: Any) -> dict[str, Any]:
    """Changes of the small experiment: its mission in turn with two others; `turns` are keys of the curriculum."""
    missions = {
        name: MissionConfig(**{**mission, "max_steps": max_steps}).model_dump() for name, mission in OTHERS.items()
    }
    return {
        "mission": {"max_steps": max_steps, "rewards": {"cell_visited": 1.0}},
        "curriculum": {"name": "three", "missions": missions, **turns},
    }


def three(max_steps: int = 20, **turns: Any) -> tuple[Experiment, tuple[MettaGridConfig, ...]]:
    """An experiment with the three missions, and their games."""
    experiment = tiny_experiment(**in_turn(max_steps, **turns))
    return experiment, make_games(experiment, make_game(experiment.mission))
