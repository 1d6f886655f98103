"""Checkpoints of a run folder, and weights from wherever they lie."""

import contextlib
import logging
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scout.config import Experiment
from scout.errors import ScoutError
from scout.files import BEST, CHECKPOINTS, CONFIG, STATUS
from scout.pretrained import path_of
from scout.run_folder import load_experiment, object_in, sync_folder

log = logging.getLogger(__name__)

STATE = ("model", "optimizer", "scheduler", "trainer", "environments", "generators", "agent_steps", "update")
"""What a checkpoint holds of a run (state.py)."""


@dataclass(frozen=True)
class Weights:
    """A network's weights and where they came from."""

    path: Path
    state_dict: dict[str, Tensor]
    experiment: Experiment | None
    """The run that made them; None for a bare state_dict."""
    agent_steps: int | None
    state: str | None = None
    """Of that run: finished, running, interrupted or failed; None where its status is not there."""


def save_checkpoint(run_dir: Path, contents: dict[str, Any], update: int, keep: int) -> Path:
    """Writes checkpoints/UPDATE.pt whole or not at all, then removes all but the newest `keep`.

    It is on the disk, not only in its cache, when this returns. Raises ScoutError when the folder cannot be written;
    what lay there before is then untouched.
    """
    path = run_dir / CHECKPOINTS / f"{update:06d}.pt"
    save_whole(path, contents)
    for old in numbered_checkpoints(run_dir)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def save_whole(path: Path, contents: dict[str, Any]) -> None:
    """Writes a file that `read_checkpoint` reads, whole or not at all; what lay there before is replaced at the end.

    It is on the disk when this returns. Raises ScoutError when it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(contents, file)  # with a CRC-32 of every record, which `read_checkpoint` checks
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ScoutError(
            f"{path}: the checkpoint cannot be written ({error}); the ones before it are intact"
        ) from error


def newest_state(run_dir: Path) -> dict[str, Any] | None:
    """What the newest intact checkpoint of a run holds; None where there is no checkpoint at all.

    A damaged one is reported, and the one before it taken. Raises ScoutError when all are damaged.
    """
    paths = numbered_checkpoints(run_dir)
    for path in reversed(paths):
        try:
            state = read_checkpoint(path)
            missing = [name for name in STATE if name not in state]
            if missing:
                raise ScoutError(f"{path} has no {', '.join(missing)}: it can be judged, but not resumed")
        except ScoutError as error:
            log.warning("%s; the one before it is taken", error)
            continue
        return state
    if paths:
        raise ScoutError(
            f"{run_dir} has no intact checkpoint to resume from, of {len(paths)}: start a new run, "
            "or put back a copy of one of them"
        )
    return None


def remove_later_checkpoints(run_dir: Path, update: int) -> None:
    """Removes those beyond an update from which a run goes on: they were damaged, or the run will make them again."""
    for path in numbered_checkpoints(run_dir):
        if int(path.stem) > update:
            path.unlink(missing_ok=True)


def numbered_checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    checkpoints = [path for path in (run_dir / CHECKPOINTS).glob("*.pt") if path.stem.isdigit()]
    return sorted(checkpoints, key=lambda path: int(path.stem))


def load_weights(location: str) -> Weights:
    """Weights from a run folder (its best checkpoint, else its last), a checkpoint of one, or a bare state_dict.

    `pretrained` and `pretrained/cnn_lstm` name the scouts that come with the project. Raises ScoutError when nothing is
    there, or when the file is damaged or something else.
    """
    path = path_of(location)
    try:
        found = path.exists()
    except OSError as error:
        raise ScoutError(f"{location} cannot be looked for ({error.strerror}): expected a run folder") from error
    if not found:
        raise ScoutError(f"{location} does not exist: expected a run folder, a checkpoint, a state_dict or pretrained")
    if path.is_dir() and not (path / CONFIG).is_file() and any(path.glob(f"*/{CONFIG}")):
        raise ScoutError(
            f"{location} holds several runs: name one of them; evaluate.py judges all by policies=[{location}]"
        )
    run_dir = path if path.is_dir() else path.resolve().parent.parent
    experiment = None
    if path.is_dir():
        experiment = load_experiment(run_dir)
        checkpoints = numbered_checkpoints(run_dir)
        best = run_dir / CHECKPOINTS / BEST
        if not checkpoints and not best.is_file():
            raise ScoutError(
                f"{location} has no checkpoint yet: the run ended before its first one, or is still on its way"
            )
        path = best if best.is_file() else checkpoints[-1]
    contents = read_checkpoint(path)
    if "model" not in contents:
        return Weights(path, contents, experiment, None)
    if experiment is None and not (run_dir / CONFIG).is_file():
        raise ScoutError(
            f"{path} is a checkpoint without its run folder: expected {CONFIG} in the folder above its own. "
            "Put it back, or save its entry `model` alone as a state_dict"
        )
    state = object_in(run_dir / STATUS).get("state")
    return Weights(path, contents["model"], experiment or load_experiment(run_dir), contents.get("agent_steps"), state)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint or a bare state_dict holds; its code, if it has any, is not run.

    Raises ScoutError when it is damaged or something else.
    """
    try:
        if zipfile.is_zipfile(path):  # torch's older format is none, and has no checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes torch, zipfile or pickle raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScoutError(
            f"{path} cannot be read as a checkpoint: it is damaged or something else ({reason})"
        ) from error
    tensors = contents.get("model", contents) if isinstance(contents, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ScoutError(f"{path} holds no network's weights: expected a checkpoint of train.py or a state_dict")
    return contents


def load_into(network: nn.Module, weights: Weights) -> None:
    """Puts the weights into the network. Raises ScoutError naming what differs when the architectures do."""
    own, given = network.state_dict(), weights.state_dict
    differences = [f"{name} is missing" for name in own if name not in given]
    differences += [f"{name} is unknown" for name in given if name not in own]
    differences += [
        f"{name} is {list(given[name].shape)}, expected {list(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ScoutError(
            f"{weights.path} is of another architecture: {'; '.join(differences[:3])}{more}. "
            "Give the model and sizes it was trained with"
        )
    network.load_state_dict(given)
