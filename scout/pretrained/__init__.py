"""Trained scouts that come with the project: `checkpoint=pretrained`, and `initial_weights=pretrained` to go on from.

README.md beside this says how each was made.
"""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
PRETRAINED: dict[str, Path] = {
    "pretrained": _FOLDER / "scout",  # a run folder with nothing but its config and its best checkpoint
    "pretrained/cnn_lstm": _FOLDER / "cnn_lstm.pt",  # the seed's network, as a bare state_dict
}


def path_of(location: str) -> Path:
    """Where one of these names, or any other location, lies; a folder of such a name is meant by ./NAME."""
    return PRETRAINED.get(location, Path(location))
