"""Measures the baselines that pictures show as lines: `python benchmarks/references.py`.

Each plays 40 whole episodes, all of them on the same maps, which neither training nor the choice of checkpoints sees.
Writes scout/references.json and the table of docs/results.md.
"""

import json
import tempfile
from pathlib import Path

from results_page import markdown, put_table

from scout.config import MissionConfig
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.references import FILE

EPISODES = 40
POLICIES = ["walker", "random", "cogames/scout", "cogames/starter", "noop"]
SHOWN = ("walker", "random")  # in pictures; the others lie close to zero
MISSION = MissionConfig()


def main() -> None:
    """Measures and reports."""
    config = EvaluationConfig(policies=POLICIES, episodes=EPISODES, mission=MISSION.model_dump())
    with tempfile.TemporaryDirectory() as folder:
        standings = evaluate(config, Path(folder)).standings
    policies, rows = {}, []
    for row in sorted(standings, key=lambda row: -row.mean):
        assert row.interval is not None
        low, high = row.interval
        if row.policy in SHOWN:
            values = {"mean": round(row.mean, 3), "low": round(low, 3), "high": round(high, 3)}
            policies[row.policy] = {**values, "episodes": row.episodes}
        numbers = (f"{row.mean:.2f}", f"{low:.2f} to {high:.2f}", f"{row.gear:.2f}", f"{row.deaths:.2f}")
        rows.append([f"`{row.policy}`", *numbers, f"{row.cells_seen:,.0f}"])
    FILE.write_text(json.dumps([{"mission": MISSION.model_dump(), "policies": policies}], indent=1) + "\n")
    table = markdown(["policy", "return per agent", "95% interval", "gear", "deaths", "cells seen"], rows)
    print(table)
    put_table("references", table)


if __name__ == "__main__":
    main()
