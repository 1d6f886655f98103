"""Missions of one's own that agents see otherwise than cogames' own ones."""

from mettagrid.config.mettagrid_config import MettaGridConfig

from scout.config import MissionConfig
from scout.mission import make_game


def of_few_tokens(config: MissionConfig) -> MettaGridConfig:
    """The mission whose observations have room for 100 tokens alone."""
    game = make_game(config.model_copy(update={"target": None}))
    game.game.obs.num_tokens = 100
    return game


def of_a_narrow_window(config: MissionConfig) -> MettaGridConfig:
    """The mission in which agents see nine columns of the map alone."""
    game = make_game(config.model_copy(update={"target": None}))
    game.game.obs.width = 9
    return game
