"""What a person sees while a run trains: a live display on a terminal, a plain line now and then elsewhere."""

import logging
import time
from typing import Any, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from scout.files import HELD_OUT, RETURN

log = logging.getLogger(__name__)

SHOWN_LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance")


class TrainingProgress:
    """Shows steps done, time left, steps/s, the episodes' return and the losses. A context manager."""

    def __init__(
        self, total_steps: int, log_interval: float, console: Console | None = None, begun_at: int = 0
    ) -> None:
        """`begun_at`: agent steps that were done before, in a run that goes on."""
        self._total, self._interval, self._begun_at = total_steps, log_interval, begun_at
        self._shown = False
        self._console = console or Console(stderr=True)
        self._started = self._last_line = time.monotonic()
        self._episodes: dict[str, float] = {}  # the latest statistics of episodes, which do not end in every update
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[steps]}"),
            TextColumn("{task.fields[left]} left"),
            console=self._console,
            expand=True,
        )
        self._task = self._bar.add_task("training", total=total_steps, steps="", left="?")
        live = self._console.is_terminal
        self._live = Live(self._bar, console=self._console, refresh_per_second=4) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def show(self, metrics: dict[str, float]) -> None:
        """Takes one update's metrics."""
        steps = int(metrics["agent_steps"])
        for key in metrics:
            if key.startswith(("environment/", "evaluation/")):
                self._episodes[key] = metrics[key]
        elapsed = time.monotonic() - self._started
        left = duration(elapsed * max(self._total - steps, 0) / (steps - self._begun_at))
        if self._live:
            self._bar.update(self._task, completed=steps, steps=f"{steps:,} / {self._total:,} steps", left=left)
            self._live.update(Group(self._bar, self._table(metrics)))
            return
        now = time.monotonic()
        if not self._shown or steps >= self._total or now - self._last_line >= self._interval:
            self._shown, self._last_line = True, now
            log.info("%s", self._line(metrics, steps, left))

    def _line(self, metrics: dict[str, float], steps: int, left: str) -> str:
        parts = [
            f"{steps:>{len(f'{self._total:,}')},}/{self._total:,} steps",
            f"{min(steps / self._total, 1):4.0%}",
            f"{left} left",
            f"{metrics['performance/SPS']:,.0f} steps/s",
            f"return {self._return()}",
        ]
        if HELD_OUT in self._episodes:
            parts.append(f"held out {self._episodes[HELD_OUT]:.2f}")
        parts += [f"{name} {metrics[f'losses/{name}']:.3f}" for name in SHOWN_LOSSES[:3]]
        return "  ".join(parts)

    def _return(self) -> str:
        """The last mean return per agent of whole episodes, or a dash before the first one ended."""
        last = self._episodes.get(RETURN)
        return "-" if last is None else f"{last:.2f}"

    def _table(self, metrics: dict[str, float]) -> Table:
        # It fits a terminal of 80 columns: nothing is broken or cut off there.
        table = Table(box=box.SIMPLE, show_header=False, expand=True, padding=(0, 1, 0, 0))
        for _ in range(3):
            table.add_column(style="cyan", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
        run = {
            "update": f"{metrics['update']:,}",
            "steps/s": f"{metrics['performance/SPS']:,.0f}",
            "rollout": f"{metrics['performance/rollout_seconds']:.2f} s",
            "training": f"{metrics['performance/update_seconds']:.2f} s",
            "memory": f"{metrics['performance/peak_memory_mb']:,.0f} MB",
            "learning rate": f"{metrics['optimizer/learning_rate']:.2e}",
        }
        episodes = {"return": self._return(), "episodes": f"{metrics['environment/episodes']:.0f}"}
        if HELD_OUT in self._episodes:
            low, high = (self._episodes[f"evaluation/interval_{end}"] for end in ("low", "high"))
            episodes |= {"held out": f"{self._episodes[HELD_OUT]:.2f}", "  its 95%": f"{low:.1f} .. {high:.1f}"}
        events = (("cell.visited", "cell.visited", 0), ("scout.gained", "scout gear", 1), ("death", "deaths", 1))
        for key, title, digits in events:
            if f"environment/agent/{key}" in self._episodes:
                episodes[title] = f"{self._episodes[f'environment/agent/{key}']:,.{digits}f}"
        titles = {"explained_variance": "explained var."}
        losses = {titles.get(name, name): f"{metrics[f'losses/{name}']:.3g}" for name in SHOWN_LOSSES}
        columns = [list(group.items()) for group in (run, episodes, losses)]
        for row in range(max(map(len, columns))):
            cells = [column[row] if row < len(column) else ("", "") for column in columns]
            table.add_row(*(text for cell in cells for text in cell))
        return table


def duration(seconds: float) -> str:
    """75 -> 1:15, 3675 -> 1:01:15."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
