"""DeviceConfig -> the device's name, with threads and seeds set."""

import logging
import os
import random
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scout.config import DeviceConfig, Experiment
from scout.errors import ScoutError
from scout.ranks import ALONE, Ranks

log = logging.getLogger(__name__)

_THREADS = torch.get_num_threads()


def make_device(config: DeviceConfig, ranks: Ranks = ALONE) -> str:
    """cpu, cuda or mps; `auto` takes cuda, then mps, then cpu, and says which. Each rank of a machine has its own GPU.

    Raises ScoutError for a device that is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available() and ranks.size == 1:
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if config.name != "auto" and config.name not in available:
        raise ScoutError(
            f"device={config.name} is not on this machine: torch {torch.__version__} sees {', '.join(available)}; "
            "take one of them, or device=auto"
        )
    device = available[0] if config.name == "auto" else config.name
    torch.set_num_threads(config.threads or _threads(ranks))  # a job before this one may have chosen its own
    if config.deterministic:
        make_deterministic(device)
    if device == "cuda":
        if ranks.local_size > torch.cuda.device_count():
            raise ScoutError(
                f"{ranks.local_size} processes want a GPU each, and this machine has {torch.cuda.device_count()}: "
                f"start torchrun with --nproc-per-node={torch.cuda.device_count()}, or take device=cpu"
            )
        torch.cuda.set_device(ranks.local_rank)
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.tf32
    detail = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    log.info("Device: %s (%s)", device, detail)
    return device


def _threads(ranks: Ranks) -> int:
    """Of a process when nothing is asked for: torch's own number, or its share of a machine that it has not alone.

    torchrun allows one thread to each of several processes.
    """
    return _THREADS if ranks.local_size == 1 else max((os.cpu_count() or 1) // ranks.local_size, 1)


def make_deterministic(device: str) -> None:
    """The same numbers each time: a CPU's algorithms are so by themselves, a GPU's have to be chosen.

    An operation that has no such algorithm then says so. cuBLAS reads its variable when it is first used. Source:
    torch's notes on reproducibility.
    """
    torch.backends.cudnn.deterministic = True
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def precision_of(config: DeviceConfig, device: str, trainer: str) -> Literal["float32", "bfloat16"]:
    """float32 or bfloat16: what is asked for; `auto` takes bfloat16 where the device multiplies in it and PPO trains.

    A CPU's instructions for it are AVX512_BF16 and AMX. Without them torch emulates it, which is slower than float32.
    """
    if config.precision != "auto":
        return config.precision
    fast = device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    fast = fast or (device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
    return "bfloat16" if fast and trainer == "ppo" else "float32"


def settled(experiment: Experiment, device: str) -> Experiment:
    """The experiment with what `auto` leaves to the machine decided, so that it goes on alike on another one."""
    precision = precision_of(experiment.device, device, experiment.trainer.name)
    return experiment.model_copy(update={"device": experiment.device.model_copy(update={"precision": precision})})


def seed_everything(seed: int) -> None:
    """Seeds python's, numpy's and torch's global generators; 0 is a seed like any other."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def to_device(array: np.ndarray, device: str) -> Tensor:
    """The array on the device: on the CPU the very memory, on a GPU through pinned memory, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor.to(device)
