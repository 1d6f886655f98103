"""From a checkpoint to a leaderboard: `python -m scout.submit checkpoint=RUN_DIR name=NAME`."""
