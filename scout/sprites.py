"""The pictures of the map, its things and its agents that mettagrid ships with its own viewer, mettascope."""

import functools
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scout.team_view import agent_colour

Pixels = NDArray[np.uint8]

CELL_OF_SPRITES = 128  # pixels of a cell at the size in which mettascope draws its sprites
FLOOR = (142, 127, 110)
ROCK, CLIFF = (84, 75, 66), (30, 27, 25)
OUTLINE = (20, 18, 16)


class Stamp:
    """A picture with transparency, ready to be laid onto others."""

    def __init__(self, image: Image.Image) -> None:
        pixels = np.asarray(image.convert("RGBA"), dtype=np.uint16)
        self._rest = 255 - pixels[..., 3:]
        self._paint = pixels[..., :3] * pixels[..., 3:]
        self.height, self.width = pixels.shape[:2]

    def lay(self, canvas: Pixels, row: int, column: int) -> None:
        """Lays it onto uint8 [height, width, 3] with its middle at a pixel; what lies outside is cut off."""
        top, left = row - self.height // 2, column - self.width // 2
        rows = slice(max(0, -top), min(self.height, canvas.shape[0] - top))
        columns = slice(max(0, -left), min(self.width, canvas.shape[1] - left))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        under = canvas[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
        under[...] = (under * self._rest[rows, columns] + self._paint[rows, columns]) // 255


def load_sprite(*names: str) -> Image.Image:
    """The first of these that mettagrid ships, as `agents/scout.n`; a plain square where it ships none of them."""
    folder = files("mettagrid") / "nim" / "mettascope" / "data"
    for name in names:
        resource = folder / f"{name}.png"
        if resource.is_file():
            with as_file(resource) as path:
                return Image.open(path).convert("RGBA")
    square = Image.new("RGBA", (CELL_OF_SPRITES, CELL_OF_SPRITES))
    ImageDraw.Draw(square).rectangle((16, 16, 112, 112), fill=(200, 200, 200, 255), outline=OUTLINE, width=8)
    return square


def thing_sprite(thing: dict[str, Any]) -> str:
    """The name of the sprite for a thing as the simulator describes it: mettascope's own choice.

    An extractor that is empty looks so, and so does a junction that a team or the clips hold.
    """
    name = thing["type_name"].rpartition(":")[2]  # c:scout is the station of the team c
    if name == "junction":
        owner = thing.get("collective_name") or ""
        return "objects/junction.clipped1" if "clip" in owner else f"objects/junction{'.working' if owner else ''}"
    if name.endswith("_extractor") and not any(thing["inventory"].values()):
        return f"objects/{name}.depleted"
    return f"objects/{name}"


@functools.cache
def thing_stamp(name: str, cell: int) -> Stamp:
    """A thing by its sprite's name, for cells of `cell` pixels."""
    image = load_sprite(name, "objects/unknown")
    larger = 1.3 if image.width < 2 * CELL_OF_SPRITES else 1.0  # stations would be hard to tell apart
    return Stamp(_scaled(image, larger * cell / CELL_OF_SPRITES))


@functools.cache
def agent_stamp(gear: str, heading: str, cell: int) -> Stamp:
    """An agent with its gear (empty without any), seen from a side: n, e, s or w."""
    image = load_sprite(f"agents/{gear or 'agent'}.{heading}", f"agents/agent.{heading}", "objects/unknown")
    return Stamp(_scaled(image, agent_cell(cell) / CELL_OF_SPRITES))


def agent_cell(cell: int) -> int:
    """The cell, in pixels, for whose size agents are drawn: larger than their own, to be seen at all on large maps."""
    return max(round(1.45 * cell), 16)


@functools.cache
def ring_stamp(number: int, cell: int) -> Stamp:
    """A disc with a ring in an agent's colour, to lie under it."""
    radius, finer = round(0.58 * agent_cell(cell)), 4
    size = 2 * radius + 5
    image = Image.new("RGBA", (size * finer, size * finer))
    draw, middle, colour = ImageDraw.Draw(image), size * finer / 2, agent_colour(number)
    draw.circle((middle, middle), (radius + 1) * finer, fill=(*colour, 50), outline=OUTLINE, width=finer)
    draw.circle((middle, middle), radius * finer, outline=colour, width=2 * finer)
    return Stamp(image.resize((size, size), Image.Resampling.BOX))


@functools.cache
def label_stamp(number: int, cell: int) -> Stamp:
    """An agent's number on its colour."""
    return Stamp(number_plate(number, 9 if cell < 12 else 11))


def number_plate(number: int, size: int) -> Image.Image:
    """An agent's number in black on a plate of its colour, the text `size` pixels high."""
    font = ImageFont.load_default(size)
    width, height = max(round(font.getlength(str(number))), size - 3) + 7, size + 5
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), 3, fill=agent_colour(number), outline=OUTLINE)
    draw.text(((width - 1) / 2, (height - 1) / 2), str(number), fill=OUTLINE, font=font, anchor="mm")
    return image


def ground(walls: NDArray[np.bool_], cell: int) -> Pixels:
    """Floor and walls, bool [rows, columns] -> uint8 [rows * cell, columns * cell, 3]."""
    foot = walls & ~np.pad(walls, ((0, 1), (0, 0)), constant_values=True)[1:]  # walls above floor show their side
    kinds = np.stack([np.where(walls, 1, 0)] * cell, axis=1)
    kinds[:, cell - max(1, cell // 3) :][foot[:, None].repeat(max(1, cell // 3), axis=1)] = 2
    colours = np.array([FLOOR, ROCK, CLIFF], dtype=np.int16)[kinds.reshape(-1, walls.shape[1]).repeat(cell, axis=1)]
    rock = load_sprite("terrain/blob7x8").convert("L").crop((512, 256, 640, 384))  # a tile without edges
    grain = np.asarray(rock, dtype=np.int16)
    grain = grain - round(grain.mean())
    rows, columns = (-(-side // len(grain)) for side in colours.shape[:2])
    grain = np.tile(grain, (rows, columns))[: colours.shape[0], : colours.shape[1], None] // 4
    return np.clip(colours + grain, 0, 255).astype(np.uint8)


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    if image.width == CELL_OF_SPRITES // 2:  # the oldest sprites are drawn for cells of half the size
        scale *= 2
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
