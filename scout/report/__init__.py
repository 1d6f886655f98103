"""One self-contained page about training runs: `python -m scout.report RUN_OR_MULTIRUN...`."""
