"""The heat map: each policy's steps where they were made, on one scale, in one file."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from scout.errors import ScoutError
from scout.heatmap import draw_heatmap, heatmap_figure

STEPS = np.array([[0, 1, 0], [0, 500, 20]])


def panel_data(figure: Figure) -> list[NDArray[np.int64]]:
    """What the panels show, -1 for cells that are drawn as never entered."""
    return [np.ma.asarray(panel.images[0].get_array()).filled(-1) for panel in figure.axes if panel.images]


def colours_of(figure: Figure) -> NDArray[np.float64]:
    """The first panel's colours, 0 to 1, [height, width, red green blue opacity]."""
    image = figure.axes[0].images[0]
    return image.to_rgba(np.ma.asarray(image.get_array()))


def test_a_panel_shows_the_steps_in_each_cell() -> None:
    """Row 0 is on top; cells without a step are masked, and so are white while all others are not."""
    figure = heatmap_figure({"random": STEPS})
    assert panel_data(figure)[0].tolist() == [[-1, 1, -1], [-1, 500, 20]]
    image = figure.axes[0].images[0]
    assert tuple(image.get_extent()) == (-0.5, 2.5, 1.5, -0.5)
    colours = colours_of(figure)
    assert colours[0, 0].tolist() == [1, 1, 1, 1]
    assert (colours[0, 1, :3] < 0.9).any()


def test_more_steps_are_darker_in_grey_too() -> None:
    """The lightness falls from never over once and often to most."""
    lightness = colours_of(heatmap_figure({"random": STEPS}))[..., :3] @ [0.299, 0.587, 0.114]  # luma, of BT.601
    assert lightness[0, 0] - 0.1 > lightness[0, 1] > lightness[1, 2] > lightness[1, 1]


@pytest.mark.parametrize(("policies", "panels"), [(1, 1), (2, 2), (3, 3), (4, 4), (7, 7)])
def test_each_policy_has_a_panel_on_the_same_scale(policies: int, panels: int) -> None:
    """The scale is logarithmic and goes from one step to the most of any policy, with a colourbar that says of what."""
    figure = heatmap_figure({f"policy {number}": STEPS * (number + 1) for number in range(policies)})
    assert len(panel_data(figure)) == panels
    scales = {(panel.images[0].norm.vmin, panel.images[0].norm.vmax) for panel in figure.axes if panel.images}
    assert scales == {(1, 500 * policies)}
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == [
        "agent steps in a cell, over all episodes (white: none)"
    ]


def test_a_panel_is_named_by_the_end_of_a_long_path() -> None:
    """The name of a run folder is kept whole, folders far above it go; none is wider than its panel, or a formula."""
    names = ["outputs/scout_tutorial/with/many/folders/2026-11-26_05-35-00-123456", "n" * 300, r"$\frac$"]
    figure = heatmap_figure(dict.fromkeys(names, STEPS), "title")
    panels = [panel for panel in figure.axes if panel.images]
    titles = [panel.get_title() for panel in panels]
    assert titles[0] == ".../folders/2026-11-26_05-35-00-123456\n3 cells entered"
    assert titles[2] == "$\\frac$\n3 cells entered"
    figure.draw_without_rendering()
    for panel in panels:
        assert panel.title.get_window_extent().width <= panel.get_window_extent().width


def test_a_long_title_and_the_scale_are_not_cut_off() -> None:
    """The title is broken into lines that fit above a single panel, also where a word is longer than a line."""
    figure = heatmap_figure(
        {"random": STEPS}, "2 episodes of cogsguard_arena.scout_tutorial.easy.scout_rewards" + "x" * 80
    )
    figure.draw_without_rendering()
    extent = figure.texts[0].get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1
    label = figure.axes[-1].yaxis.label.get_window_extent()
    assert figure.bbox.y0 <= label.y0 < label.y1 <= figure.bbox.y1
    assert figure.axes[0].title.get_window_extent().y1 < extent.y0 < extent.y1 <= figure.bbox.y1


def test_policies_that_never_moved_or_were_not_followed_are_drawn() -> None:
    """Maps without a single step, as of missions whose agents do not observe their place, give an empty panel."""
    assert panel_data(heatmap_figure({"nowhere": np.zeros((2, 3), dtype=np.int64)}))[0].tolist() == [[-1] * 3] * 2


def test_the_picture_is_stored_and_an_existing_one_kept(tmp_path: Path) -> None:
    """The file is a picture of 150 dots per inch; a second one is refused, unless it is to replace the first."""
    path = tmp_path / "pictures" / "heat.png"
    draw_heatmap(path, {"random": STEPS}, "title")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert round(image.info["dpi"][0]) == 150
    path.write_text("mine")
    with pytest.raises(ScoutError, match="exists already"):
        draw_heatmap(path, {"random": STEPS})
    assert path.read_text() == "mine"
    draw_heatmap(path, {"random": STEPS}, overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]
