"""What a run is compared by in a sweep: the last value of one of its metrics (`sweep.objective`)."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from scout.files import HELD_OUT, METRICS


class Objective(NamedTuple):
    """A metric's last value in a run."""

    value: float
    interval: tuple[float, float] | None
    """95% interval over the episodes of an evaluation; None for any other metric."""


def objective_of(run_dir: Path, metric: str) -> Objective | None:
    """The objective of a run folder that this process is not training; None where the metric has no value yet."""
    path = run_dir / METRICS
    return objective_in(path.read_bytes().splitlines() if path.is_file() else [], metric)


def objective_in(lines: Iterable[bytes], metric: str) -> Objective | None:
    """The objective in the lines of a metrics.jsonl; a line that was cut off is passed over."""
    for line in reversed(list(lines)):
        if f'"{metric}"'.encode() not in line:
            continue
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if values.get(metric) is None:
            continue
        ends = [values.get(f"evaluation/interval_{end}", math.nan) for end in ("low", "high")]
        return Objective(float(values[metric]), (ends[0], ends[1]) if metric == HELD_OUT else None)
    return None


def metrics_of(run_dir: Path) -> set[str]:
    """The names of all metrics that a run has logged."""
    return {name for line in (run_dir / METRICS).read_bytes().splitlines() for name in json.loads(line)}
