"""Seconds of an update, PuffeRL as shipped against the corrected trainer, at the seed's network and settings.

Both live in one process and take turns update by update, so that the machine's moods hit both alike: finer than the
turns of speed.py. `python benchmarks/trainers.py [UPDATES]` prints a table and writes benchmarks/trainers.json.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from scout.build import build
from scout.cli import compose_experiment
from scout.mission import make_game

HERE = Path(__file__).resolve().parent
TRAINERS = ("pufferl", "ppo")


def main(updates: int) -> None:
    """One update of each is not timed."""
    experiments = [compose_experiment("experiment=notebook", f"trainer={name}") for name in TRAINERS]
    trainers = [build(experiment, make_game(experiment.mission), "cpu") for experiment in experiments]
    seconds: dict[str, list[list[float]]] = {name: [] for name in TRAINERS}
    for update in range(updates + 1):
        for name, trainer in zip(TRAINERS, trainers, strict=True):
            start = time.perf_counter()
            trainer.evaluate()
            middle = time.perf_counter()
            trainer.train()
            if update > 0:
                seconds[name].append([middle - start, time.perf_counter() - middle])
    print(f"{'':10}{'rollout s':>11}{'update s':>10}{'steps/s':>9}   medians of {updates}")
    medians = {}
    for name, found in seconds.items():
        rollout, update = (statistics.median(parts) for parts in zip(*found, strict=True))
        medians[name] = experiments[0].batch_size / statistics.median(sum(parts) for parts in found)
        print(f"{name:10}{rollout:11.3f}{update:10.3f}{medians[name]:9,.0f}")
    ratios = [sum(stock) / sum(own) for stock, own in zip(*seconds.values(), strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    print(
        "ppo's speed, of pufferl's in the same turn: "
        + " / ".join(f"{value:.3f}" for value in quartiles)
        + " (quartiles)"
    )
    record = {"seconds": seconds, "steps_per_second": medians, "ratio_quartiles": quartiles}
    (HERE / "trainers.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
