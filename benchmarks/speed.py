"""Agent steps per second, where their time goes, and peak memory: `make benchmark`.

The first part lets this project take turns with the seed's own loop and `cogames train`, all with the seed's network;
the second finds how the default scales (`--scaling` makes it alone). Each turn is a process of its own. What was found
is kept in benchmarks/speed.json and scaling.json, and goes into docs/performance.md, docs/speed.png and scaling.png;
`--report` writes these anew and measures nothing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from results_page import DOCS, PERFORMANCE, markdown, put_table
from turns import OTHERS, PARTS, machine, medians, take_turns, write_record

HERE = Path(__file__).resolve().parent
RECORD, SCALING_RECORD = HERE / "speed.json", HERE / "scaling.json"

SEED_NETWORK = ["model=cnn_lstm", "trainer.update_epochs=1"]
# Title, and what is written after `python train.py`; the loops of others do without it.
CONTESTANTS: dict[str, tuple[str, list[str]]] = {
    "seed_loop": ("the seed notebook's own loop", []),
    "cogames": ("`cogames train -p class=tutorial`", []),
    "plain": (
        "the seed's network, one epoch, float32, torch's layers",
        [*SEED_NETWORK, "device.precision=float32", "device.fast_layers=false"],
    ),
    "float32": ("the seed's network, one epoch, float32", [*SEED_NETWORK, "device.precision=float32"]),
    "default": ("the seed's network, one epoch", SEED_NETWORK),
    "conv": ("the default: conv, three epochs", []),
}

# Label, what stays the same, and the values.
AXES: dict[str, tuple[str, list[str], tuple[int, ...]]] = {
    "vecenv.num_envs": ("environments", ["trainer.minibatch_size=1024"], (4, 8, 16, 32, 64, 128, 256)),
    "trainer.bptt_horizon": ("steps of a segment", [], (16, 32, 64, 128)),
    "trainer.minibatch_size": ("agent steps of a minibatch", [], (512, 1024, 2048, 4096)),
    "model.hidden_size": ("hidden size", [], (128, 256, 512, 1024)),
}
TOLERANCE = 0.05  # the knee is the smallest value that is no further than this below the fastest


# -- part one: the contestants ---------------------------------------------------------------------------------------


def speed_table(record: dict[str, Any]) -> str:
    """Markdown: one row a contestant."""
    reference = record["medians"]["seed_loop"]["steps_per_second"]
    rows = []
    for name, turns in record["turns"].items():
        middle, speeds = record["medians"][name], [turn["steps_per_second"] for turn in turns]
        rows.append(
            [
                CONTESTANTS[name][0],
                f"{middle['steps_per_second']:,.0f}",
                f"{min(speeds):,.0f} to {max(speeds):,.0f}",
                f"{middle['steps_per_second'] / reference:.2f}",
                f"{middle['peak_memory_mb']:,.0f} MB",
            ]
        )
    return markdown(
        ["", "agent steps/s, median", "slowest to fastest", "of the seed's loop", "peak memory of the process"], rows
    )


def _pyplot() -> Any:
    """matplotlib for files; it is loaded here alone, so that it counts into no turn's memory."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    return plt


def draw_speed(record: dict[str, Any], picture: Path) -> None:
    """Stacked bars: seconds of 1000 agent steps, by what they are spent on."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(10, 0.75 * len(record["medians"]) + 1.6), layout="constrained")
    names = list(record["medians"])
    left = [0.0] * len(names)
    # Colours that colour-blind readers can tell apart, and hatches that can be told apart in grey.
    styles = zip(PARTS, ("#e69f00", "#56b4e9", "#0072b2", "#dddddd"), ("", "..", "//", "xx"), strict=True)
    for part, colour, hatch in styles:
        widths = [record["medians"][name][part] for name in names]
        axes.barh(names, widths, left=left, label=part, color=colour, hatch=hatch, edgecolor="black", lw=0.6)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, name in enumerate(names):
        speed = record["medians"][name]["steps_per_second"]
        axes.annotate(f"{speed:,.0f} steps/s", (left[row], row), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(
        range(len(names)), [CONTESTANTS[name][0].replace("`", "").replace(", ", ",\n", 1) for name in names]
    )
    axes.invert_yaxis()
    axes.set(xlabel="seconds per 1,000 agent steps (medians)", xlim=(0, max(left) * 1.18))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(PARTS), frameon=False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def report_speed(record: dict[str, Any]) -> None:
    """The first part's table, on the terminal and the page, and its picture."""
    put_table("speed", speed_table(record), PERFORMANCE)
    draw_speed(record, DOCS / "speed.png")
    print(speed_table(record))


def run_speed(turns: int, seconds: float) -> None:
    """The first part."""
    points = {
        name: [] if name in OTHERS else ["device=cpu", *overrides] for name, (_, overrides) in CONTESTANTS.items()
    }
    found = take_turns(points, turns, seconds)
    record = {
        "machine": machine(),
        "overrides": points,
        "turns": found,
        "medians": {name: medians(turns) for name, turns in found.items()},
    }
    write_record(RECORD, record)
    report_speed(record)


# -- part two: scaling -----------------------------------------------------------------------------------------------


def knee(speeds: dict[int, float]) -> int:
    """The smallest value that is as good as the fastest."""
    return min(value for value, speed in speeds.items() if speed >= (1 - TOLERANCE) * max(speeds.values()))


def series(record: dict[str, Any], key: str, number: str) -> dict[int, float]:
    """The median of a number at each value of an axis."""
    return {value: record["medians"][f"{key}={value}"][number] for value in AXES[key][2]}


def scaling_table(record: dict[str, Any]) -> str:
    """Markdown: one row a point, the knees in bold."""
    rows = []
    for key in AXES:
        speeds, memory = series(record, key, "steps_per_second"), series(record, key, "peak_memory_mb")
        for value, speed in speeds.items():
            bold = "**" if value == knee(speeds) else ""
            rows.append(
                [
                    f"`{key}`" if value == AXES[key][2][0] else "",
                    f"{bold}{value}{bold}",
                    f"{bold}{speed:,.0f}{bold}",
                    f"{speed / max(speeds.values()):.2f}",
                    f"{memory[value]:,.0f} MB",
                ]
            )
    return markdown(["", "value", "agent steps/s", "of the fastest", "peak memory"], rows)


def draw_scaling(record: dict[str, Any], picture: Path) -> None:
    """One panel an axis: speed as a line with its knee marked, and memory as a dashed one."""
    plt = _pyplot()
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    handles: list[Any] = []
    for panel, (key, (label, _, values)) in zip(panels.flat, AXES.items(), strict=True):
        speeds, memory = series(record, key, "steps_per_second"), series(record, key, "peak_memory_mb")
        best = knee(speeds)
        right = panel.twinx()
        handles = [
            *panel.plot(values, list(speeds.values()), "o-", color="#0072b2", lw=2.2, label="agent steps/s"),
            *panel.plot(best, speeds[best], "o", ms=15, mfc="none", mec="black", mew=1.8, label="knee"),
            *right.plot(values, list(memory.values()), "s--", color="#d55e00", lw=1.5, label="peak memory, MB"),
        ]
        panel.set_xscale("log", base=2)
        panel.set_xticks(values, [str(value) for value in values])
        panel.minorticks_off()
        panel.set(xlabel=f"{label} ({key})", ylabel="agent steps/s", ylim=(0, max(speeds.values()) * 1.2))
        right.set(ylabel="peak memory, MB", ylim=(0, max(memory.values()) * 1.2))
        for axes in (panel, right):
            axes.spines["top"].set_visible(False)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def report_scaling(record: dict[str, Any]) -> None:
    """The second part's table, on the terminal and the page, and its picture."""
    put_table("scaling", scaling_table(record), PERFORMANCE)
    draw_scaling(record, DOCS / "scaling.png")
    print(scaling_table(record))


def run_scaling(turns: int, seconds: float) -> None:
    """The second part."""
    points = {
        f"{key}={value}": ["device=cpu", *SEED_NETWORK, *fixed, f"{key}={value}"]
        for key, (_, fixed, values) in AXES.items()
        for value in values
    }
    found = take_turns(points, turns, seconds)
    record: dict[str, Any] = {
        "machine": machine(),
        "overrides": points,
        "turns": found,
        "medians": {name: medians(turns) for name, turns in found.items()},
    }
    record["knees"] = {key: knee(series(record, key, "steps_per_second")) for key in AXES}
    write_record(SCALING_RECORD, record)
    report_scaling(record)


def main() -> None:
    """Both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scaling", action="store_true", help="the second part alone")
    parser.add_argument("--report", action="store_true", help="tables and pictures of what was measured before")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--seconds", type=float, default=8.0, help="what a contestant's turn times at least")
    arguments = parser.parse_args()
    if not arguments.scaling:
        if arguments.report:
            report_speed(json.loads(RECORD.read_text()))
        else:
            run_speed(arguments.turns, arguments.seconds)
        print()
    if arguments.report:
        report_scaling(json.loads(SCALING_RECORD.read_text()))
    else:
        run_scaling(turns=2, seconds=3.0)


if __name__ == "__main__":
    main()
