"""What a traced network answers: `python answer.py NETWORK SEQUENCES.npz ANSWERS.npz`.

Imports nothing of the project, as whoever loads such a file does.
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray


@torch.no_grad()
def answers(network: torch.nn.Module, sequence: NDArray[np.uint8], hidden_size: int) -> NDArray[np.float32]:
    """All outputs along tokens uint8 [steps, B, T, 3], each step from the state of the one before.

    They are float32 [steps, B, actions + 1 + 2 hidden_size].
    """
    h, c = torch.zeros(2, sequence.shape[1], hidden_size)
    said = []
    for tokens in torch.from_numpy(sequence):
        logits, values, h, c = network(tokens, h, c)
        said.append(torch.cat([logits, values, h, c], dim=1).numpy())
    return np.stack(said)


def main(network_path: str, sequences_path: str, answers_path: str) -> None:
    """Writes an array of answers for each array of observations."""
    files = {"hidden_size": ""}
    network = torch.jit.load(network_path, map_location="cpu", _extra_files=files)
    with np.load(sequences_path) as sequences:
        found = {count: answers(network, sequences[count], int(files["hidden_size"])) for count in sequences.files}
    np.savez(answers_path, allow_pickle=False, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
