"""A map builder of one's own, for the tests of proofs."""

from mettagrid.map_builder.map_builder import GameMap, MapBuilder, MapBuilderConfig
from mettagrid.map_builder.random_map import RandomMapBuilder


class OwnConfig(MapBuilderConfig["OwnBuilder"]):
    """Without keys."""


class OwnBuilder(MapBuilder[OwnConfig]):
    """A small random map."""

    def build(self) -> GameMap:
        """An empty map with one agent."""
        return RandomMapBuilder.Config(width=20, height=20, agents=1, objects={}).create().build()
