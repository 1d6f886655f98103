"""How many environments and threads are fastest on this machine: `vecenv.num_envs=auto`, measured before a run."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from pydantic import ValidationError

from scout.build import build
from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import AUTOTUNE
from scout.trainer import StockTrainer

log = logging.getLogger(__name__)

CANDIDATES = (4, 8, 16, 32, 64, 128)
NEARLY = 0.95  # a smaller number is taken if it is this near to the fastest: it learns more often and needs less memory


def tuned(experiment: Experiment, game: MettaGridConfig, device: str, run_dir: Path) -> Experiment:
    """The experiment with the smallest number of environments that is nearly the fastest, then of threads on a CPU.

    Says what was measured, in agent steps per second of a whole update, and stores it in the run folder. Raises
    ScoutError when no number fits the other sizes, with what is wrong with the last.
    """
    sizes, problem = [], ""
    for number in CANDIDATES:
        try:
            sizes.append(_with(experiment, num_envs=number))
        except ValidationError as error:
            problem = str(error.errors()[0].get("ctx", {}).get("error", error))
    if not sizes:
        raise ScoutError(f"vecenv.num_envs=auto finds no number that fits, of {CANDIDATES}: {problem}")
    log.info("Measuring %d numbers of environments", len(sizes))
    by_size = _measured({size.vecenv.num_envs: size for size in sizes}, game, device)
    chosen = _with(experiment, num_envs=_smallest(by_size))
    record: dict[str, Any] = {"steps_per_second": {"num_envs": by_size}, "num_envs": chosen.vecenv.num_envs}
    if device == "cpu" and experiment.device.threads is None and torch.get_num_threads() > 1:
        whole = torch.get_num_threads()
        numbers = sorted({1, -(-whole // 2), whole})
        by_threads = _measured(
            {threads: _with(chosen, chosen.vecenv.num_envs, threads) for threads in numbers}, game, device
        )
        chosen = _with(chosen, num_envs=chosen.vecenv.num_envs, threads=_smallest(by_threads))
        torch.set_num_threads(chosen.device.threads or whole)
        record["steps_per_second"]["threads"] = by_threads
        record["threads"] = chosen.device.threads
    try:
        (run_dir / AUTOTUNE).write_text(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise ScoutError(f"{run_dir / AUTOTUNE} cannot be written ({error.strerror})") from error
    for name, found in record["steps_per_second"].items():
        measured = ", ".join(f"{number}: {speed:,.0f}" for number, speed in found.items())
        log.info("Chosen: %s=%s (steps/s: %s)", name, record[name], measured)
    return chosen


def _measured(candidates: dict[int, Experiment], game: MettaGridConfig, device: str) -> dict[int, float]:
    """The speed of each candidate, the best of two turns: what disturbs the machine for a second hits but one."""
    best = dict.fromkeys(candidates, 0.0)
    for _ in range(2):
        for number, candidate in candidates.items():
            if candidate.device.threads is not None:
                torch.set_num_threads(candidate.device.threads)
            best[number] = max(best[number], _steps_per_second(candidate, game, device))
    return best


def _smallest(speeds: dict[int, float]) -> int:
    return min(number for number, speed in speeds.items() if speed >= NEARLY * max(speeds.values()))


def _with(experiment: Experiment, num_envs: int, threads: int | None = None) -> Experiment:
    """Raises pydantic's ValidationError when the number does not fit the other sizes."""
    values = experiment.model_dump()
    values["vecenv"]["num_envs"] = num_envs
    values["device"]["threads"] = threads or values["device"]["threads"]
    return Experiment.model_validate(values)


def _steps_per_second(experiment: Experiment, game: MettaGridConfig, device: str) -> float:
    """Agent steps per second of whole updates, over a second at least, after one that is not timed."""
    trainer = build(experiment, game, device)
    try:
        _update(trainer, device)
        start, steps = time.perf_counter(), trainer.global_step
        while time.perf_counter() - start < 1:
            _update(trainer, device)
        return (trainer.global_step - steps) / (time.perf_counter() - start)
    finally:
        trainer.close()


def _update(trainer: StockTrainer, device: str) -> None:
    trainer.evaluate()
    trainer.train()
    if device == "cuda":
        torch.cuda.synchronize()
