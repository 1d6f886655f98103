"""What baselines reach on the missions of conf/, as measured once: the lines to compare with in every picture."""

import json
from dataclasses import dataclass
from pathlib import Path

from scout.config import MissionConfig

FILE = Path(__file__).with_name("references.json")  # made by `python benchmarks/references.py`


@dataclass(frozen=True)
class Reference:
    """A baseline's mean return per agent, its 95% bootstrap interval, and the number of episodes, a map each."""

    mean: float
    low: float
    high: float
    episodes: int


def references(mission: MissionConfig) -> dict[str, Reference]:
    """The baselines' returns on a mission, the best first; none where it is another than was measured."""
    wanted = mission.model_dump(exclude={"name"})
    for measured in json.loads(FILE.read_text()):
        if MissionConfig.model_validate(measured["mission"]).model_dump(exclude={"name"}) == wanted:
            return {name: Reference(**values) for name, values in measured["policies"].items()}
    return {}
