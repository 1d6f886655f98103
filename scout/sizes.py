"""How much memory an experiment needs, before anything is built; and what to lower when there is too little."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from scout.errors import ScoutError

if TYPE_CHECKING:
    from scout.config import Experiment

# Measured (docs/performance.md): libraries; an environment of 50 x 50 cells; an agent step of a rollout, nearly all of
# it tokens; and an agent step of a minibatch with its gradients, which grows with the widths of the network's layers.
LIBRARIES, ENVIRONMENT, ROLLOUT_STEP, MINIBATCH_STEP = 0.9e9, 2.6e6, 640, 20e3
CELLS = {"cogsguard_arena": 50 * 50, "cogsguard_machina_1": 88 * 88}
KEYS = {
    "environments": "vecenv.num_envs",
    "rollout": "trainer.batch_size, trainer.bptt_horizon or vecenv.num_envs",
    "minibatch": "trainer.max_minibatch_size",
    "network": "the sizes of model",
}


def estimate(experiment: "Experiment") -> dict[str, float]:
    """Bytes that a run needs about, by what needs them."""
    trainer, model = experiment.trainer, experiment.model
    width = model.hidden_size
    channels = getattr(model, "conv_channels", [1, 1])
    kernel = getattr(model, "kernel_size", 1)
    inputs = sum(getattr(model, name, 0) for name in ("cnn_features", "self_features", "features", "global_features"))
    embedding = max(getattr(model, "embedding_size", 78), getattr(model, "token_features", 0))
    flat = channels[1] * 36  # cells of an 11 x 11 window after two strides of 1 or 2
    parameters = (
        4 * width * (width + inputs) + flat * inputs + kernel**2 * channels[0] * (channels[1] + embedding) + 1e5
    )
    parameters += 20e3 * embedding
    steps = min(trainer.minibatch_size, trainer.max_minibatch_size)
    largest = max(CELLS[mission.site] for mission in experiment.missions)
    worlds = ENVIRONMENT * largest / CELLS["cogsguard_arena"]
    return {
        "environments": experiment.vecenv.num_envs * (worlds + experiment.mission.max_steps * 20),
        "rollout": experiment.batch_size * ROLLOUT_STEP,
        "minibatch": steps * (MINIBATCH_STEP + 4 * (10 * width + 4 * inputs + 36 * sum(channels))),
        "network": parameters * 4 * 5,  # weights, gradients, the optimizer's two moments, a copy in lower precision
    }


def available_memory() -> float:
    """Bytes that this process can still get: of the machine, or of its control group (v2) where that allows less."""
    limits = [float(psutil.virtual_memory().available)]
    with contextlib.suppress(OSError, ValueError, KeyError):  # no group, or one without a limit
        group = Path("/sys/fs/cgroup")
        limit, used = (float((group / name).read_text()) for name in ("memory.max", "memory.current"))
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limits.append(limit - used + float(parts["inactive_file"]))  # files that were read and can be read again
    return min(limits)


def check_memory(experiment: "Experiment", processes: int = 1) -> None:
    """Raises ScoutError for an experiment that would not fit into this machine's memory, with the estimate."""
    parts = estimate(experiment)
    needed, available = (sum(parts.values()) + LIBRARIES) * processes, available_memory()
    if needed > available:
        largest = max(parts, key=lambda name: parts[name])
        listed = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        raise ScoutError(
            f"This run needs about {_size(needed)} of memory ({listed}, libraries {_size(LIBRARIES)}"
            f"{f', in each of {processes} processes' if processes > 1 else ''}), and "
            f"{_size(available)} are available: lower {KEYS[largest]}"
        )


@contextlib.contextmanager
def naming_keys_when_out_of_memory() -> Iterator[None]:
    """Turns what Python and torch raise when memory runs out into a ScoutError with the keys to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = str(error)
        if not isinstance(error, MemoryError) and "out of memory" not in words and "allocate memory" not in words:
            raise
        reason = words.splitlines()[0] if words else "no more was given"
        raise ScoutError(f"Out of memory ({reason}): lower {'; '.join(KEYS.values())}") from error


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.0f} MB"
