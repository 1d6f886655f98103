"""One training run, from a typed experiment to a complete run folder."""

import logging
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scout.autotune import tuned
from scout.build import build
from scout.checkpoint import newest_state, numbered_checkpoints, remove_later_checkpoints
from scout.config import AUTO, Experiment
from scout.config_checks import check_machine, check_ranks
from scout.device import make_device, settled
from scout.files import FILM
from scout.held_out import is_due
from scout.mission import make_game
from scout.rank_link import LONG_PATIENCE, Watch, joined, reporting, uses_cuda
from scout.rank_state import joined_state, ranks_of
from scout.ranks import ALONE, Ranks
from scout.resume import changes
from scout.run_folder import RunFolder, load_experiment
from scout.scribe import Hopeless, Pruned, Scribe
from scout.signals import Interrupted, Signals
from scout.sizes import naming_keys_when_out_of_memory
from scout.state import rollout_state
from scout.tracking import Tracker
from scout.trainer import StockTrainer, updates_of
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


def train(
    experiment: Experiment,
    run_dir: Path,
    resumed: bool = False,
    ranks: Ranks = ALONE,
    hopeless: Hopeless | None = None,
) -> TrainingResult:
    """Trains, and leaves a complete run folder at `run_dir`; `resumed`, the run in that folder goes on.

    A resumed run has the experiment given here: what differs from its own is reported, and refused where it cannot
    change. One that is `hopeless` ends early, as pruned. Raises ScoutError for what the user can mend, and Interrupted
    when a signal ended the run. Whatever ends it, its state, its metrics and W&B's run are closed, and no worker
    process stays behind.

    In a job of several processes each calls this with its `ranks`. What the first one is given counts, and it alone
    writes and speaks; what ends one of them ends all.
    """
    job = experiment, run_dir, resumed
    with (
        joined(ranks, job, lambda job: uses_cuda(job[0].device.name)) as (ranks, (experiment, run_dir, resumed)),
        reporting(ranks),
        naming_keys_when_out_of_memory(),
        Signals(ranks.size > 1) as signals,
        Watch(ranks, signals),
    ):
        return _train(experiment, run_dir, resumed, signals, ranks, hopeless)


def _train(
    experiment: Experiment, run_dir: Path, resumed: bool, signals: Signals, ranks: Ranks, hopeless: Hopeless | None
) -> TrainingResult:
    check_ranks(experiment, ranks)
    if ranks.size > 1:  # alone the command has done so
        ranks.agreed(lambda: check_machine(experiment, ranks) if ranks.local_rank == 0 else None)
    if ranks.link is not None:
        ranks.link.run_dir = run_dir
    folder, changed, state = ranks.agreed(lambda: _opened(experiment, run_dir, resumed, ranks))
    changed, state = ranks.from_first((changed, state), "the checkpoint")
    if state is not None and state["agent_steps"] >= experiment.total_timesteps:
        result = None if folder is None else _finished(experiment, folder, state)
    else:
        device = ranks.agreed(lambda: make_device(experiment.device, ranks))
        settled_here = ranks.from_first(settled(experiment, device), "the config")
        trainer = ranks.agreed(lambda: _built(settled_here, device, run_dir, state, ranks))
        try:
            ranks.share_weights(trainer.uncompiled_policy)
            if folder is None:
                _loop(trainer, None, signals)
                result = None
            else:
                if state is not None:
                    changed += _other_ranks(state, trainer)
                result = _run(trainer, folder, signals, changed if resumed else None, hopeless)
        finally:
            trainer.close()
    result = ranks.from_first(result, "the result", LONG_PATIENCE)
    assert result is not None
    return result


def _opened(
    experiment: Experiment, run_dir: Path, resumed: bool, ranks: Ranks
) -> tuple[RunFolder | None, list[str], dict[str, Any] | None]:
    """The run's folder, what differs in a run that goes on, and its newest state: for the first rank."""
    if not ranks.first:
        return None, [], None
    folder = RunFolder.of(run_dir) if resumed else RunFolder(run_dir)
    changed = changes(load_experiment(run_dir), experiment) if resumed else []
    return folder, changed, newest_state(run_dir) if resumed else None


def _finished(experiment: Experiment, folder: RunFolder, state: dict[str, Any]) -> TrainingResult:
    """Of a run that has nothing left to do."""
    log.info(
        "%s is finished: it has %s of %s agent steps. A larger total_timesteps makes it go on",
        *(_relative(folder.path), f"{state['agent_steps']:,}", f"{experiment.total_timesteps:,}"),
    )
    result = _result(experiment, folder, state["agent_steps"])
    folder.close_finished(state["agent_steps"])
    return result


def _built(
    experiment: Experiment, device: str, run_dir: Path, state: dict[str, Any] | None, ranks: Ranks
) -> StockTrainer:
    game = make_game(experiment.mission)
    if experiment.vecenv.num_envs == AUTO:
        experiment = tuned(experiment, game, device, run_dir)
    steps = updates_of(experiment, ranks) * experiment.batch_size // experiment.total_agents
    if steps < game.game.max_steps and ranks.first:
        log.warning(
            "Each environment plays %d steps, an episode has %d: none will end, so there will be no episode_return",
            *(steps, game.game.max_steps),
        )
    trainer = build(experiment, game, device, state, ranks)
    network = trainer.uncompiled_policy
    parameters = sum(parameter.numel() for parameter in network.parameters())
    log.info("Network: %s, %s parameters, %s", type(network).__name__, f"{parameters:,}", experiment.device.precision)
    return trainer


def _other_ranks(state: dict[str, Any], trainer: StockTrainer) -> list[str]:
    """Says what becomes of the environments of a run that goes on with another number of processes."""
    each, now = trainer.experiment.vecenv.num_envs, trainer.ranks.size
    before = ranks_of(state, each)
    if before == now:
        return []
    few, many = min(before, now) * each, max(before, now) * each - 1
    log.warning(
        "The run had %d process%s of %d environments and goes on with %d: environments %d to %d %s",
        *(before, "es" if before > 1 else "", each, now, few, many, "begin anew" if now > before else "are left out"),
    )
    return [f"processes: {before} -> {now}"]


def _run(
    trainer: StockTrainer,
    folder: RunFolder,
    signals: Signals,
    changed: list[str] | None,
    hopeless: Hopeless | None,
) -> TrainingResult:
    """The run proper: whatever ends it, status.json and W&B say how. `changed`: what differs in a run that goes on."""
    experiment, ranks = trainer.experiment, trainer.ranks
    tracker = Tracker(experiment, folder.path, folder.wandb_id)
    state, reason = "failed", None
    if ranks.link is not None:
        ranks.link.when_stuck = lambda error: folder.finish("failed", str(error), agent_steps=trainer.global_step)
    try:
        if changed is None:
            folder.start(experiment, ranks.agent)
        else:
            folder.go_on(experiment, trainer.epoch, changed)
            remove_later_checkpoints(folder.path, trainer.epoch)
            tracker.best_return = max(folder.returns(), default=tracker.best_return)
            log.info("Going on after update %d, %s agent steps", trainer.epoch, f"{trainer.global_step:,}")
            for change in changed:
                log.info("Changed: %s", change)
        if ranks.size > 1:
            log.info("Processes: %d, each with %d environments", ranks.size, experiment.vecenv.num_envs)
        log.info("Run folder: %s", _relative(folder.path))
        scribe = Scribe(experiment, trainer, folder, tracker, hopeless)
        with scribe:
            _loop(trainer, scribe, signals)
        scribe.close()
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


def _result(experiment: Experiment, folder: RunFolder, agent_steps: int) -> TrainingResult:
    checkpoint, last_return = numbered_checkpoints(folder.path)[-1], (folder.returns() or [None])[-1]
    objective = folder.objective(experiment.sweep.objective)
    return TrainingResult(folder.path, checkpoint, agent_steps, last_return, objective)


def _loop(trainer: StockTrainer, scribe: Scribe | None, signals: Signals) -> None:
    """Updates until the run is over. All ranks go through it in step; only the first has a scribe."""
    experiment, ranks = trainer.experiment, trainer.ranks
    saved = trainer.epoch or None  # the update of the last checkpoint; before the first update there is none
    max_steps = trainer.games[0].game.max_steps

    def save(before_rollout: dict[str, Any] | None = None) -> None:
        nonlocal saved
        state = joined_state(trainer, before_rollout)
        if scribe is not None and state is not None:
            scribe.save(state)
        saved = trainer.epoch

    if ranks.size > 1 and trainer.epoch == 0:  # nobody can ask a rank that died for its part: one lies there always
        save()
    while trainer.global_step < experiment.total_timesteps:
        # All stop and store after the same update, whichever of them were told to.
        stop, checkpoint = ranks.largest([signals.stop or 0, int(signals.checkpoint)], "the wish to stop")
        if (stop or checkpoint) and saved != trainer.epoch:
            save()
        if checkpoint:
            signals.checkpoint = False
        if stop:
            raise Interrupted(stop)
        before_rollout = rollout_state(trainer) if ranks.size == 1 else None  # of several, nobody can gather it
        steps_before = trainer.global_step
        try:
            metrics = update(trainer, max_steps)
        except WorkerFailure:
            if ranks.size == 1:
                save(before_rollout)
            raise
        judged = is_due(experiment, steps_before, trainer.global_step)
        if scribe is not None:
            scribe.log(metrics, judged)
        if (
            judged
            or trainer.global_step >= experiment.total_timesteps
            or trainer.epoch % experiment.checkpoint.interval == 0
        ):
            save()
        if judged and scribe is not None:
            scribe.keep_best()
            scribe.give_up_if_hopeless(metrics)


def update(trainer: StockTrainer, max_steps: int) -> dict[str, float]:
    """One rollout and one update, and everything that is logged of them."""
    steps_before, learning_rate = trainer.global_step, trainer.learning_rate
    start = time.perf_counter()
    trainer.evaluate()
    middle = time.perf_counter()
    trainer.train()
    end = time.perf_counter()
    missions = [mission.name for mission in trainer.experiment.missions]
    statistics = episode_statistics(trainer.episodes, max_steps, missions)
    return {
        "agent_steps": trainer.global_step,
        "update": trainer.epoch,
        "optimizer/learning_rate": learning_rate,
        **{f"losses/{name}": value for name, value in trainer.losses.items()},
        **{f"environment/{name}": value for name, value in statistics.items()},
        "performance/SPS": (trainer.global_step - steps_before) / (end - start),
        "performance/rollout_seconds": middle - start,
        "performance/update_seconds": end - middle,
        "performance/peak_memory_mb": _peak_memory_mb(),
    }


def episode_statistics(
    episodes: dict[str, list[Any]], max_steps: int, missions: Sequence[str] = ()
) -> dict[str, float]:
    """Means over the episodes that ended, from each statistic's values in them.

    `episode_return` is the mean return per agent of *whole* episodes: an early reset cuts one short, which says nothing
    about the policy. Where there are several `missions`, that of each has a key of its own beside it. The other
    statistics are means over all episodes that ended; the simulator leaves out events that did not happen, which count
    as 0.
    """
    lengths = episodes.get("attributes/steps", [])
    statistics = {"episodes": float(len(lengths))}
    labelled = next((values for key, values in episodes.items() if key.startswith("per_label_rewards/")), [])
    returns = episodes.get("return", labelled)
    whole = [index for index, length in enumerate(lengths) if length >= max_steps]
    if whole:
        statistics["episode_return"] = float(np.mean([returns[index] for index in whole]))
    for number, name in enumerate(missions if len(missions) > 1 else ()):
        theirs = [returns[index] for index in whole if episodes["mission"][index] == number]
        if theirs:
            statistics[f"episode_return/{name}"] = float(np.mean(theirs))
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
