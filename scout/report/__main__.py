"""Makes the page: `python -m scout.report RUN_OR_MULTIRUN... [--output DIR] [--overwrite]`."""

import argparse
import csv
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from scout.errors import ScoutError
from scout.report.content import all_sections, header, runs_csv
from scout.report.page import page
from scout.report.runs import Found, read
from scout.report.sections import sections_of

PAGE, PICTURES, RUNS = "index.html", "pictures", "runs.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1, and one message on stderr, for what the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m scout.report",
        description="One self-contained HTML page, its pictures as PNG and a table as CSV about training runs.",
    )
    help_paths = "folders that are, or hold, training runs and evaluations"
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN_OR_MULTIRUN", help=help_paths)
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write; else outputs/reports/TIME")
    parser.add_argument("--overwrite", action="store_true", help="replace the page that is in DIR already")
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(arguments)
    start, made = time.perf_counter(), datetime.now().astimezone()
    output = given.output or Path("outputs/reports") / f"{made:%Y-%m-%d_%H-%M-%S-%f}"
    command = shlex.join(["python", "-m", "scout.report", *arguments])
    try:
        found = read(given.paths)
        write_report(found, output, given.overwrite, command, made)
    except (ScoutError, OSError) as error:  # such as a path that is too long for the system
        print(_printable(str(error)), file=sys.stderr)
        return 1
    seconds = time.perf_counter() - start
    if found.unreadable:
        print(f"could not be read, see the page: {', '.join(map(_printable, found.unreadable))}", file=sys.stderr)
    print(f"{len(found.runs)} runs and {len(found.evaluations)} evaluations in {seconds:.1f} s: {output / PAGE}")
    return 0 if found.runs or found.evaluations else 1


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def write_report(found: Found, output: Path, overwrite: bool, command: str, made: datetime) -> None:
    """Writes index.html, runs.csv and pictures/ into `output`; no picture of a page that is replaced stays.

    Raises ScoutError where there is such a page and `overwrite` is false, and where the folder cannot be written.
    """
    taken = [output / name for name in (PAGE, RUNS, PICTURES) if (output / name).exists()]
    if taken and not overwrite:
        raise ScoutError(f"{taken[0]} is there already: choose another folder with --output, or add --overwrite")
    sections = sections_of(found)
    try:
        (output / PICTURES).mkdir(parents=True, exist_ok=True)
        for outdated in (output / PICTURES).glob("mission*_*.png"):
            outdated.unlink()
        # What is no text, such as the name of a folder in another encoding, is shown by its numbers.
        with (output / RUNS).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file).writerows(runs_csv(sections))
        body = [*header(found, command, made), *all_sections(sections, output)]
        (output / PAGE).write_text(page("Training report", body), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = f"{error.filename or output} cannot be written ({error.strerror})"
        raise ScoutError(f"{reason}: choose another folder with --output") from error


if __name__ == "__main__":
    sys.exit(main())
