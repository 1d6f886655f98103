"""Python's start-up hook in every process of a proof: it hides what a leaderboard's server does not have.

That is this project and whatever else is installed here, but for what cogames and mettagrid themselves require.
"""

import os
import sys

HIDDEN = frozenset(os.environ["SCOUT_HIDDEN"].split(","))


class Hidden:
    """A finder that finds nothing, and says so."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}: a bundle has to do without it", name=name)


# Editable installs are found by finders of their own, or through folders that were added to the path.
own = (sys.prefix, sys.base_prefix, *os.environ["PYTHONPATH"].split(os.pathsep))
sys.meta_path[:] = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]
sys.path[:] = [folder for folder in sys.path if folder.startswith(own)]
sys.meta_path.insert(0, Hidden)  # pyright: ignore[reportArgumentType]
