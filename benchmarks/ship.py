"""Puts trained scouts into scout/pretrained: `python benchmarks/ship.py RUN_DIR RUN_DIR_OF_CNN_LSTM`.

The weights alone of each run's best checkpoint, and README.md with the command, config, seed and commit that made it.
"""

import shutil
import sys
from pathlib import Path

import torch

from scout.checkpoint import load_weights
from scout.files import BEST, CHECKPOINTS, CONFIG
from scout.pretrained import PRETRAINED
from scout.run_folder import object_in


def ship(run_dir: Path, name: str) -> str:
    """Copies what is needed to play; returns the paragraph about it."""
    weights, target = load_weights(str(run_dir)), PRETRAINED[name]
    assert weights.experiment is not None
    if target.suffix:
        torch.save(weights.state_dict, target)
    else:
        (target / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        shutil.copy(run_dir / CONFIG, target / CONFIG)
        torch.save({"model": weights.state_dict, "agent_steps": weights.agent_steps}, target / CHECKPOINTS / BEST)
    versions = object_in(run_dir / "versions.json")
    commit = versions.get("git", {}).get("commit", "unknown")[:7]
    command = " ".join(word for word in versions.get("command", []) if not word.startswith("hydra."))
    return (
        f"`checkpoint={name}` is the best checkpoint, by its run's own held-out maps, of seed "
        f"{weights.experiment.seed}, after {weights.agent_steps:,} agent steps of\n\n"
        f"    python {command}\n\n"
        f"at commit `{commit}`."
    )


def main(folders: list[str]) -> None:
    """Ships each run under the names of PRETRAINED, in their order."""
    paragraphs = [ship(Path(folder), name) for folder, name in zip(folders, PRETRAINED, strict=True)]
    readme = PRETRAINED["pretrained"].parent / "README.md"
    readme.write_text("# Trained scouts\n\n" + "\n\n".join(paragraphs) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
