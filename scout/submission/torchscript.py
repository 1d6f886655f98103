"""A network -> a TorchScript archive that runs without its code, checked in a process of its own."""

import copy
import io
import json
import logging
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scout.errors import ScoutError
from scout.model_config import Model
from scout.models import fix_weights, set_fast_layers
from scout.models.memory import state_of
from scout.policy import CONFIG_KEY
from scout.submission.alone import ON_SERVER
from scout.submission.on_server.answer import answers

log = logging.getLogger(__name__)

ACTIONS_KEY, SIZE_KEY = "action_names", "hidden_size"  # of the archive's extra files, beside CONFIG_KEY
BATCHES = (1, 3, 8)
"""Observations at once that an archive has to answer; it is traced with two."""
EVERY = 4  # of the recorded steps; so they are of a longer part of the episode
TOLERANCE = 1e-4
SECONDS = 600
PLAYER = ON_SERVER / "answer.py"


class Step(nn.Module):
    """One step of a network as a function, without a dictionary that it changes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, tokens: Tensor, lstm_h: Tensor, lstm_c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens uint8 [B, T, 3], state float32 [B, hidden_size] each -> logits [B, actions], values [B, 1], new state.

        A part of the state that the network does not use (lstm_c of a GRU) is handed through.
        """
        # A state of another size is refused here; torch's traced LSTM would read and write beyond it.
        shape = tokens.shape[0], self.network.hidden_size
        state: dict[str, Any] = {"lstm_h": lstm_h.reshape(shape), "lstm_c": lstm_c.reshape(shape)}
        logits, values = self.network.forward_eval(tokens, state)
        h, c = (state_of(state, key) for key in ("lstm_h", "lstm_c"))
        assert h is not None
        assert c is not None
        return logits.float(), values.float(), h, c


def as_torchscript(
    model: Model, network: nn.Module, action_names: Sequence[str], observations: NDArray[np.uint8]
) -> bytes:
    """A traced `Step` of the network for a CPU, with its config, its hidden_size and the action names as extra files.

    It is traced with, and checked by, observations of an episode: uint8 [steps, agents, T, 3]. Raises ScoutError for a
    network that cannot be traced, or whose trace answers otherwise.
    """
    fix_weights(network, fixed=False)  # what it keeps cannot be copied
    step = Step(copy.deepcopy(network).cpu()).eval().requires_grad_(False)
    set_fast_layers(step, False)  # numba's layers cannot be traced
    tokens = torch.from_numpy(_rows(observations, 2)[0])
    state = torch.zeros(2, step.network.hidden_size)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            traced = torch.jit.trace(step, (tokens, state, state.clone()), check_trace=False)
            buffer = io.BytesIO()
            names = {CONFIG_KEY: model.model_dump(), ACTIONS_KEY: list(action_names), SIZE_KEY: state.shape[1]}
            torch.jit.save(traced, buffer, {key: json.dumps(value) for key, value in names.items()})
        except Exception as error:  # whatever a network of one's own makes the tracer raise
            raise _refusal(model, f"it cannot be traced ({_first_line(error)})") from error
    # What torch's own modules doubt, such as an LSTM's check of its inputs, is known to be right.
    doubts = [
        _first_line(one.message).partition(". ")[0] for one in said if not one.filename.startswith(torch.__path__[0])
    ]
    archive = _without_places(buffer.getvalue())
    _check(model, step, archive, observations, doubts)
    return archive


def _check(model: Model, step: Step, archive: bytes, observations: NDArray[np.uint8], doubts: Sequence[str]) -> None:
    """Raises ScoutError where the archive answers otherwise than the network, along an episode, for any batch size.

    It answers in a process of its own, which is shown nothing but the archive: a wrong trace may crash it.
    """
    sequences = {str(count): _rows(observations[::EVERY], count) for count in BATCHES}
    hint = f"; the tracer said: {doubts[0]}" if doubts else ""
    with tempfile.TemporaryDirectory(prefix="scout-export-") as name:
        folder = Path(name)
        (folder / "network").write_bytes(archive)
        np.savez(folder / "sequences.npz", allow_pickle=False, **sequences)
        command = [sys.executable, str(PLAYER), "network", "sequences.npz", "answers.npz"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise _refusal(model, f"its trace gave no answer in {SECONDS} s{hint}") from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"it crashed, exit code {done.returncode}"])[-1]
            raise _refusal(model, f"its trace fails with {', '.join(sequences)} observations ({last}){hint}")
        with np.load(folder / "answers.npz") as answered:
            for count, sequence in sequences.items():
                expected = answers(step, sequence, step.network.hidden_size)
                found = answered[count]
                if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
                    off = np.abs(found - expected).max()
                    raise _refusal(model, f"its trace is off by {off:.3g} with {count} observations at once{hint}")
    if doubts:
        log.warning("Traced with equal answers in the check, but the tracer said: %s", doubts[0])


def _rows(observations: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Sequences for a batch of any size, [steps, count, T, 3]: those of the agents, then the same a step later."""
    steps, agents = observations.shape[:2]
    each = [np.roll(observations[:, row % agents], -(row // agents) % steps, axis=0) for row in range(count)]
    return np.stack(each, axis=1)


def _without_places(archive: bytes) -> bytes:
    """The archive without its debug records, which name the folders of this machine; torch does without them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as whole, zipfile.ZipFile(buffer, "w") as rest:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept = zipfile.ZipInfo(entry.filename)
                rest.writestr(kept, whole.read(entry))
    return buffer.getvalue()


def _refusal(model: Model, reason: str) -> ScoutError:
    return ScoutError(
        f"A .torchscript cannot hold {model.label}: {reason}. Take output=FILE.safetensors, which holds any network"
    )


def _first_line(said: object) -> str:
    return (str(said).strip().splitlines() or [type(said).__name__])[0]
