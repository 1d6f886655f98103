"""Whether the fast path learns as well as the plain one: `python benchmarks/fast_learning.py`.

The default recipe for 500,000 agent steps with seeds 1, 2 and 3: as it is (bfloat16, this project's own layers), and
in float32 with torch's layers. Both are judged on the same 20 held-out maps. Keeps each run in
benchmarks/fast_learning.json as soon as it is there and makes only what is missing; writes a table of
docs/performance.md.
"""

import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from learning import CONTENDERS, pooled, run
from results_page import PERFORMANCE, markdown, put_table

from scout.statistics import bootstrap_interval

RECORD = Path(__file__).resolve().parent / "fast_learning.json"
SEEDS = (1, 2, 3)
PATHS: dict[str, tuple[str, list[str]]] = {
    "fast": ("the default: bfloat16, own layers", []),
    "plain": ("float32, torch's layers", ["device.precision=float32", "device.fast_layers=false"]),
}


def main() -> None:
    """Makes what is missing, two runs at a time, then the table."""
    CONTENDERS.update(PATHS)
    records: list[dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.exists() else []
    there = {(record["contender"], record["seed"]) for record in records}

    def make(name: str, seed: int) -> None:
        record = run(name, seed)
        records.append(record)
        RECORD.write_text(json.dumps(records).replace('{"contender"', '\n{"contender"') + "\n")
        print(f"{name}, seed {seed}: {statistics.mean(record['returns']):.2f} in {record['seconds']} s", flush=True)

    with ThreadPoolExecutor(2) as pool:
        missing = [(name, seed) for seed in SEEDS for name in PATHS if (name, seed) not in there]
        list(pool.map(lambda arguments: make(*arguments), missing))
    rows = []
    for name, (title, _) in PATHS.items():
        found = sorted((record for record in records if record["contender"] == name), key=lambda record: record["seed"])
        low, high = bootstrap_interval(pooled(found)) or (0, 0)
        means = [f"{statistics.mean(record['returns']):.2f}" for record in found]
        seconds = statistics.median(record["seconds"] for record in found)
        mean = f"{statistics.mean(pooled(found)):.2f}"
        rows.append([title, mean, f"{low:.2f} to {high:.2f}", *means, f"{seconds:.0f} s"])
    head = ["", "return per agent", "95% interval", *(f"seed {seed}" for seed in SEEDS), "training, one core"]
    table = markdown(head, rows)
    print(table)
    put_table("learning", table, PERFORMANCE)


if __name__ == "__main__":
    main()
