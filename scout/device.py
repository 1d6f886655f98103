"""DeviceConfig -> the device's name, with threads and seeds set."""

import logging
import random

import numpy as np
import torch

from scout.config import DeviceConfig
from scout.errors import ScoutError

log = logging.getLogger(__name__)


def make_device(config: DeviceConfig) -> str:
    """cpu, cuda or mps; `auto` takes cuda, then mps, then cpu, and says which.

    Raises ScoutError for a device that is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if config.name != "auto" and config.name not in available:
        raise ScoutError(
            f"device={config.name} is not on this machine: torch {torch.__version__} sees {', '.join(available)}; "
            "take one of them, or device=auto"
        )
    device = available[0] if config.name == "auto" else config.name
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.deterministic = config.deterministic
    detail = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    log.info("Device: %s (%s, %s)", device, detail, config.precision)
    return device


def seed_everything(seed: int) -> None:
    """Seeds python's, numpy's and torch's global generators; 0 is a seed like any other."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
