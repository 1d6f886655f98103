"""One episode to look at: in the terminal, as a film, and as the package's replay."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation
from rich.console import Console
from rich.progress import Progress

from scout.evaluation_config import EvaluationConfig
from scout.film import Film, check_film_path
from scout.heatmap import check_heatmap_path
from scout.policies import Policy
from scout.rendering import TerminalView
from scout.replay import ReplayRecorder, check_replay_path
from scout.rollout import play

log = logging.getLogger(__name__)


def check_pictures(config: EvaluationConfig) -> None:
    """Raises ScoutError for a file that could not be written, or that is there and must not be replaced."""
    checks = {"film": check_film_path, "replay": check_replay_path, "heatmap": check_heatmap_path}
    for key, check in checks.items():
        path = getattr(config, key)
        if path is not None:
            check(Path(path), config.overwrite)


def show(policy: Policy, game: MettaGridConfig, config: EvaluationConfig) -> None:
    """Plays the episode that `episode` names, once for all that want to see it; nothing where nobody does."""
    if not (config.render or config.film or config.replay):
        return
    console = Console(stderr=True)
    with ExitStack() as stack:
        progress = Progress(console=console, transient=True, disable=config.render or not console.is_terminal)
        stack.enter_context(progress)
        task = progress.add_task(f"Showing episode {config.episode}", total=game.game.max_steps)
        watching: list[Any] = [TerminalView(config.render_delay)] if config.render else []
        handlers = []
        if config.film is not None:
            title = f"{policy.name}\nmap {config.episode} of seed {config.seed}"
            watching.append(stack.enter_context(Film(Path(config.film), overwrite=config.overwrite, title=title)))
        if config.replay is not None:
            recorder = stack.enter_context(ReplayRecorder(Path(config.replay), overwrite=config.overwrite))
            handlers.append(recorder.event_handler)

        def look(simulation: Simulation) -> None:
            progress.update(task, completed=simulation.current_step)
            for watcher in watching:
                watcher.show(simulation)

        play(policy, game, config.seed, [config.episode], on_step=look, event_handlers=handlers)
    for name in ("film", "replay"):
        if getattr(config, name) is not None:
            log.info("%s: %s", name.capitalize(), getattr(config, name))
