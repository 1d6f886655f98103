"""One training run, from a typed experiment to a complete run folder."""

import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scout.autotune import tuned
from scout.build import build
from scout.checkpoint import (
    load_weights,
    newest_state,
    numbered_checkpoints,
    remove_later_checkpoints,
    save_checkpoint,
)
from scout.config import AUTO, Experiment
from scout.device import make_device, settled
from scout.files import FILM, HELD_OUT
from scout.held_out import HeldOut
from scout.mission import make_game
from scout.progress import TrainingProgress
from scout.resume import changes
from scout.run_folder import RunFolder, load_experiment
from scout.signals import Interrupted, Signals
from scout.sizes import naming_keys_when_out_of_memory
from scout.state import rollout_state, whole_state
from scout.tracking import Tracker
from scout.trainer import StockTrainer
from scout.vecenv import WorkerFailure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run made."""

    run_dir: Path
    checkpoint: Path
    agent_steps: int
    episode_return: float | None
    """Mean return per agent of the whole episodes that ended last; None when none did."""
    objective: float | None
    """The last value of the metric `sweep.objective`; None when it has none."""


class Pruned(Exception):
    """The run's sweep gave it up."""


Hopeless = Callable[[int, float], bool]
"""Whether to give a run up after an evaluation, of that number (from 1) and that held-out return."""


def train(
    experiment: Experiment, run_dir: Path, resumed: bool = False, hopeless: Hopeless | None = None
) -> TrainingResult:
    """Trains, and leaves a complete run folder at `run_dir`; `resumed`, the run in that folder goes on.

    A resumed run has the experiment given here: what differs from its own is reported, and refused where it cannot
    change. One that is `hopeless` ends early, as pruned. Raises ScoutError for what the user can mend, and Interrupted
    when a signal ended the run. Whatever ends it, its state, its metrics and W&B's run are closed, and no worker
    process stays behind.
    """
    with naming_keys_when_out_of_memory(), Signals() as signals:
        return _train(experiment, run_dir, resumed, signals, hopeless)


def _train(
    experiment: Experiment, run_dir: Path, resumed: bool, signals: Signals, hopeless: Hopeless | None
) -> TrainingResult:
    folder = RunFolder.of(run_dir) if resumed else RunFolder(run_dir)
    changed = changes(load_experiment(run_dir), experiment) if resumed else []
    state = newest_state(run_dir) if resumed else None
    if state is not None and state["agent_steps"] >= experiment.total_timesteps:
        log.info(
            "%s is finished: it has %s of %s agent steps. A larger total_timesteps makes it go on",
            *(_relative(run_dir), f"{state['agent_steps']:,}", f"{experiment.total_timesteps:,}"),
        )
        result = _result(experiment, folder, state["agent_steps"])
        folder.close_finished(state["agent_steps"])
        return result
    device = make_device(experiment.device)
    experiment = settled(experiment, device)
    game = make_game(experiment.mission)
    if experiment.vecenv.num_envs == AUTO:
        experiment = tuned(experiment, game, device, folder.path)
    steps = -(-experiment.total_timesteps // experiment.batch_size) * experiment.batch_size // experiment.total_agents
    if steps < game.game.max_steps:
        log.warning(
            "Each environment plays %d steps, an episode has %d: none will end, so there will be no episode_return",
            *(steps, game.game.max_steps),
        )
    trainer = build(experiment, game, device, state)
    network = trainer.uncompiled_policy
    parameters = sum(parameter.numel() for parameter in network.parameters())
    log.info("Network: %s, %s parameters, %s", type(network).__name__, f"{parameters:,}", experiment.device.precision)
    try:
        return _run(experiment, trainer, folder, signals, changed if resumed else None, hopeless)
    finally:
        trainer.close()


def _run(
    experiment: Experiment,
    trainer: StockTrainer,
    folder: RunFolder,
    signals: Signals,
    changed: list[str] | None,
    hopeless: Hopeless | None,
) -> TrainingResult:
    """The run proper: whatever ends it, status.json and W&B say how. `changed`: what differs in a run that goes on."""
    tracker = Tracker(experiment, folder.path, folder.wandb_id)
    state, reason = "failed", None
    try:
        if changed is None:
            folder.start(experiment)
        else:
            folder.go_on(experiment, trainer.epoch, changed)
            remove_later_checkpoints(folder.path, trainer.epoch)
            tracker.best_return = max(folder.returns(), default=tracker.best_return)
            log.info("Going on after update %d, %s agent steps", trainer.epoch, f"{trainer.global_step:,}")
            for change in changed:
                log.info("Changed: %s", change)
        log.info("Run folder: %s", _relative(folder.path))
        _loop(experiment, trainer, folder, tracker, signals, hopeless)
        state, result = "finished", _result(experiment, folder, trainer.global_step)
    except Pruned as error:
        state, reason, result = "pruned", str(error), _result(experiment, folder, trainer.global_step)
        log.info("Pruned after %s agent steps: %s", f"{trainer.global_step:,}", reason)
        return result
    except (Interrupted, KeyboardInterrupt) as error:
        state, reason = "interrupted", str(error) or "SIGINT"
        log.info(
            "Interrupted after %s agent steps; resume=%s goes on", f"{trainer.global_step:,}", _relative(folder.path)
        )
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise
    finally:
        folder.finish(state, reason, agent_steps=trainer.global_step)
        tracker.finish(state)
    _say_what_next(result)
    return result


def _loop(
    experiment: Experiment,
    trainer: StockTrainer,
    folder: RunFolder,
    tracker: Tracker,
    signals: Signals,
    hopeless: Hopeless | None,
) -> None:
    def save(before_rollout: dict[str, Any] | None = None) -> None:
        folder.sync()
        state = whole_state(trainer, before_rollout)
        save_checkpoint(folder.path, state, state["update"], experiment.checkpoint.keep)

    game = trainer.vecenv.driver_env.env_cfg
    held_out = HeldOut(trainer, game, folder)
    progress = TrainingProgress(experiment.total_timesteps, experiment.log_interval, begun_at=trainer.global_step)
    with progress:
        while trainer.global_step < experiment.total_timesteps:
            if signals.stop is not None:
                raise Interrupted(signals.stop)
            before_rollout, steps_before = rollout_state(trainer), trainer.global_step
            try:
                metrics = update(trainer, game.game.max_steps)
            except WorkerFailure:
                save(before_rollout)
                raise
            judged = held_out.due(steps_before)
            if judged:
                metrics |= held_out.judge()
            folder.log(metrics)
            tracker.log(metrics)
            progress.show(metrics)
            finished = trainer.global_step >= experiment.total_timesteps
            asked = signals.stop is not None or signals.checkpoint
            if finished or asked or judged or trainer.epoch % experiment.checkpoint.interval == 0:
                signals.checkpoint = False
                save()
            if judged:
                held_out.keep_best()
                number, value = trainer.global_step // (experiment.evaluation.every or 1), metrics[HELD_OUT]
                if hopeless is not None and not finished and hopeless(number, value):
                    raise Pruned(f"evaluation {number} gave {value:.2f}, which its sweep took for hopeless")
    tracker.log_checkpoint(load_weights(str(folder.path)).path)
    if experiment.evaluation.film:
        log.info("Filming an episode")
        film = held_out.film()
        if film is not None:
            tracker.log_film(film)


def _result(experiment: Experiment, folder: RunFolder, agent_steps: int) -> TrainingResult:
    checkpoint, last_return = numbered_checkpoints(folder.path)[-1], (folder.returns() or [None])[-1]
    objective = folder.objective(experiment.sweep.objective)
    return TrainingResult(folder.path, checkpoint, agent_steps, last_return, objective)


def update(trainer: StockTrainer, max_steps: int) -> dict[str, float]:
    """One rollout and one update, and everything that is logged of them."""
    steps_before, learning_rate = trainer.global_step, trainer.learning_rate
    start = time.perf_counter()
    trainer.evaluate()
    middle = time.perf_counter()
    trainer.train()
    end = time.perf_counter()
    return {
        "agent_steps": trainer.global_step,
        "update": trainer.epoch,
        "optimizer/learning_rate": learning_rate,
        **{f"losses/{name}": value for name, value in trainer.losses.items()},
        **{f"environment/{name}": value for name, value in episode_statistics(trainer.episodes, max_steps).items()},
        "performance/SPS": (trainer.global_step - steps_before) / (end - start),
        "performance/rollout_seconds": middle - start,
        "performance/update_seconds": end - middle,
        "performance/peak_memory_mb": _peak_memory_mb(),
    }


def episode_statistics(episodes: dict[str, list[Any]], max_steps: int) -> dict[str, float]:
    """Means over the episodes that ended, from each statistic's values in them.

    `episode_return` is the mean return per agent of *whole* episodes: an early reset cuts one short, which says nothing
    about the policy. The other statistics are means over all episodes that ended; the simulator leaves out events that
    did not happen, which count as 0.
    """
    lengths = episodes.get("attributes/steps", [])
    statistics = {"episodes": float(len(lengths))}
    returns = next((values for key, values in episodes.items() if key.startswith("per_label_rewards/")), [])
    whole = [value for value, length in zip(returns, lengths, strict=True) if length >= max_steps]
    if whole:
        statistics["episode_return"] = float(sum(whole) / len(whole))
    for key, values in sorted(episodes.items()):
        if key.startswith(("agent/", "game/", "collective/")):
            statistics[key] = float(sum(values) / len(lengths))
    return statistics


def _peak_memory_mb() -> float:
    """Peak resident memory of this process; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _say_what_next(result: TrainingResult) -> None:
    python, run_dir = _relative(Path(sys.executable)), _relative(result.run_dir)
    if os.environ.get("VIRTUAL_ENV"):
        python = "python"
    beside = Path(sys.argv[0]).with_name("evaluate.py")  # train.py may have been called from another folder
    command = f"{python} {beside if beside.is_file() else 'evaluate.py'} checkpoint={run_dir}"
    log.info(
        "Trained %s agent steps; the last whole episodes returned %s per agent.\n"
        "Judge it: %s\n"
        "Watch it: %s render=true%s",
        f"{result.agent_steps:,}",
        "(none ended)" if result.episode_return is None else f"{result.episode_return:.2f}",
        *(command, command, f", or {run_dir}/{FILM}" if (result.run_dir / FILM).is_file() else ""),
    )


def _relative(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
