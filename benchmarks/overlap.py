"""What worker processes and double buffering are worth on this machine: `python benchmarks/overlap.py [key=value ...]`.

Serial environments; two workers that step while the policy waits; and the same in two batches, so that one half of the
environments steps while the policy thinks for the other. All with the seed's network, in turns, each turn a process of
its own. Writes benchmarks/overlap.json and a table of docs/performance.md.
"""

import statistics
import sys
from pathlib import Path

from results_page import PERFORMANCE, markdown, put_table
from speed import SEED_NETWORK
from turns import machine, medians, take_turns, write_record

RECORD = Path(__file__).resolve().parent / "overlap.json"
WORKERS = ["vecenv=multiprocessing", "vecenv.num_workers=2"]
VARIANTS: dict[str, list[str]] = {
    "serial": [],
    "two workers": WORKERS,
    "two workers, two batches": [*WORKERS, "vecenv.batch_size=8"],
    "two workers, two batches, policy on one thread": [*WORKERS, "vecenv.batch_size=8", "device.threads=1"],
}
TURNS, SECONDS = 5, 6.0


def main(overrides: list[str]) -> None:
    """Measures and reports."""
    points = {name: [*SEED_NETWORK, *keys, *overrides] for name, keys in VARIANTS.items()}
    found = take_turns(points, TURNS, SECONDS)
    middles = {name: medians(turns) for name, turns in found.items()}
    write_record(RECORD, {"machine": machine(), "overrides": points, "turns": found, "medians": middles})
    rows = []
    for name, turns in found.items():
        speeds = [turn["steps_per_second"] for turn in turns]
        ratio = statistics.median(speeds) / middles["serial"]["steps_per_second"]
        spread = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        rows.append([name, f"{statistics.median(speeds):,.0f}", spread, f"{ratio:.2f}"])
    table = markdown(["", "agent steps/s", "slowest to fastest", "of serial"], rows)
    print(table)
    put_table("overlap", table, PERFORMANCE)


if __name__ == "__main__":
    main(sys.argv[1:])
