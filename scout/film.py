"""Films of episodes, as MP4 for browsers, W&B and notebooks, or as GIF, without a screen."""

import contextlib
import subprocess
from pathlib import Path
from typing import override

import imageio_ffmpeg
from mettagrid.simulator import Simulation
from PIL import Image

from scout.errors import ScoutError
from scout.new_file import NewFile, Recording, check_new_file
from scout.picture import Picture
from scout.sprites import Pixels

ENDINGS = (".mp4", ".gif")
MP4_FRAMES, MP4_PER_SECOND, MP4_MAP = 1500, 25, 736  # at most so many frames; pixels of the map's longer side
GIF_FRAMES, GIF_PER_SECOND, GIF_MAP = 200, 10, 520
GIF_LAST_FRAME = 2000  # milliseconds, before it begins again


def check_film_path(path: Path, overwrite: bool) -> None:
    """Makes sure, before anything is played, that a film can be written there.

    Raises ScoutError for another ending than .mp4 and .gif, for a file that is there already unless `overwrite` is set,
    for a folder that cannot be written, and for an MP4 where ffmpeg is missing.
    """
    check_new_file("film", path, ENDINGS, overwrite)
    if path.suffix.lower() == ".mp4":
        _ffmpeg(path)


class Film(Recording):
    """Films one episode. The file is there after `with` or `close`; nothing is left of a film that breaks off."""

    def __init__(self, path: Path, *, overwrite: bool = False, title: str = "") -> None:
        """`title`, one line or two, stands beside the map. Raises ScoutError as `check_film_path` does."""
        self._file, self._title = NewFile("film", path, ENDINGS, overwrite), title
        self._is_gif = path.suffix.lower() == ".gif"
        if not self._is_gif:
            _ffmpeg(path)
        self._picture: Picture | None = None
        self._encoder: Mp4 | Gif | None = None

    def show(self, simulation: Simulation) -> None:
        """Films the simulation as it is now: to be called before its first step and after each.

        Of a long episode every n-th step gets a frame, and the last one. Raises ScoutError when the disk is full.
        """
        steps = simulation.config.game.max_steps
        if self._picture is None or self._encoder is None:
            self._picture = Picture(simulation, self._title, GIF_MAP if self._is_gif else MP4_MAP)
            make = Gif if self._is_gif else Mp4
            self._encoder = make(self._file, self._picture)
        self._picture.look()
        every = -(-(steps + 1) // (GIF_FRAMES if self._is_gif else MP4_FRAMES))
        if simulation.current_step % every == 0 or simulation.is_done():
            self._encoder.add(self._picture.draw())

    @override
    def close(self) -> None:
        """Finishes the file. Raises ScoutError when that fails."""
        if self._encoder is None:
            return
        try:
            self._encoder.finish()
            self._file.keep()
        except BaseException:
            self.break_off()
            raise
        self._encoder = None

    @override
    def break_off(self) -> None:
        if self._encoder is not None:
            self._encoder.abandon()
        self._encoder = None
        self._file.discard()


class Mp4:
    """Hands frames to ffmpeg as H.264 that browsers play."""

    def __init__(self, file: NewFile, picture: Picture) -> None:
        self._file, size = file, picture.size
        source = f"-f rawvideo -pix_fmt rgb24 -s {size[0]}x{size[1]} -r {MP4_PER_SECOND}".split()
        # Told outright: a browser that has to guess the colours' meaning by the size may show them off.
        meaning = "colorspace=bt709:color_primaries=bt709:color_trc=bt709"
        target = f"-vf scale=out_color_matrix=bt709,setparams={meaning} -c:v libx264 -preset veryfast -crf 20"
        target += " -pix_fmt yuv420p -movflags +faststart -f mp4"
        command = [_ffmpeg(file.path), "-loglevel", "error", "-y", *source, "-i", "-", *target.split()]
        # In a process group of its own: a terminal's Ctrl-C is the player's alone to answer.
        self._process = subprocess.Popen(
            [*command, str(file.temporary)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )

    def add(self, frame: Pixels) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.data)
        except OSError as error:  # ffmpeg has ended: it says why
            self.finish()
            raise self._file.failed(error.strerror) from error

    def finish(self) -> None:
        _, said = self._process.communicate()
        if self._process.returncode:
            reason = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise self._file.failed(reason or f"ffmpeg ended with {self._process.returncode}")

    def abandon(self) -> None:
        self._process.kill()
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate()


class Gif:
    """Collects frames in one palette, for what cannot play films."""

    def __init__(self, file: NewFile, picture: Picture) -> None:
        self._file, self._picture, self._frames = file, picture, list[Image.Image]()
        self._palette: Image.Image | None = None

    def add(self, frame: Pixels) -> None:
        image = Image.fromarray(frame)
        if self._palette is None:  # from more than the first frame, in which almost all is dark
            shades = Image.fromarray(self._picture.shades())
            colours = Image.new("RGB", (max(image.width, shades.width), image.height + shades.height))
            colours.paste(image, (0, 0))
            colours.paste(shades, (0, image.height))
            self._palette = colours.quantize(255)
        self._frames.append(image.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def finish(self) -> None:
        first, *others = self._frames
        durations = [1000 // GIF_PER_SECOND] * len(others) + [GIF_LAST_FRAME]
        try:
            first.save(
                self._file.temporary,
                "GIF",
                save_all=True,
                append_images=others,
                duration=durations,
                loop=0,
                optimize=True,
            )
        except OSError as error:
            raise self._file.failed(error.strerror) from error

    def abandon(self) -> None:
        self._frames.clear()


def _ffmpeg(path: Path) -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ScoutError(
            f"film={path} needs ffmpeg, which imageio-ffmpeg does not find here: install it, or take the ending .gif"
        ) from error
