"""Weights & Biases: the mirror of a run folder's metrics. It never prompts, and never stops a run that has begun."""

import importlib
import logging
from pathlib import Path
from typing import Any

from scout.config import Experiment, WandbConfig
from scout.errors import ScoutError

log = logging.getLogger(__name__)

START_SECONDS, FINISH_SECONDS = 30, 60  # how long an unreachable server may hold up the start and the end of a run


class Tracker:
    """One W&B run, or nothing with wandb=disabled."""

    def __init__(self, experiment: Experiment, run_dir: Path) -> None:
        """Raises ScoutError when W&B is not installed, has no key for wandb=online, or refuses or cannot be reached."""
        self._run: Any = None
        config = experiment.wandb
        if config.mode == "disabled":
            return
        wandb = _import_wandb(config)
        try:
            if config.mode == "online" and not wandb.login(prompt=False, verify=False):
                raise ScoutError(
                    "wandb=online needs a key: run `wandb login`, set WANDB_API_KEY, or take wandb=offline"
                )
            self._run = wandb.init(
                mode=config.mode,
                dir=run_dir,
                project=config.project,
                entity=config.entity,
                group=config.group,
                job_type="train",
                tags=config.tags,
                name=config.name,
                config={"experiment": experiment.model_dump()},
                reinit="create_new",  # the runs of a sweep share a process, and must not share a run
                settings=wandb.Settings(
                    init_timeout=START_SECONDS,
                    finish_timeout=FINISH_SECONDS,
                    finish_timeout_raises=False,
                    console="off",
                    silent=True,
                ),
            )
        except (wandb.Error, OSError, ValueError) as error:  # its settings raise pydantic's ValidationError
            raise ScoutError(f"wandb={config.mode} failed: {error}. Mend that, or take wandb=offline") from error
        self._run.define_metric("agent_steps", hidden=True)
        self._run.define_metric("*", step_metric="agent_steps")
        if config.mode == "online":
            log.info("W&B: %s", self._run.url)

    def log(self, metrics: dict[str, float]) -> None:
        """Sends one update's metrics; their x axis is `agent_steps`."""
        self._attempt(lambda run: run.log(metrics))

    def log_checkpoint(self, path: Path) -> None:
        """Sends a checkpoint as the run's model artifact."""

        def send(run: Any) -> None:
            artifact = _import_wandb(None).Artifact(f"scout-{run.id}", type="model")
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
            run.log_artifact(artifact)

        self._attempt(send)

    def finish(self, succeeded: bool) -> None:
        """Closes the run, as failed where it failed."""
        self._attempt(lambda run: run.finish(exit_code=0 if succeeded else 1))
        self._run = None

    def _attempt(self, call: Any) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:  # a mirror that breaks must not take the run with it
            log.warning("W&B stopped working (%s); the run goes on, and metrics.jsonl has everything", error)
            self._run = None


def _import_wandb(config: WandbConfig | None) -> Any:
    try:
        return importlib.import_module("wandb")  # takes seconds, so it is not imported before it is needed
    except ImportError as error:
        mode = config.mode if config else "offline"
        raise ScoutError(
            f"wandb={mode} needs the package wandb, which cannot be imported ({error}): install it, "
            "or take wandb=disabled"
        ) from error
