"""What the page says: of all runs, and of one mission in pictures with captions and tables."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np

from scout.files import FILM, HELD_OUT, RETURN
from scout.report.curves import EPISODES_IN_A_POINT, held_out_points
from scout.report.effects import MOST_EFFECTS, MOST_VALUES, effects_of, effects_picture
from scout.report.page import Html, element, picture, table
from scout.report.pictures import (
    MOST_SINGLE_RUNS,
    diagnostics_picture,
    learning_curves,
    missions_picture,
    seconds_picture,
    speed_picture,
)
from scout.report.runs import FINAL_PART, STATES, Evaluation, Found, Run
from scout.report.sections import Section, written
from scout.report.style import MOST_COLOURED, STYLES, drawing
from scout.statistics import bootstrap_interval, iqm

MOST_ROWS_SHOWN = 30
"""The table of more runs is folded."""
_NO_REASON = {
    "killed": "its process is gone without a word: killed, or the machine went down",
    "unknown": "its status.json is missing or damaged",
}


def header(found: Found, command: str, made: datetime) -> Iterator[Html]:
    """How many runs there are, in which states and why, when the page was made, and by which command."""
    started = sorted(run.started[:16].replace("T", " ") for run in found.runs if run.started)
    begun = f" Begun {' to '.join(dict.fromkeys((started[0], started[-1])))}." if started else ""
    counts = f"Training runs: {_states(found.runs) or 'none'}. Evaluations: {len(found.evaluations)}."
    yield element("h1", "Training report")
    yield element("p", f"{counts}{begun} Page made {made:%Y-%m-%d %H:%M}, with:")
    yield element("pre", command)
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run in found.runs:
        if run.state not in ("finished", "running"):
            names[run.state, run.reason or _NO_REASON.get(run.state, "no reason was recorded")].append(run.name)
    if names:
        rows = [(state, str(len(which)), reason, ", ".join(which)) for (state, reason), which in names.items()]
        yield element("h3", "Runs that did not finish")
        yield table(("state", "runs", "reason", "which"), rows, class_="words")
    if found.unreadable:
        yield element("h3", "Could not be read")
        yield table(("folder", "reason"), found.unreadable.items(), class_="words")
    elsewhere = [evaluation for evaluation in found.evaluations if evaluation.mission is None]
    if elsewhere:
        yield element("h3", "Evaluations whose mission is not known")
        yield evaluations_table(elsewhere)


def all_sections(sections: Sequence[Section], folder: Path) -> Iterator[Html]:
    """The HTML of all sections, with links to them where there are several; pictures also in `folder`/pictures."""
    if len(sections) > 1:
        links = (element("a", each.title, href=f"#mission{number}") for number, each in enumerate(sections, 1))
        yield element("p", Html(f"Missions: {', '.join(links)}"))
    with drawing(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the font lacks, of a lone value on an axis
        for number, section in enumerate(sections, start=1):
            yield from section_parts(section, number, folder)


def section_parts(section: Section, number: int, folder: Path) -> Iterator[Html]:
    """The section's HTML; its pictures are also written into `folder`/pictures."""
    yield element("h2", section.title, id=f"mission{number}")
    places = [
        f"{mission.site}, {mission.agents_per_env} agents, {mission.max_steps:,} steps" for mission in section.missions
    ]
    in_turn = " The missions are played in turn, and a return is the mean over them." if places[1:] else ""
    yield element("p", f"{'; '.join(dict.fromkeys(places))}.{in_turn} {_RETURNS}", class_="note")
    if section.groups:
        yield from _pictures(section, folder / "pictures" / f"mission{number}")
    if section.differing:
        yield element("h3", "Configs")
        yield _configs(section)
    if section.evaluations:
        yield element("h3", "Evaluations")
        yield evaluations_table(section.evaluations)
    if section.groups:
        runs = [run for group in section.groups for run in group.runs]
        rows = [_run_row(run, section.held_out, folder) for run in runs]
        columns = ("run", "seed", "state", "agent steps", "final return", "best held-out", "minutes", "steps/s")
        inside = element("summary", f"Runs: {len(rows)}") + table((*columns, "film", "note"), rows)
        yield element("details", Html(inside), **({} if len(rows) > MOST_ROWS_SHOWN else {"open": ""}))


def evaluations_table(evaluations: Sequence[Evaluation]) -> Html:
    """A line for each policy of each evaluation."""
    rows = []
    for evaluation in evaluations:
        for policy, returns in evaluation.returns.items():
            numbers = (number_of(float(np.mean(returns))), interval_of(bootstrap_interval(returns)))
            rows.append((policy, str(len(returns)), *numbers, evaluation.name))
    return table(("policy", "episodes", "return", "95% interval", "folder"), rows)


def runs_csv(sections: Sequence[Section]) -> Iterator[list[str]]:
    """The head, and a row for each run; a number that is not known is empty."""
    columns = ("agent_steps", "final_return", "final_is_of", "best_held_out_return", "minutes", "steps_per_second")
    yield ["name", "mission", "group", "seed", "state", *columns]
    for section in sections:
        for group in section.groups:
            for run in group.runs:
                numbers = [f"{number:.10g}" if np.isfinite(number) else "" for number in _numbers(run, group.held_out)]
                numbers.insert(2, "held-out episodes" if group.held_out else "training episodes")
                yield [run.name, section.title, group.name, str(run.experiment.seed), run.state, *numbers]


def _pictures(section: Section, prefix: Path) -> Iterator[Html]:
    groups, effects = section.groups, effects_of(section)

    def at(name: str) -> Path:
        return prefix.with_name(f"{prefix.name}_{name}.png")

    yield element("h3", "Learning")
    by_steps, by_minutes = learning_curves(section, "steps"), learning_curves(section, "minutes")
    if by_steps is None:
        yield element("p", "No whole episode has ended, so there is no return to draw.")
    alt = f"Return per agent, a line for each config; highest at the end: {groups[0].name}, {number_of(groups[0].mean)}"
    yield _side_by_side(
        picture(by_steps, at("return_by_steps"), f"{alt}; against agent steps", _learning_caption(section)),
        picture(by_minutes, at("return_by_minutes"), f"{alt}; against minutes", _MINUTES),
    )
    of_each = missions_picture(section)
    if of_each is not None:
        yield element("h3", "Each mission")
        yield _side_by_side(picture(of_each, at("each"), "Return per agent on each mission, by config", _EACH))
    yield element("h3", "Final returns")
    yield _final_table(section)
    yield element("p", f"{_FINAL_HELD_OUT if section.held_out else _FINAL_TRAINING} {_TABLE}", class_="note")
    if effects:
        alt = "Final return of every run against the value of " + ", ".join(effect.key for effect in effects)
        yield element("h3", "Hyperparameters")
        yield _side_by_side(picture(effects_picture(effects), at("hyperparameters"), alt, _EFFECTS))
    yield element("h3", "Speed")
    yield _side_by_side(
        picture(speed_picture(groups), at("speed"), "Agent steps per second over the run, by config", _SPEED),
        picture(seconds_picture(groups), at("seconds"), "Where the seconds go, by config", _SECONDS),
    )
    yield element("h3", "Losses and diagnostics")
    alt = "Losses and diagnostics over agent steps, by config"
    yield _side_by_side(picture(diagnostics_picture(groups), at("diagnostics"), alt, _LOSSES))


def _side_by_side(*pictures: Html) -> Html:
    return element("div", Html("".join(pictures)), class_="pictures")


def _learning_caption(section: Section) -> str:
    groups = section.groups
    runs = [run for group in groups for run in group.runs]
    words = [_LINES] if any(run.has(RETURN) for run in runs) else []
    words += ["Dots: single updates."] if len(runs) == 1 else []
    banded = len(groups) < len(runs) and len(groups) <= len(STYLES)
    words += ["Bands: Student's 95% interval over runs, from three on."] if banded else []
    words += ["Thin lines: single runs."] if banded and len(runs) <= MOST_SINGLE_RUNS else []
    words += [_MARKS] if any(run.has(HELD_OUT) for run in runs) else []
    if len(groups) > len(STYLES):
        words.append(f"The {MOST_COLOURED} configs with the highest final return are in colour, the others grey.")
    if any(len(group.counted) < len(group.runs) for group in groups):
        words.append("Means are of finished runs, where a config has any, and of the last of those with the same seed.")
    if section.references:
        listed = [f"{name} ({reference.episodes} episodes)" for name, reference in section.references.items()]
        words.append(f"Horizontal lines: baselines, {', '.join(listed)}.")
    return " ".join(words)


def _final_table(section: Section) -> Html:
    lines: list[tuple[float, tuple[str, ...]]] = []
    for group in section.groups:
        finals, counted = group.finals, group.counted
        interval, points = bootstrap_interval(finals), held_out_points(group)
        if len(finals) == 1 and section.held_out and points is not None:
            interval = (points.low[-1], points.high[-1])
        cells = (
            *(group.name, number_of(group.mean), interval_of(interval), number_of(max(run.best for run in group.runs))),
            number_of(float(iqm(finals)) if len(finals) >= 4 else np.nan),
            *(_states(group.runs), number_of(max(run.steps[-1:].sum() for run in counted), 0)),
            number_of(float(np.mean([run.minutes[-1:].sum() for run in counted])), 1),
            number_of(float(np.median([run.speed for run in counted])), 0),
            number_of(max(run.memory for run in group.runs), 0),
        )
        lines.append((group.mean, cells))
    for name, reference in section.references.items():
        numbers = (number_of(reference.mean), interval_of((reference.low, reference.high)))
        lines.append((reference.mean, (name, *numbers, "", "", f"{reference.episodes} episodes", *[""] * 4)))
    columns = ("config", "final", "95% interval", "best", "IQM", "runs", "agent steps", "minutes", "steps/s", "MB")
    return table(columns, [cells for _, cells in sorted(lines, key=lambda line: -line[0])])


def _configs(section: Section) -> Html:
    rows = [
        (group.name, *(written(group.config[key]) if key in group.config else "" for key in section.differing))
        for group in section.groups
    ]
    return table(("config", *section.differing), rows)


def _run_row(run: Run, held_out: bool, folder: Path) -> tuple[str, ...]:
    notes = [] if run.has(RETURN) else ["no whole episode ended, so it is in no curve of returns"]
    notes += [f"lines of its metrics that could not be read: {run.left_out}"] if run.left_out else []
    film = ""
    if (run.path / FILM).is_file():
        film = element("a", "film", href=quote(Path(os.path.relpath(run.path / FILM, folder.resolve())).as_posix()))
    numbers = [
        number_of(number, digits) for number, digits in zip(_numbers(run, held_out), (0, 2, 2, 1, 0), strict=True)
    ]
    return run.name, str(run.experiment.seed), run.state, *numbers, film, "; ".join(notes)


def _numbers(run: Run, held_out: bool) -> tuple[float, ...]:
    return run.steps[-1:].sum(), run.final(held_out), run.best, run.minutes[-1:].sum(), run.speed


def _states(runs: Sequence[Run]) -> str:
    counts = Counter(run.state for run in runs)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def number_of(value: float, digits: int = 2) -> str:
    """As a table shows it; - for what is not known."""
    return f"{value:,.{digits}f}" if np.isfinite(value) else "-"


def interval_of(interval: tuple[float, float] | None) -> str:
    """As a table shows it; - for none."""
    return "-" if interval is None else f"{number_of(interval[0])} to {number_of(interval[1])}"


_RETURNS = (
    "Returns are means per agent of whole episodes. Runs that differ in nothing but their seed, and in keys without "
    "effect on the result, are runs of one config."
)
_LINES = (
    "Lines: training's returns, means over runs, smoothed: a point is the mean of about "
    f"{EPISODES_IN_A_POINT} episodes of a run. The network changes while such an episode is played, which can lift "
    "them above what a network that stays as it is gets on held-out maps."
)
_MARKS = (
    "Marks: evaluations on held-out maps, means over runs with their 95% interval from three runs on, of a single run "
    "over its episodes; "
    "marks of the same step stand side by side."
)
_EACH = (
    "Of evaluations on held-out maps where there are any, else of training's episodes: means over the runs of a config."
)
_MINUTES = (
    "The same against the time of rollouts, updates and evaluations together, without that to start. The minutes of a "
    "mean are those of its runs at the same agent steps, on average."
)
_FINAL_HELD_OUT = "Final: return of the last evaluation on held-out maps, mean over runs."
_FINAL_TRAINING = (
    f"Final: mean return of the last {FINAL_PART:.0%} of the training episodes, then over runs; not all that count "
    "were evaluated on held-out maps."
)
_TABLE = (
    "The interval is of 95%, over runs: Student's below 8 of them, else a bootstrap; for a single run, that of its "
    "last evaluation's episodes. Best: the highest held-out evaluation of any run, which is more than the same "
    "network would score again. IQM: mean of the middle half of the runs, from four runs on. Minutes: mean over runs; "
    "steps/s: median; MB: peak memory."
)
_EFFECTS = (
    "Dots: final return of each run; bars: mean of a value. Each panel looks at one key alone, while the others vary. "
    "What part of the variance a key explains is adjusted for the number of its values (epsilon squared); numbers with "
    f"more than {MOST_VALUES} values are compared in {MOST_VALUES} bins of equal size. The keys that explain most come "
    f"first, {MOST_EFFECTS} at most."
)
_SPEED = "Median over the updates and then mean over the runs of a config; evaluations are not counted."
_SECONDS = "Where the time goes, mean over the runs of a config. Beside the bars: the highest peak memory of a process."
_LOSSES = "Mean over the updates of a point, then over the runs of a config."
