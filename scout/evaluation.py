"""Judges policies: whole episodes on maps that training never saw, tables with honest intervals, JSON and CSV."""

import csv
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from mettagrid.config.mettagrid_config import MettaGridConfig
from rich.console import Console
from rich.progress import Progress

from scout.contestants import Contestant, make_contestants
from scout.errors import ScoutError
from scout.evaluation_config import EvaluationConfig
from scout.files import CONFIG, EPISODES, EPISODES_CSV, SUMMARY
from scout.heatmap import draw_heatmap
from scout.playing import play_all
from scout.rollout import Episode
from scout.showing import check_pictures, show
from scout.standings import (
    Comparison,
    Standing,
    as_objects,
    compared,
    comparisons_table,
    short_names,
    sides_of,
    standings_table,
)
from scout.tracking import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, of all policies in the order in which they were named."""

    folder: Path
    episodes: list[dict[str, Any]]
    standings: list[Standing]
    comparisons: list[Comparison]
    """Of the first with each of the others."""

    @property
    def mean_return(self) -> float:
        """Mean over episodes of the mean return per agent, of what was named first."""
        return self.standings[0].mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% bootstrap interval of it; None for a single episode."""
        return self.standings[0].interval


def evaluate(config: EvaluationConfig, output_dir: Path) -> EvaluationResult:
    """Plays, prints tables, and writes episodes.json, episodes.csv, summary.json and config.yaml into `output_dir`.

    Raises ScoutError for what the user can mend: before anything is played, but for a disk that is full at the end.
    """
    _check_folder(output_dir)
    contestants, mission, game = make_contestants(config)
    check_pictures(config)
    tracker = Tracker(config, output_dir)
    state = "failed"
    try:
        show(contestants[0].policy, game, config)
        names = [contestant.name for contestant in contestants]
        log.info("Judging %s on %d maps of %s", ", ".join(names), config.episodes, game.label)
        played = _play(contestants, game, config)
        records = [[episode.record for episode in episodes] for episodes in played]
        sides = sides_of(contestants, records)
        result = EvaluationResult(
            folder=output_dir,
            episodes=[record for of_one in records for record in of_one],
            standings=[side.standing() for side in sides],
            comparisons=compared(sides),
        )
        console = Console()
        console.print(standings_table(result.standings))
        if result.comparisons:
            console.print(comparisons_table(result.comparisons))
        # The whole mission, as it was played, for whoever reads it when the run is gone.
        _write(result, config.model_copy(update={"mission": mission.model_dump()}), output_dir)
        if config.heatmap is not None:
            visits = {
                name: np.sum([episode.visits for episode in of_one], axis=0)
                for name, of_one in zip(names, played, strict=True)
            }
            title = f"{config.episodes} episodes of {game.label}"
            draw_heatmap(Path(config.heatmap), visits, title, config.overwrite)
            log.info("Where they went: %s", config.heatmap)
        _track(tracker, result, config)
        state = "finished"
    finally:
        tracker.finish(state)
    return result


def _check_folder(output_dir: Path) -> None:
    for name in (EPISODES, EPISODES_CSV, SUMMARY, CONFIG):
        if (output_dir / name).exists():
            raise ScoutError(f"{output_dir / name} exists already: choose another folder with hydra.run.dir=DIR")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScoutError(f"{output_dir} cannot be written ({error.strerror}): choose another folder") from error


def _play(contestants: list[Contestant], game: MettaGridConfig, config: EvaluationConfig) -> list[list[Episode]]:
    console = Console(stderr=True)
    steps = config.episodes * game.game.max_steps
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        played, names = [], short_names([contestant.name for contestant in contestants])
        for number, contestant in enumerate(contestants, start=1):
            which = f"{number}/{len(contestants)}: " if len(contestants) > 1 else ""
            task = progress.add_task(f"{which}{config.episodes} episodes of {names[contestant.name]}", total=steps)
            played.append(
                play_all(
                    contestant.policy,
                    game,
                    *(config.seed, config.episodes, config.parallel, config.processes),
                    on_steps=lambda count, task=task: progress.advance(task, count),
                )
            )
    return played


def _write(result: EvaluationResult, config: EvaluationConfig, output_dir: Path) -> None:
    summary = {"standings": as_objects(result.standings), "comparisons": as_objects(result.comparisons)}
    try:
        (output_dir / EPISODES).write_text(json.dumps(result.episodes, indent=1) + "\n", encoding="utf-8")
        (output_dir / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        with (output_dir / EPISODES_CSV).open("w", encoding="utf-8", newline="") as file:
            columns = [name for name in result.episodes[0] if name != "agent_returns"]
            rows = csv.DictWriter(file, columns, extrasaction="ignore")
            rows.writeheader()
            rows.writerows(result.episodes)
        (output_dir / CONFIG).write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise ScoutError(
            f"{error.filename or output_dir} cannot be written ({error.strerror}): the table above is all that is left"
        ) from error
    log.info("Episodes: %s", output_dir / EPISODES)


def _track(tracker: Tracker, result: EvaluationResult, config: EvaluationConfig) -> None:
    """Sends the tables and the pictures to W&B; the summary has what was named first."""
    tables = {
        "episodes": result.episodes,
        "standings": as_objects(result.standings),
        "comparisons": as_objects(result.comparisons),
    }
    for name, rows in tables.items():
        rows = [_flat(row) for row in rows]
        if rows:
            tracker.log_table(name, list(rows[0]), [list(row.values()) for row in rows])
    low, high = result.interval or (None, None)
    tracker.summarize({"return": result.mean_return, "interval_low": low, "interval_high": high})
    if config.film is not None:
        tracker.log_film(Path(config.film))
    if config.heatmap is not None:
        tracker.log_picture("heatmap", Path(config.heatmap))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table: of an interval both ends, without the returns of single agents."""
    flat = {}
    for name, value in row.items():
        if name.endswith("interval"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value or (None, None)
        elif name != "agent_returns":
            flat[name] = value
    return flat
