"""Puts trained scouts into scout/pretrained: `python benchmarks/ship.py default-1 cnn_lstm-1`.

The two are runs of `make learning`, whose folders lie in outputs/learning: one with its config, and one with the seed's
network as a bare state_dict. The weights alone of their best checkpoints, and README.md with the command (which has the
seed), commit and return of each.
"""

import shutil
import sys

import torch
from learning import RECORDS, RUNS
from records import read_episodes

from scout.checkpoint import load_weights
from scout.files import BEST, CHECKPOINTS, CONFIG, EPISODES_CSV
from scout.pretrained import PRETRAINED
from scout.run_folder import object_in


def ship(run: str, name: str) -> str:
    """Copies what is needed to play; returns the paragraph about it."""
    weights, target = load_weights(str(RUNS / run)), PRETRAINED[name]
    if target.suffix:
        torch.save(weights.state_dict, target)
    else:
        (target / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        shutil.copy(RUNS / run / CONFIG, target / CONFIG)
        torch.save({"model": weights.state_dict, "agent_steps": weights.agent_steps}, target / CHECKPOINTS / BEST)
    about = object_in(RECORDS / run / "run.json")
    returns = [episode["return"] for episode in read_episodes(RECORDS / run / EPISODES_CSV)]
    mean = sum(returns) / len(returns)
    return (
        f"`checkpoint={name}` is the best checkpoint, by its run's own held-out maps, after {weights.agent_steps:,}\n"
        f"agent steps of\n\n    {about['command']}\n\n"
        f"at commit `{about['commit']}`: {mean:.2f} per agent in {len(returns)} episodes on maps that it never saw. "
        "What other seeds of the same come to is in docs/results.md."
    )


def main(runs: list[str]) -> None:
    """Ships each run under the names of PRETRAINED, in their order."""
    paragraphs = [ship(run, name) for run, name in zip(runs, PRETRAINED, strict=True)]
    (PRETRAINED["pretrained"].parent / "README.md").write_text("# Trained scouts\n\n" + "\n\n".join(paragraphs) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
