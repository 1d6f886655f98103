"""Measures the baselines that pictures show as lines: `python benchmarks/references.py`.

Each plays 40 whole episodes, all of them on the same maps, which neither training nor the choice of checkpoints sees.
Writes scout/references.json.
"""

import json
import tempfile
from pathlib import Path

from scout.config import MissionConfig
from scout.evaluation import evaluate
from scout.evaluation_config import EvaluationConfig
from scout.references import FILE

EPISODES = 40
POLICIES = ["walker", "random"]  # the others lie close to zero
MISSION = MissionConfig()


def main() -> None:
    """Measures and reports."""
    config = EvaluationConfig(policies=POLICIES, episodes=EPISODES, mission=MISSION.model_dump())
    with tempfile.TemporaryDirectory() as folder:
        standings = evaluate(config, Path(folder)).standings
    policies = {}
    for row in standings:
        assert row.interval is not None
        low, high = row.interval
        values = {"mean": round(row.mean, 3), "low": round(low, 3), "high": round(high, 3)}
        policies[row.policy] = {**values, "episodes": row.episodes}
    FILE.write_text(json.dumps([{"mission": MISSION.model_dump(), "policies": policies}], indent=1) + "\n")
    print(json.dumps(policies, indent=1))


if __name__ == "__main__":
    main()
