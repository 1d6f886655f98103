"""Train scouts: agents that explore the maps of CoGames."""
