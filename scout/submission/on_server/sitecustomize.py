"""Python's start-up hook in every process of a proof: it hides what a leaderboard's server does not have.

That is this project, which an editable install would find everywhere, and the packages that only training needs.
"""

import sys

HIDDEN = {"hydra", "omegaconf", "wandb", "numba", "optuna", "safetensors"}


class Hidden:
    """A finder that finds nothing, and says so."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}: a bundle has to do without it", name=name)


sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable___scout" not in finder.__module__]
sys.meta_path.insert(0, Hidden)  # pyright: ignore[reportArgumentType]
