"""Weights & Biases: the mirror of a run folder. It never prompts, and never holds up a run or ends one."""

import importlib
import logging
import math
import os
import queue
import secrets
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scout import naming
from scout.config import Experiment, WandbConfig
from scout.errors import ScoutError
from scout.evaluation_config import EvaluationConfig
from scout.files import ENDED, RETURN, SWEEP

log = logging.getLogger(__name__)

START_SECONDS = 30  # after which a server that does not answer is given up, and the run recorded offline
FINISH_SECONDS, INTERRUPTED_SECONDS = 60, 5  # how long it may hold up the end of a run

BEST_RETURN = "environment/best_episode_return"

given_up: list[threading.Thread] = []  # threads that still wait for W&B, long after their run has ended


def new_id() -> str:
    """An id for a new W&B run: in a sweep of W&B's server the one that waits for this process, else a random one."""
    return (os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID")) or secrets.token_hex(4)


class Tracker:
    """One W&B run, of a training or an evaluation, or nothing with wandb=disabled.

    A thread of its own speaks with W&B, so that a slow server never holds up the work. A run that cannot begin
    online is recorded offline, from its first update on.

    In a sweep of W&B's server the run is the one that its agent was told to make: there `wandb.init` itself puts the
    agent's id, project and entity in place of those given here, and the swept values, by their names, into the config.

    The summary has the last value of each metric, and the best of `environment/episode_return`. W&B's own
    `summary="max"` forgets what was before a resume.
    """

    def __init__(
        self, job: Experiment | EvaluationConfig, run_dir: Path, run_id: str | None = None, tags: Sequence[str] = ()
    ) -> None:
        """Goes on with the W&B run of that id where there is one. `tags` are further ones than naming.py gives.

        The runs of a sweep are a group with the name of its folder, unless the user named one. Raises ScoutError when
        W&B is not installed, has no key for wandb=online, or does not take the config.
        """
        self.best_return = -math.inf
        """Of `environment/episode_return` so far; to be set for a run that goes on."""
        self._calls: queue.Queue[Callable[[Any], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        config = job.wandb
        if config.mode == "disabled":
            return
        wandb = _import_wandb(config)
        try:
            if config.mode == "online" and not wandb.login(prompt=False, verify=False):
                raise ScoutError(
                    "wandb=online needs a key: run `wandb login`, set WANDB_API_KEY, or take wandb=offline"
                )
            self._arguments = {
                "id": run_id or new_id(),
                "resume": "allow",
                "dir": run_dir,
                "project": config.project,
                "entity": config.entity,
                "group": config.group or _sweep(run_dir),
                **_described(job, tags),
                "reinit": "create_new",  # the runs of a sweep share a process, and must not share a run
                "settings": wandb.Settings(
                    init_timeout=START_SECONDS,
                    finish_timeout=FINISH_SECONDS,
                    finish_timeout_raises=False,
                    console="off",
                    silent=True,
                    stop_fn=_stop,
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
        self.best_return = max(self.best_return, metrics.get(RETURN, -math.inf))
        if math.isfinite(self.best_return):
            self.summarize({BEST_RETURN: self.best_return})

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Puts values into the run's summary, which is its row in W&B's table of runs."""
        self._call(lambda run: run.summary.update(dict(values)))

    def log_film(self, path: Path, name: str = "film") -> None:
        """Sends a film, .mp4 or .gif, beside the metrics of the last update. The file must stay until `finish`."""
        self._show(name, lambda wandb: wandb.Video(str(path)))

    def log_picture(self, name: str, path: Path) -> None:
        """Sends a picture, such as a PNG, in the same way."""
        self._show(name, lambda wandb: wandb.Image(str(path)))

    def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Sends a table, in the same way: numbers or texts in a column, where None stands for what is not known."""
        self._show(name, lambda wandb: wandb.Table(columns=columns, data=rows))

    def _show(self, name: str, make: Callable[[Any], Any]) -> None:
        def send(run: Any) -> None:
            try:
                run.log({name: make(_import_wandb(None))}, commit=False)  # a step of its own would be the next update's
            except (OSError, ValueError, TypeError, AssertionError) as error:  # W&B works, it is this that it refuses
                log.warning("W&B does not take %s (%s); everything else goes there", name, error)

        self._call(send)

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
        """Closes the run, as failed unless it came to its end; gives up after a while, or soon if interrupted."""
        if self._thread is None:
            return
        self._calls.put(lambda run: run.finish(exit_code=0 if state in ENDED else 1))
        self._calls.put(None)
        patience = INTERRUPTED_SECONDS if state == "interrupted" else START_SECONDS + FINISH_SECONDS
        self._thread.join(patience)
        if self._thread.is_alive():
            given_up.append(self._thread)
            log.warning(
                "W&B has not taken everything within %d seconds; the run's folder has it, `wandb sync` sends the rest",
                patience,
            )

    def _serve(self, wandb: Any, run: Any) -> None:
        """What the thread does: starts an online run, then makes the calls in their order."""
        try:
            run = run or self._begin(wandb, "online")
        except Exception as error:
            instead = "this run is recorded offline, `wandb sync` sends it later"
            try:  # the id is in use by the attempt that failed, and in a sweep W&B would take no other
                wandb.setup().settings.sweep_id = None
                run = self._begin(wandb, "offline", f"{self._arguments['id']}-offline")
            except Exception as another:
                instead = f"nor can it record offline ({another}); the run's folder has everything"
            log.warning("W&B cannot be reached (%s): %s", str(error).split("\n")[0], instead)
        while (call := self._calls.get()) is not None:
            if run is None:
                continue
            try:
                call(run)
            except Exception as error:  # a mirror that breaks must not take the run with it
                log.warning("W&B stopped working (%s); the run goes on, and its folder has everything", error)
                run = None

    def _begin(self, wandb: Any, mode: str, run_id: str | None = None) -> Any:
        run = wandb.init(mode=mode, **{**self._arguments, **({"id": run_id} if run_id else {})})
        if self._arguments["job_type"] == "train":
            run.define_metric("agent_steps", hidden=True)
            run.define_metric("*", step_metric="agent_steps")
        if mode == "online":
            log.info("W&B: %s", run.url)
        return run


def _described(job: Experiment | EvaluationConfig, tags: Sequence[str]) -> dict[str, Any]:
    """What W&B is told of a job. Its whole config lies under one key, so that no key of a sweep overwrites a part."""
    config: dict[str, Any]
    if isinstance(job, Experiment):
        kind, name, tags = "train", naming.run_name(job), [*naming.tags(job), *tags]
        config = {"experiment": job.model_dump(), "setting": naming.setting(job)}
    else:
        kind, name, tags = "evaluate", naming.evaluation_name(job), [*tags, *job.wandb.tags]
        config = {"evaluation": job.model_dump()}
    return {"job_type": kind, "name": name, "tags": list(dict.fromkeys(tags)), "config": config}


def _stop() -> None:
    """Ends the run in order, when W&B's server says so: by its page, or because a sweep has no use for it.

    W&B would send SIGINT. A sweep's agent sends SIGTERM as well, and a second signal that is SIGINT ends a run at once.
    """
    os.kill(os.getpid(), signal.SIGTERM)


def _sweep(run_dir: Path) -> str | None:
    """The name of the sweep's folder that a run lies in; None for a run of its own."""
    folder = run_dir.resolve().parent
    return folder.name if (folder / SWEEP).is_file() else None


def _import_wandb(config: WandbConfig | None) -> Any:
    try:
        return importlib.import_module("wandb")  # takes seconds, so it is not imported before it is needed
    except ImportError as error:
        mode = config.mode if config else "offline"
        raise ScoutError(
            f"wandb={mode} needs the package wandb, which cannot be imported ({error}): install it, "
            "or take wandb=disabled"
        ) from error
