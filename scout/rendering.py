"""An episode in the terminal, as section 7 of the seed notebook shows it."""

import sys
import time
from typing import TextIO

from mettagrid.renderer.miniscope.buffer import MapBuffer
from mettagrid.renderer.miniscope.symbol import DEFAULT_SYMBOL_MAP
from mettagrid.simulator import Simulation

VIEW_HEIGHT, VIEW_WIDTH = 25, 35  # cells around the hub
STEPS_BETWEEN_FRAMES = 100  # where there is no terminal to animate


class TerminalView:
    """Draws the cells around the hub, step by step on a terminal, a few frames below each other elsewhere."""

    def __init__(self, delay: float, stream: TextIO | None = None) -> None:
        """`delay` is in seconds, and only kept on a terminal; `stream` is stdout unless one is given."""
        self._delay, self._stream = delay, stream or sys.stdout

    def show(self, simulation: Simulation) -> None:
        """Draws the simulation as it is now."""
        animated = self._stream.isatty()
        if not animated and simulation.current_step % STEPS_BETWEEN_FRAMES and not simulation.is_done():
            return
        clear = "\033[H\033[J" if animated else ""
        self._stream.write(f"{clear}{frame(simulation)}\n")
        self._stream.flush()
        if animated:
            time.sleep(self._delay)


def frame(simulation: Simulation) -> str:
    """The step, the team's return so far, and the map around the hub (around its centre without one) as text."""
    things = simulation.grid_objects()
    hub = next((thing for thing in things.values() if "hub" in thing["type_name"]), None)
    row, column = (hub["r"], hub["c"]) if hub else (simulation.map_height // 2, simulation.map_width // 2)
    symbols = dict(DEFAULT_SYMBOL_MAP)
    for thing in simulation.config.game.objects.values():
        for name in (thing.render_name, thing.name):
            if name:
                symbols[name] = thing.render_symbol
    buffer = MapBuffer(symbols, initial_height=simulation.map_height, initial_width=simulation.map_width)
    buffer.set_viewport(row, column, VIEW_HEIGHT, VIEW_WIDTH)
    mean_return = simulation.episode_rewards.mean()
    head = f"Step {simulation.current_step} of {simulation.config.game.max_steps}, return per agent {mean_return:.2f}"
    return f"{head}\n{buffer.render(things)}"
