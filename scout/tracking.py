"""Weights & Biases: the mirror of a run folder's metrics. It never prompts, and never holds up a run or ends one."""

import importlib
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scout.config import Experiment, WandbConfig
from scout.errors import ScoutError

log = logging.getLogger(__name__)

START_SECONDS = 30  # after which a server that does not answer is given up, and the run recorded offline
FINISH_SECONDS, INTERRUPTED_SECONDS = 60, 5  # how long it may hold up the end of a run


given_up: list[threading.Thread] = []  # threads that still wait for W&B, long after their run has ended


class Tracker:
    """One W&B run, or nothing with wandb=disabled.

    A thread of its own speaks with W&B, so that a slow server never holds up the training. A run that cannot begin
    online is recorded offline, from its first update on.
    """

    def __init__(self, experiment: Experiment, run_dir: Path, run_id: str) -> None:
        """Goes on with the W&B run of that id where there is one.

        Raises ScoutError when W&B is not installed, has no key for wandb=online, or does not take the config.
        """
        self._calls: queue.Queue[Callable[[Any], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        config = experiment.wandb
        if config.mode == "disabled":
            return
        wandb = _import_wandb(config)
        try:
            if config.mode == "online" and not wandb.login(prompt=False, verify=False):
                raise ScoutError(
                    "wandb=online needs a key: run `wandb login`, set WANDB_API_KEY, or take wandb=offline"
                )
            self._arguments = {
                "id": run_id,
                "resume": "allow",
                "dir": run_dir,
                "project": config.project,
                "entity": config.entity,
                "group": config.group,
                "job_type": "train",
                "tags": config.tags,
                "name": config.name,
                "config": {"experiment": experiment.model_dump()},
                "reinit": "create_new",  # the runs of a sweep share a process, and must not share a run
                "settings": wandb.Settings(
                    init_timeout=START_SECONDS,
                    finish_timeout=FINISH_SECONDS,
                    finish_timeout_raises=False,
                    console="off",
                    silent=True,
                ),
            }
            run = self._begin(wandb, "offline") if config.mode == "offline" else None
        except (wandb.Error, OSError, ValueError) as error:  # its settings raise pydantic's ValidationError
            raise ScoutError(f"wandb={config.mode} failed: {error}. Mend that, or take wandb=disabled") from error
        self._thread = threading.Thread(target=self._serve, args=(wandb, run), name="W&B", daemon=True)
        self._thread.start()

    def log(self, metrics: dict[str, float]) -> None:
        """Sends one update's metrics; their x axis is `agent_steps`.

        W&B's own step is the update, by which its server knows an update that a resumed run makes again.
        """
        self._call(lambda run: run.log(metrics, step=int(metrics["update"])))

    def log_checkpoint(self, path: Path) -> None:
        """Sends a checkpoint as the run's model artifact."""

        def send(run: Any) -> None:
            artifact = _import_wandb(None).Artifact(f"scout-{run.id}", type="model")
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
            run.log_artifact(artifact)

        self._call(send)

    def _call(self, call: Callable[[Any], None]) -> None:
        if self._thread is not None:
            self._calls.put(call)

    def finish(self, state: str) -> None:
        """Closes the run, as failed unless the state is `finished`; gives up after a while, or soon if interrupted."""
        if self._thread is None:
            return
        self._calls.put(lambda run: run.finish(exit_code=0 if state == "finished" else 1))
        self._calls.put(None)
        patience = INTERRUPTED_SECONDS if state == "interrupted" else START_SECONDS + FINISH_SECONDS
        self._thread.join(patience)
        if self._thread.is_alive():
            given_up.append(self._thread)
            log.warning(
                "W&B has not taken everything within %d seconds; metrics.jsonl has it, `wandb sync` can send the rest",
                patience,
            )

    def _serve(self, wandb: Any, run: Any) -> None:
        """What the thread does: starts an online run, then makes the calls in their order."""
        try:
            run = run or self._begin(wandb, "online")
        except Exception as error:
            instead = "this run is recorded offline, `wandb sync` sends it later"
            try:  # the id is in use by the attempt that failed
                run = self._begin(wandb, "offline", f"{self._arguments['id']}-offline")
            except Exception as another:
                instead = f"nor can it record offline ({another}); metrics.jsonl has everything"
            log.warning("W&B cannot be reached (%s): %s", str(error).split("\n")[0], instead)
        while (call := self._calls.get()) is not None:
            if run is None:
                continue
            try:
                call(run)
            except Exception as error:  # a mirror that breaks must not take the run with it
                log.warning("W&B stopped working (%s); the run goes on, and metrics.jsonl has everything", error)
                run = None

    def _begin(self, wandb: Any, mode: str, run_id: str | None = None) -> Any:
        run = wandb.init(mode=mode, **{**self._arguments, **({"id": run_id} if run_id else {})})
        run.define_metric("agent_steps", hidden=True)
        run.define_metric("*", step_metric="agent_steps")
        if mode == "online":
            log.info("W&B: %s", run.url)
        return run


def _import_wandb(config: WandbConfig | None) -> Any:
    try:
        return importlib.import_module("wandb")  # takes seconds, so it is not imported before it is needed
    except ImportError as error:
        mode = config.mode if config else "offline"
        raise ScoutError(
            f"wandb={mode} needs the package wandb, which cannot be imported ({error}): install it, "
            "or take wandb=disabled"
        ) from error
