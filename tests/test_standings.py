"""The lines of an evaluation's table, and how the first compares with the others."""

import dataclasses
from typing import Any

import pytest
from conftest import tiny_experiment
from rich.console import Console

from scout.contestants import Contestant
from scout.policies import NoopPolicy
from scout.standings import Side, Standing, compared, comparisons_table, short_names, sides_of, standings_table


def episodes_of(*returns: float) -> list[dict[str, Any]]:
    """What a table needs of episodes with these returns."""
    rest = {"cell_visited": 10.0, "gear": 0.5, "deaths": 1.0, "cells_seen": 100}
    return [{"return": value, **rest} for value in returns]


def contestant(name: str, seed: int | None = None, greedy: bool = False, **changes: Any) -> Contestant:
    """One of a run with that seed, or of no run."""
    policy = NoopPolicy()
    policy.name = name
    return Contestant(policy, None if seed is None else tiny_experiment(seed=seed, **changes), greedy, finished=True)


def printed(table: Any) -> str:
    """As a terminal of 80 columns shows it."""
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table)
    return shown.get()


def test_a_line_has_the_means_of_the_episodes() -> None:
    """Mean, interquartile mean and the rest of one policy's episodes, by hand."""
    row = Side("run", [episodes_of(0, 1, 2, 9)]).standing()
    assert (row.policy, row.runs, row.episodes, row.mean, row.iqm) == ("run", 1, 4, 3.0, 1.5)
    assert (row.cell_visited, row.gear, row.deaths, row.cells_seen) == (10.0, 0.5, 1.0, 100.0)
    assert row.interval is not None
    assert row.interval[0] < 3 < row.interval[1]


def test_training_seeds_of_one_setting_have_a_line_together() -> None:
    """Runs that differ in their seed alone come after a line of both; one with another rate and a baseline do not."""
    other = contestant("c", 1, optimizer={"learning_rate": 0.5})
    judged = [contestant("a", 1), contestant("random"), contestant("b", 2), other]
    sides = sides_of(judged, [episodes_of(1, 2), episodes_of(0, 0), episodes_of(3, 4), episodes_of(5, 5)])
    assert [side.name for side in sides][1:] == ["a", "b", "random", "c"]
    assert sides[0].name.endswith(", 2 seeds")
    assert sides[0].scores.tolist() == [[1, 2], [3, 4]]
    assert sides[0].standing().episodes == 4


def test_groups_are_named_by_what_sets_them_apart() -> None:
    """Two rates with two seeds each are called by their rates alone, as the one setting of all is by all of it."""
    judged = [
        contestant(f"{rate}/{seed}", seed, optimizer={"learning_rate": rate}) for rate in (0.5, 1.5) for seed in (1, 2)
    ]
    names = [side.name for side in sides_of(judged, [episodes_of(1, 2)] * 4)]
    assert [name for name in names if "seeds" in name] == [
        "optimizer.learning_rate=0.5, 2 seeds",
        "optimizer.learning_rate=1.5, 2 seeds",
    ]


def test_all_of_a_few_seeds_are_not_all_seeds() -> None:
    """Where both of two seeds do better on every map, the probability of it is by no means certain: Wilson's 2 of 2."""
    two, other = Side("two", [episodes_of(5, 6), episodes_of(7, 8)]), Side("other", [episodes_of(0, 1)])
    (row,) = compared([two, other])
    assert row.probability == 1
    assert row.probability_interval == pytest.approx((2 / (2 + 1.959964**2), 1))


def test_sampled_and_greedy_play_are_not_seeds_of_each_other() -> None:
    """The two ways to play one network have a line each, and those of two seeds a line for each way."""
    judged = [contestant("a", 1), contestant("a (greedy)", 1, greedy=True)]
    assert [side.name for side in sides_of(judged, [episodes_of(1, 2)] * 2)] == ["a", "a (greedy)"]
    judged += [contestant("b", 2), contestant("b (greedy)", 2, greedy=True)]
    names = [side.name for side in sides_of(judged, [episodes_of(1, 2)] * 4)]
    assert [name for name in names if "seeds" in name] == [names[0], f"{names[0]} (greedy)"]


def test_the_first_is_compared_with_each_of_the_others_map_by_map() -> None:
    """Difference and probability are over pairs on one map: ahead by 1 on three of four maps, equal on the last."""
    first, other = Side("first", [episodes_of(2, 12, 102, 7)]), Side("other", [episodes_of(1, 11, 101, 7)])
    (row,) = compared([first, other])
    assert (row.policy, row.other, row.difference, row.probability) == ("first", "other", 0.75, 0.875)
    assert row.interval is not None
    assert -0.1 < row.interval[0] < 0.75 < row.interval[1] < 1.6  # Student's 0.75 +- 3.18 x 0.25; returns spread by 50


def test_what_is_no_further_seed_stands_by_itself() -> None:
    """Two checkpoints of one run, a copy of it, another precision and a run that did not finish make no group."""
    twice = [contestant("a/1.pt", 1), contestant("a/2.pt", 1)]
    assert len(sides_of(twice, [episodes_of(1, 2)] * 2)) == 2
    other = [contestant("a", 1), contestant("b", 2, device={"precision": "bfloat16"})]
    assert len(sides_of(other, [episodes_of(1, 2)] * 2)) == 2
    half = [contestant("a", 1), dataclasses.replace(contestant("b", 2), finished=False)]
    assert len(sides_of(half, [episodes_of(1, 2)] * 2)) == 2


def test_a_group_of_seeds_is_not_compared_with_its_own_runs() -> None:
    """What a line has in it is left out; other lines are compared with all of its runs."""
    judged = [contestant("a", 1), contestant("b", 2), contestant("random")]
    (row,) = compared(sides_of(judged, [episodes_of(1, 2), episodes_of(3, 4), episodes_of(0, 3)]))
    assert (row.other, row.difference) == ("random", 1.0)
    assert row.probability == pytest.approx((1 + 0.5) / 2)  # 1, 3 against 0; 2, 4 against 3


def test_a_single_map_has_no_intervals() -> None:
    """One episode says nothing about the spread: no interval is made up, for a run, for seeds or for a difference."""
    seeds, other = Side("seeds", [episodes_of(1), episodes_of(2)]), Side("other", [episodes_of(0)])
    assert seeds.standing().interval is None
    assert other.standing().interval is None
    (row,) = compared([seeds, other])
    assert (row.interval, row.probability_interval, row.probability) == (None, None, 1.0)
    assert "-" in printed(comparisons_table([row]))


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["out/m/run_1", "out/m/run_2"], ["run_1", "run_2"]),
        (["multirun/x/0", "multirun/x/1"], ["x/0", "x/1"]),
        (["one/run", "two/run"], ["one/run", "two/run"]),
        (["one/run", "one/run (greedy)"], ["run", "run (greedy)"]),
        (["out/run/", "cogames/starter", "random"], ["run", "cogames/starter", "random"]),
    ],
)
def test_paths_are_shown_by_their_ends_as_far_as_needed(
    names: list[str], shown: list[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two are shown alike, a sweep's run keeps its sweep, and what is no path stays whole."""
    monkeypatch.chdir(tmp_path)
    for name in names:
        if name.startswith(("out", "multirun", "one", "two")):
            (tmp_path / name.removesuffix(" (greedy)")).mkdir(parents=True, exist_ok=True)
    assert list(short_names(names).values()) == shown


def test_the_tables_fit_into_eighty_columns() -> None:
    """With a good scout's numbers and a long name nothing is cut off: the name is broken instead."""
    name = "scout_tutorial conv learning_rate=0.0003 ent_coef=0.02 gamma=0.999, 10 seeds"
    row = Standing(name, 10, 400, 24.15, (22.07, 25.34), 24.2, (22.0, 26.0), 241_493.0, 0.75, 12.05, 3273.4)
    text = printed(standings_table([row, row]))
    assert "…" not in text
    assert "22.07 .. 25.34" in text
    assert "3,273" in text
    column = "".join(line[1:17].split("  ")[0] for line in text.splitlines() if line.startswith(" "))
    assert name.replace(" ", "") in column.replace(" ", "")
    first = Side(name, [episodes_of(*range(10))])
    (comparison,) = compared([first, Side("-" * 70, [episodes_of(*range(-12, -2))])])
    assert "…" not in printed(comparisons_table([comparison]))
