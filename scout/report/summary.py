"""What became of a sweep: a table on the terminal, summary.csv and summary.html in its folder."""

import contextlib
import csv
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scout.errors import ScoutError
from scout.files import HELD_OUT, SUMMARY_CSV, SUMMARY_PAGE
from scout.objective import Objective, objective_of
from scout.progress import duration
from scout.report.content import all_sections, interval_of, number_of
from scout.report.page import Html, element, page, table
from scout.report.runs import Found, Run, read
from scout.report.sections import sections_of
from scout.sweep_folder import SweepFolder

log = logging.getLogger(__name__)

_DATED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) ")


@dataclass(frozen=True)
class Row:
    """What became of one job."""

    folder: str
    overrides: list[str]
    """Those in which the jobs of the sweep differ."""
    status: str
    """A run's state, or `failed` before it began."""
    objective: Objective | None
    minutes: float
    error: str
    """The last line of what it failed with."""


def summarize(folder: SweepFolder, metric: str, minimize: bool, command: str) -> None:
    """Prints the table and writes both files, the best job first. What cannot be written is a warning."""
    try:
        found = read([folder.path / name for name in folder.jobs if (folder.path / name).is_dir()])
    except ScoutError:  # no run has begun
        found = Found([], [], {})
    rows = rows_of(folder, found, metric, minimize)
    console = Console()
    console.print(terminal_table(rows, metric), f"[dim]{folder.path / SUMMARY_PAGE}[/]", sep="\n")
    try:
        with (folder.path / SUMMARY_CSV).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file).writerows(_csv_rows(rows, metric))
        (folder.path / "pictures").mkdir(exist_ok=True)
        body = [
            element("h1", f"Sweep {folder.path.name}"),
            element(
                "p", f"{len(rows)} jobs, best first. Page made {datetime.now().astimezone():%Y-%m-%d %H:%M}, with:"
            ),
            element("pre", command),
            _page_table(rows, metric),
            *all_sections(sections_of(found), folder.path),
        ]
        text = page(f"Sweep {folder.path.name}", body)
        (folder.path / SUMMARY_PAGE).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        log.warning("%s cannot be written (%s)", error.filename or folder.path, error.strerror)


def rows_of(folder: SweepFolder, found: Found, metric: str, minimize: bool) -> list[Row]:
    """A row for each job: those that are finished by their objective, then the others in the same way."""
    runs = {run.path.name: run for run in found.runs}
    common = set.intersection(*map(set, folder.jobs.values())) if len(folder.jobs) > 1 else set()
    rows = []
    for name, overrides in folder.jobs.items():
        differing = [one for one in overrides if one not in common and not one.startswith(("sweep=", "sweep."))]
        rows.append(_row(folder.path / name, differing, runs.get(name), metric))
    sign = 1 if minimize else -1

    def place(row: Row) -> tuple[bool, float]:  # what was given up half-way is not compared with what was finished
        return row.status != "finished", math.inf if row.objective is None else sign * row.objective.value

    return sorted(rows, key=place)


def _row(folder: Path, overrides: list[str], run: Run | None, metric: str) -> Row:
    if run is None:
        logs = [line for path in folder.glob("*.log") for line in path.read_text(errors="replace").splitlines()]
        return Row(folder.name, overrides, "failed" if logs else "not begun", None, 0.0, _last_error(logs))
    error = run.reason.splitlines()[-1] if run.reason and run.state == "failed" else ""
    minutes = float(run.minutes[-1:].sum())
    return Row(folder.name, overrides, run.state, objective_of(folder, metric), minutes, error)


def _last_error(lines: Sequence[str]) -> str:
    """The last line of the last error in a log, without its date; of the log where there is none."""
    level, last, error = "", "", ""
    for line in lines:
        dated = _DATED.match(line)
        level = dated.group(1) if dated else level
        last = _DATED.sub("", line)
        error = last if level == "ERROR" else error
    return error or last


def terminal_table(rows: Sequence[Row], metric: str) -> Table:
    """The rows as people read them while they wait: 80 columns are enough."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("folder", justify="right", no_wrap=True)
    shown.add_column("overrides", overflow="fold", ratio=1)
    shown.add_column("status", no_wrap=True)
    for column in _columns(metric)[2:]:
        shown.add_column(column, justify="right")
    styles = {"finished": "", "pruned": "dim", "failed": "red", "killed": "red"}
    for row in rows:
        overrides, status, *numbers = _cells(row)
        words = escape(overrides)
        words += f"\n[red]{escape(row.error)}[/]" if row.status == "failed" else ""
        shown.add_row(row.folder, words, status, *numbers, style=styles.get(row.status, "yellow"))
    return shown


def _page_table(rows: Sequence[Row], metric: str) -> Html:
    """The same for the page, whose first and last columns are for words."""
    overrides, *columns = _columns(metric)
    cells = [(words, row.folder, *others, row.error) for row in rows for words, *others in [_cells(row)]]
    if any(row.error for row in rows):
        return table((overrides, "folder", *columns, "error"), cells, class_="numbers last_words")
    return table((overrides, "folder", *columns), [line[:-1] for line in cells])


def _short(override: str) -> str:
    """learning_rate=0.00041043 for optimizer.learning_rate=0.00041043039957."""
    key, _, value = override.partition("=")
    with contextlib.suppress(ValueError):  # it is no number
        value = f"{float(value):.5g}" if "." in value else value
    return f"{key.rpartition('.')[2]}={value}"


def _columns(metric: str) -> tuple[str, ...]:
    return "overrides", "status", "held-out" if metric == HELD_OUT else metric, "95%", "time"


def _cells(row: Row) -> tuple[str, ...]:
    value = math.nan if row.objective is None else row.objective.value
    interval = None if row.objective is None else row.objective.interval
    overrides = " ".join(map(_short, row.overrides))
    return overrides, row.status, number_of(value), interval_of(interval), duration(row.minutes * 60)


def _csv_rows(rows: Sequence[Row], metric: str) -> list[list[str]]:
    lines = [["folder", "overrides", "status", metric, "interval_low", "interval_high", "minutes", "error"]]
    for row in rows:
        low, high = (row.objective and row.objective.interval) or (math.nan, math.nan)
        numbers = (math.nan if row.objective is None else row.objective.value, low, high, row.minutes)
        known = [f"{number:.10g}" if math.isfinite(number) else "" for number in numbers]
        lines.append([row.folder, " ".join(row.overrides), row.status, *known, row.error])
    return lines
