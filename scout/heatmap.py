"""Where the agents of each policy went, as one picture."""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scout.new_file import NewFile, check_new_file
from scout.picture import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png",)
COLUMNS = 3
PANEL = 3.6  # inches of a panel's side
DOTS_PER_INCH = 150
NAME_LENGTH = 38  # characters above a panel
LETTERS_PER_INCH = 11  # of the title


def check_heatmap_path(path: Path, overwrite: bool) -> None:
    """Makes sure, before anything is played, that a heat map can be written there. Raises ScoutError if not."""
    check_new_file("heatmap", path, ENDINGS, overwrite)


def draw_heatmap(path: Path, visits: dict[str, NDArray[np.int64]], title: str = "", overwrite: bool = False) -> None:
    """Draws one panel for each policy: agent steps in each cell, int64 [height, width], summed over its episodes.

    All panels share one logarithmic scale; cells where no agent ever stood are white. Raises ScoutError as
    `check_heatmap_path` does, and when the disk is full.
    """
    file = NewFile("heatmap", path, ENDINGS, overwrite)
    figure = heatmap_figure(visits, title)
    try:
        figure.savefig(file.temporary, format="png", dpi=DOTS_PER_INCH)
    except OSError as error:
        raise file.failed(error.strerror) from error
    file.keep()


def heatmap_figure(visits: dict[str, NDArray[np.int64]], title: str = "") -> "Figure":
    """The picture that `draw_heatmap` stores."""
    # matplotlib takes a second to import, which an evaluation without a heat map does without.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    columns = 2 if len(visits) == 4 else min(COLUMNS, len(visits))
    rows = math.ceil(len(visits) / columns)
    figure = Figure(figsize=(PANEL * columns + 1.3, (PANEL + 0.4) * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    # As readable in grey as in colour: never is white, once is light, often is dark.
    colours = ListedColormap(colormaps["cividis_r"](np.linspace(0.12, 1, 256))).with_extremes(bad="white")
    most = max([2, *(int(steps.max()) for steps in visits.values())])
    scale = LogNorm(1, most)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(visits) :]:
        panel.set_axis_off()
    for panel, (name, steps) in zip(panels.flat, visits.items(), strict=False):
        panel.imshow(np.ma.masked_equal(steps, 0), cmap=colours, norm=scale, interpolation="nearest")
        entered = f"{np.count_nonzero(steps):,} cells entered"
        panel.set_title(
            f"{shorten(name, lambda text: len(text) <= NAME_LENGTH)}\n{entered}", fontsize=9, parse_math=False
        )
        panel.set_xticks([])
        panel.set_yticks([])
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=panels, shrink=0.8, aspect=30)
    bar.set_label("agent steps in a cell, over all episodes (white: none)", fontsize=9)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    if title:
        figure.suptitle(
            textwrap.fill(title, round(LETTERS_PER_INCH * figure.get_figwidth())), fontsize=10, parse_math=False
        )
    return figure
