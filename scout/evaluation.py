"""Judges a policy: whole episodes on maps that training never saw, a table with an honest interval, one JSON."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulation
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from scout.checkpoint import load_into, load_weights
from scout.config import EvaluationConfig, EvaluationMission, MissionConfig
from scout.device import make_device
from scout.errors import ScoutError
from scout.files import CONFIG, EPISODES
from scout.mission import make_game
from scout.model_config import CnnLstmConfig
from scout.models import make_model, set_fast_layers
from scout.policies import NetworkPolicy, Policy, make_baseline
from scout.rendering import TerminalView
from scout.rollout import play
from scout.statistics import bootstrap_interval
from scout.validation import validate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found."""

    mean_return: float
    """Mean over episodes of the mean return per agent."""
    interval: tuple[float, float] | None
    """95% bootstrap interval of it; None for a single episode."""
    episodes: list[dict[str, Any]]


def evaluate(config: EvaluationConfig, output_dir: Path) -> EvaluationResult:
    """Plays, prints a table, and writes episodes.json and config.yaml into `output_dir`.

    Raises ScoutError for what the user can mend: before anything is played, but for a disk that is full at the end.
    """
    path = output_dir / EPISODES
    for taken in (path, output_dir / CONFIG):
        if taken.exists():
            raise ScoutError(f"{taken} exists already: choose another folder with hydra.run.dir=DIR")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScoutError(f"{output_dir} cannot be written ({error.strerror}): choose another folder") from error
    policy, game = _make_policy(config)
    log.info("Judging %s on %d maps of %s", policy.name, config.episodes, game.label)
    episodes = play_all(policy, game, config)
    result = EvaluationResult(
        mean_return=float(np.mean([episode["return"] for episode in episodes])),
        interval=bootstrap_interval([episode["return"] for episode in episodes]),
        episodes=episodes,
    )
    Console().print(_table(policy.name, result))
    try:
        path.write_text(json.dumps(episodes, indent=1) + "\n", encoding="utf-8")
        (output_dir / CONFIG).write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise ScoutError(f"{path} cannot be written ({error.strerror}): the table above is all that is left") from error
    log.info("Episodes: %s", path)
    return result


def play_all(policy: Policy, game: MettaGridConfig, config: EvaluationConfig) -> list[dict[str, Any]]:
    """All episodes of an evaluation, `config.parallel` at a time."""
    view = TerminalView(config.render_delay) if config.render else None
    console = Console(stderr=True)
    episodes = []
    with Progress(console=console, transient=True, disable=view is not None or not console.is_terminal) as progress:
        task = progress.add_task(f"Playing {config.episodes} episodes", total=config.episodes * game.game.max_steps)
        for start in range(0, config.episodes, config.parallel):
            wave = range(start, min(start + config.parallel, config.episodes))

            def advance(simulation: Simulation, count: int = len(wave), shown: bool = start == 0) -> None:
                progress.advance(task, count)
                if view is not None and shown:
                    view.show(simulation)

            episodes += play(policy, game, config.seed, wave, advance)
    return episodes


def _make_policy(config: EvaluationConfig) -> tuple[Policy, MettaGridConfig]:
    if config.policy is not None:
        if config.model is not None:
            raise ScoutError(f"model={config.model.name} has no effect with policy={config.policy}: leave it out")
        game = make_game(_mission(config, MissionConfig()))
        return make_baseline(config.policy, PolicyEnvInterface.from_mg_cfg(game)), game
    assert config.checkpoint is not None
    weights = load_weights(config.checkpoint)
    if weights.experiment is not None and config.model is not None:
        raise ScoutError(f"model={config.model.name} has no effect: {config.checkpoint} has its own; leave it out")
    run = weights.experiment
    game = make_game(_mission(config, run.mission if run else MissionConfig()))
    device = make_device(config.device)
    network = make_model(run.model if run else config.model or CnnLstmConfig(), PolicyEnvInterface.from_mg_cfg(game))
    load_into(network, weights)
    log.info("Checkpoint: %s%s", weights.path, f" ({weights.agent_steps:,} agent steps)" if weights.agent_steps else "")
    network = network.to(device)
    set_fast_layers(network, config.device.fast_layers)
    return NetworkPolicy(config.checkpoint, network, device, config.greedy, config.device.precision), game


def _mission(config: EvaluationConfig, default: MissionConfig) -> MissionConfig:
    """The mission that is named whole, or the default with the single keys that are given."""
    given = config.mission or {}
    if given.keys() >= MissionConfig.model_fields.keys():
        return validate(EvaluationMission, {"mission": given}).mission
    base = default.model_dump()
    for key, value in given.items():
        deeper = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = base[key] | value if deeper else value
    return validate(EvaluationMission, {"mission": base}).mission


def _table(name: str, result: EvaluationResult) -> Table:
    # Two spaces between columns: all of them fit in a terminal of 80 columns.
    table = Table(
        title=escape(name), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", padding=(0, 1, 0, 0)
    )
    table.caption = "Means over episodes; all but cells seen (the team's) are per agent."
    for column in ("episodes", "return", "95% interval", "cell.visited", "gear", "deaths", "cells seen"):
        table.add_column(column, justify="right", no_wrap=True)
    episodes = result.episodes

    def mean(key: str, digits: int) -> str:
        values = [episode[key] for episode in episodes]
        return "-" if None in values else f"{np.mean(values):,.{digits}f}"

    interval = "-" if result.interval is None else f"{result.interval[0]:.2f} .. {result.interval[1]:.2f}"
    numbers = (mean("cell_visited", 0), mean("gear", 2), mean("deaths", 2), mean("cells_seen", 0))
    table.add_row(str(len(episodes)), f"{result.mean_return:.2f}", interval, *numbers)
    return table
