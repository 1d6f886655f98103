"""When a team saw the border and the inside of the map for the last time: `python benchmarks/last_seen.py`.

The scout tutorial pays each look at an object for the time since the team saw it last: all that an object ever paid
sums up to the step of the last look. Plays whole episodes of the walker and of the scouts that come with the project,
sampled, on the maps of evaluate.py, and writes the table of docs/recipe.md.
"""

import numpy as np
import torch
from mettagrid.simulator import Simulation
from results_page import RECIPE, markdown, put_table

from scout.contestants import make_contestants
from scout.evaluation_config import EvaluationConfig
from scout.pretrained import PRETRAINED
from scout.rollout import play
from scout.seen import SeenCells

EPISODES = 8
BORDER = 5  # cells: the map's walls are as thick


class LastSeen:
    """Watches one episode: the step at which each object that does not move was seen last."""

    def __init__(self) -> None:
        self.step = 0

    def __call__(self, simulation: Simulation) -> None:
        """Looks at one step."""
        if self.step == 0:
            self.cells = SeenCells(simulation)
            self.last = np.zeros((simulation.map_height, simulation.map_width), dtype=int)
            self.objects = np.zeros(self.last.shape, dtype=bool)
            for thing in simulation.grid_objects().values():
                self.objects[thing["r"], thing["c"]] |= "agent_id" not in thing
        self.cells.cells[:] = False  # so that it tells what is seen now
        self.cells.look()
        self.last[self.cells.cells] = self.step
        self.step += 1

    def means(self) -> list[float]:
        """Objects of the border and of the inside, and the mean step at which each of them was seen last."""
        border = np.ones(self.last.shape, dtype=bool)
        border[BORDER:-BORDER, BORDER:-BORDER] = False
        parts = [self.objects & border, self.objects & ~border]
        return [float(part.sum()) for part in parts] + [float(self.last[part].mean()) for part in parts]


def main() -> None:
    """Plays, prints and writes the table."""
    torch.set_num_threads(1)
    rows = []
    for name in ("walker", *PRETRAINED):
        whom = EvaluationConfig(policy=name) if name == "walker" else EvaluationConfig(checkpoint=name)
        (contestant,), _, game = make_contestants(whom)
        watched, returns = [], []
        for episode in range(EPISODES):
            watched.append(LastSeen())
            (played,) = play(contestant.policy, game, 0, [episode], on_step=watched[-1])
            returns.append(played.record["return"])
        means = np.mean([each.means() for each in watched], axis=0)
        rows.append([f"`{name}`", f"{np.mean(returns):.2f}", *(f"{mean:.0f}" for mean in means)])
        print(rows[-1], flush=True)
    head = ["policy", "return", "objects of the border", "of the inside", "border last seen at step", "inside"]
    put_table("last seen", markdown(head, rows), RECIPE)


if __name__ == "__main__":
    main()
