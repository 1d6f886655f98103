"""A sweep's summary: which job comes first, what is said of each, and what an odd folder does to it."""

import csv
from pathlib import Path

import pytest
from report_helpers import row, write_run

from scout.report.runs import Found, read
from scout.report.summary import Row, rows_of, summarize
from scout.sweep_folder import SweepFolder

HELD_OUT = "evaluation/return"


def sweep_in(folder: Path, **returns: float) -> SweepFolder:
    """A sweep of finished jobs named n0, n1, ..., whose runs had these held-out returns, +- 1."""
    jobs = {}
    for name, value in returns.items():
        number = name.removeprefix("n")
        write_run(folder / number, [row(1, held_out=value, low=value - 1, high=value + 1)], seed=int(number))
        jobs[number] = [f"seed={number}", "trainer.gamma=0.9"]
    return SweepFolder(folder, jobs)


def rows_in(sweep: SweepFolder, metric: str = HELD_OUT, minimize: bool = False) -> list[Row]:
    return rows_of(sweep, read([sweep.path]), metric, minimize)


@pytest.mark.parametrize(("minimize", "order"), [(False, ["1", "2", "0"]), (True, ["0", "2", "1"])])
def test_the_best_job_comes_first(minimize: bool, order: list[str], tmp_path: Path) -> None:
    """The highest objective, or the lowest where that is what is sought."""
    assert [row.folder for row in rows_in(sweep_in(tmp_path, n0=1.0, n1=3.0, n2=2.0), minimize=minimize)] == order


def test_what_was_not_finished_comes_after_what_was(tmp_path: Path) -> None:
    """A run that was given up with a high return stands below the finished ones, one without a return below that."""
    sweep = sweep_in(tmp_path, n0=1.0)
    write_run(tmp_path / "1", [row(1, held_out=9.0)], "pruned", "hopeless")
    write_run(tmp_path / "2", [row(1)], "failed", "first line\nlast line")
    sweep.jobs |= {"1": ["seed=1"], "2": ["seed=2"], "3": ["seed=3"]}
    found = rows_in(sweep)
    assert [(row.folder, row.status) for row in found] == [
        *(("0", "finished"), ("1", "pruned"), ("2", "failed"), ("3", "not begun"))
    ]
    assert [row.error for row in found] == ["", "", "last line", ""]


def test_a_row_shows_the_overrides_in_which_jobs_differ(tmp_path: Path) -> None:
    """What all jobs have in common is left out; of a single job all is shown."""
    assert [row.overrides for row in rows_in(sweep_in(tmp_path / "two", n0=1.0, n1=0.0))] == [["seed=0"], ["seed=1"]]
    assert rows_in(sweep_in(tmp_path / "one", n0=1.0))[0].overrides == ["seed=0", "trainer.gamma=0.9"]


def test_any_metric_can_be_the_objective(tmp_path: Path) -> None:
    """The last known value of it counts; there is an interval for held-out returns alone."""
    sweep = sweep_in(tmp_path, n0=1.0)
    write_run(tmp_path / "1", [row(1, **{"losses/entropy": 1.2}), row(2, **{"losses/entropy": None})], seed=1)  # pyright: ignore[reportArgumentType]
    sweep.jobs["1"] = ["seed=1"]
    found = {row.folder: row.objective for row in rows_in(sweep, "losses/entropy")}
    assert found == {"0": (1.5, None), "1": (1.2, None)}
    held_out = {row.folder: row.objective for row in rows_in(sweep)}
    assert held_out == {"0": (1.0, (0.0, 2.0)), "1": None}


def test_the_error_of_a_job_that_never_began_is_the_last_of_its_log(tmp_path: Path) -> None:
    """Its last line, without the date, and not what other libraries say after it."""
    (tmp_path / "0").mkdir()
    lines = ("INFO Device: cpu", "ERROR a fault of the program:", "Traceback", "ValueError: why")
    dated = [f"2026-01-02 03:04:05,678 {line}" if " " in line and "Error:" not in line else line for line in lines]
    (tmp_path / "0/train.log").write_text("\n".join([*dated, "2026-01-02 03:04:06,000 INFO Job completed"]))
    (row,) = rows_of(SweepFolder(tmp_path, {"0": ["seed=1"]}), Found([], [], {}), HELD_OUT, False)
    assert (row.status, row.error) == ("failed", "ValueError: why")


def test_a_summary_of_jobs_that_never_began_is_written_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table, the CSV file and the page say that nothing has begun."""
    summarize(SweepFolder(tmp_path, {"0": ["seed=1"], "1": ["seed=<b>"]}), HELD_OUT, False, "python train.py")
    assert capsys.readouterr().out.count("not begun") == 2
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert [line["status"] for line in csv.DictReader(file)] == ["not begun", "not begun"]
    assert "seed=&lt;b&gt;" in (tmp_path / "summary.html").read_text()
