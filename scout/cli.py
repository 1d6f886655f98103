"""Between Hydra and the library: composed configs in, one clear message out when something is wrong."""

import contextlib
import functools
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scout.config import Experiment, Group
from scout.errors import ScoutError
from scout.files import ENDED, EPISODES, STATUS, STOPPING, TORCHRUN
from scout.ranks import ALONE, Ranks
from scout.resume import run_of, unfinished_run, with_overrides
from scout.run_folder import is_running, load_experiment, object_in
from scout.signals import Interrupted
from scout.validation import flat, unknown_key, validate

log = logging.getLogger(__name__)

FIRST_SECONDS = 10.0  # that the first rank may take longer to see a mistake

CONF = Path(__file__).resolve().parent.parent / "conf"

# The launchers' files in conf/ have the names of their packages' own, so that they are checked against them.
warnings.filterwarnings("ignore", message=r"(?s).*is validated against ConfigStore schema with the same name")
OmegaConf.register_new_resolver("scout.name_or", lambda name, time: name or time, replace=True)


def load[Schema: Group](schema: type[Schema], cfg: DictConfig) -> Schema:
    """The typed form of a composed config. Raises ScoutError for anything that the schema does not know."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return validate(schema, {str(key): value for key, value in values.items()})


def compose_experiment(*overrides: str) -> Experiment:
    """What `python train.py OVERRIDES` would train. Raises ScoutError for anything that the schema does not know."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(Experiment, compose("train", list(overrides)))


def experiment_of(cfg: DictConfig, ranks: Ranks = ALONE) -> tuple[Experiment, Path, bool]:
    """The experiment to train, its run folder, and whether that holds a run which is to go on (`resume`).

    A resumed run has its own config, but for the keys that the command line names. A job that torchrun has started
    again goes on with its run. Raises ScoutError for anything that the schema does not know, and for a run that is not
    there. Ranks after the first have what the first one has as soon as they meet.
    """
    if not ranks.first:
        return Experiment(), Path(), False
    config = HydraConfig.get()
    output_dir = Path(config.runtime.output_dir)
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    composed = {str(key): value for key, value in values.items()}
    match composed.get("resume"):
        case None:
            asked, run_dir = validate(Experiment, composed), output_dir
            if ranks.agent is not None:  # torchrun may have started the job again
                beside = (output_dir, *output_dir.parent.glob("*"))
                found = (folder for folder in beside if object_in(folder / STATUS).get(TORCHRUN) == ranks.agent)
                run_dir = next(found, None)
            elif config.mode != RunMode.MULTIRUN or run_of(asked, output_dir)[0] is None:
                run_dir = None
            if run_dir is None:
                return asked, output_dir, False
            _wait_for(run_dir)  # a job of a sweep that was called again, or that a scheduler started again
            experiment = load_experiment(run_dir)
        case "auto":
            asked = validate(Experiment, composed)
            here = output_dir.parent
            ended = run_of(asked, output_dir)[0] in ENDED  # in a folder that hydra.run.dir names
            run_dir = output_dir if ended else unfinished_run(asked, [output_dir, *here.glob("*")])
            if run_dir is None:
                log.info("resume=auto: no unfinished run of this config below %s, so a new one begins", here)
                return asked.model_copy(update={"resume": None}), output_dir, False
            experiment = load_experiment(run_dir)
        case location:
            run_dir = Path(str(location))
            experiment = with_overrides(run_dir, composed, _overridden_keys(list(config.overrides.task)))
    _log_into(run_dir, output_dir)
    return experiment, run_dir, True


def _wait_for(run_dir: Path) -> None:
    """Returns when no other process trains a run: one of a sweep that was killed may, on another machine."""
    if is_running(run_dir):
        log.info("%s is being trained by another process: waiting for it", run_dir)
        while is_running(run_dir):
            time.sleep(1)


def hopeless() -> Callable[[int, float], bool] | None:
    """For a job that is a trial of an Optuna study: whether to give it up after an evaluation. None for any other."""
    config = HydraConfig.get()
    if config.mode != RunMode.MULTIRUN or "pruner" not in config.sweeper:
        return None
    from scout.study import hopeless_in

    folder = Path(config.runtime.output_dir)
    pruner = config.sweeper.pruner
    return None if pruner is None else hopeless_in(folder.parent, int(folder.name), instantiate(pruner))


def _overridden_keys(overrides: list[str]) -> list[str]:
    """The dotted keys that overrides set: of a group's option the whole group, of an experiment what it sets."""
    keys = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.key_or_group == "experiment" and override.value() is not None:
            path = CONF / "experiment" / f"{override.value()}.yaml"
            recipe = yaml.safe_load(path.read_text())
            for default in recipe.pop("defaults", []):
                keys += [key.rpartition("/")[2] for key in default if key.startswith("override /")]
            keys += flat(recipe)
        elif override.key_or_group not in ("experiment", "resume") and not override.key_or_group.startswith("hydra"):
            keys.append(override.key_or_group)
    return keys


def _log_into(run_dir: Path, output_dir: Path) -> None:
    """Moves Hydra's log file from the folder that it made for this job into the run's, and removes that folder."""
    if output_dir.resolve() == run_dir.resolve():
        return
    root = logging.getLogger()
    anothers = any((output_dir / name).exists() for name in (STATUS, EPISODES))
    for handler in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        path = Path(handler.baseFilename)
        if path.parent.resolve() == output_dir.resolve():
            root.removeHandler(handler)
            handler.close()
            if not anothers:
                path.unlink(missing_ok=True)
            moved = logging.FileHandler(run_dir / path.name, delay=True)
            moved.setFormatter(handler.formatter)
            root.addHandler(moved)
    with contextlib.suppress(OSError):  # it holds something else
        output_dir.rmdir()


class Stopped(ScoutError):
    """A signal ended a job that runs in another process than its sweep."""


def job(function: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Reports the failure of a Hydra job into the job's own log; in a sweep the other jobs go on."""

    @functools.wraps(function)
    def reported(cfg: DictConfig) -> Any:
        config = HydraConfig.get()
        sweep = config.mode == RunMode.MULTIRUN
        folder = Path(config.runtime.output_dir)
        taken = any((folder / name).exists() for name in (STATUS, EPISODES)) and cfg.get("resume") is None
        taken = taken and not sweep
        from scout import signals  # here, since a launcher copies what this function knows to other processes

        if sweep and (folder.parent / STOPPING).exists():
            raise Stopped("The sweep was told to stop before this job began")
        try:
            return function(cfg)
        except (ScoutError, OmegaConfBaseException) as error:
            if taken:
                print(error, file=sys.stderr)  # not into the log, which is another run's
            else:
                log.error("%s", error)
            if sweep:
                raise
            sys.exit(1)
        except Exception:
            log.exception("A fault of the program, not of the config:")
            if sweep:
                raise
            sys.exit(1)
        except Interrupted as interruption:
            if sweep and not signals.sweeps_here:  # the sweep waits for the other jobs
                raise Stopped(f"Interrupted by {interruption}") from None
            sys.exit(interruption.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)

    return reported


def run(main: Callable[[], Any], schema: type[Group]) -> None:
    """Calls a Hydra main; what goes wrong before a job begins is one message, and the exit code is not 0.

    Of the processes of a job the first alone has a folder, a log and something to say.

    A W&B that was given up would hold up Python's end: then the process leaves without it.
    """
    code: Any = 0
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not worth a traceback a line
    try:
        _run(main, schema)
    except SystemExit as leaving:
        code = leaving.code
    tracking = sys.modules.get("scout.tracking")
    if tracking is not None and tracking.given_up:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    sys.exit(code)


def _run(main: Callable[[], Any], schema: type[Group]) -> None:
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors to us instead of printing them
    silent = False
    try:
        ranks = Ranks.from_environment()
        silent = not ranks.first
        _as_one_job(ranks, schema)
        main()
    except (HydraException, OmegaConfBaseException, ScoutError) as error:
        if wants_traceback:
            raise
        if silent:
            _leave_after_the_first()
        print(_message(error, schema, sys.argv[1:]), file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if wants_traceback:
            raise
        if silent:
            _leave_after_the_first()
        if isinstance(error, OSError) and error.filename:  # Hydra could not make the run folder
            print(f"{error.filename}: {error.strerror}. Choose another folder with hydra.run.dir=DIR.", file=sys.stderr)
        elif isinstance(error, ValueError):
            print(_message(error, schema, sys.argv[1:]), file=sys.stderr)
        else:  # the traceback is in the log of the job that failed
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _leave_after_the_first() -> NoReturn:
    """Ends a rank with a mistake that the first one has as well, and says: torchrun ends all when one has left."""
    time.sleep(FIRST_SECONDS)
    sys.exit(1)


def _as_one_job(ranks: Ranks, schema: type[Group]) -> None:
    """Lets all processes but the first go without a folder and a log of their own.

    Raises ScoutError for what is no job of several processes; sweeps.py does for sweeps.
    """
    if ranks.size == 1:
        return
    if schema is not Experiment:
        raise ScoutError(
            f"{Path(sys.argv[0]).name} is no job for torchrun: it starts by itself what processes it needs"
        )
    if not ranks.first:
        sys.argv += ["hydra.run.dir=.", "hydra/job_logging=quiet"]


def _message(error: Exception, schema: type[Group], arguments: Sequence[str]) -> str:
    cause = error.__cause__
    if isinstance(error, OverrideParseException) and "=" not in error.override:
        return f"{error.override} says nothing by itself: expected KEY=VALUE without spaces; --help lists the keys"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} cannot be read: a value with one of , = [ ] {{ }} ( ) or a space in it needs quotes of "
            f"its own, inside those of the shell: 'KEY=\"VALUE\"' or 'KEYS=[\"VALUE\",...]'"
        )
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):  # vecenv=1
        groups = [path.name for path in CONF.iterdir() if path.is_dir()]
        wrong = [line for line in arguments if line.partition("=")[0].lstrip("+~") in groups]
        return f"{' '.join(wrong)} is not valid: a group takes the name of one of its options; --help lists them"
    found = re.match(r"Could not override '([^']+)'", str(error))
    if found and found.group(1).startswith("hydra."):
        group = found.group(1).rpartition(".")[0]
        return f"{found.group(1)} is not a key here; `--cfg hydra -p {group}` shows those there are"
    if found:
        key = found.group(1)
        values = [argument.partition("=")[2] for argument in arguments if argument.partition("=")[0] == key]
        return unknown_key(schema, key, *values[:1])
    text = str(error).partition("\nConfig search path:")[0]
    if "'hydra/launcher/" in text:
        text += "\njoblib is in the extra joblib, the others in the extra slurm; `make setup` installs all extras"
    return text if cause is None else f"{text}\n{cause}"
