"""`experiment=notebook` is the seed notebook's run: the same losses and the same weights as PuffeRL driven by hand."""

from pathlib import Path

import pytest
import torch
from ppo_helpers import trainer_of

from scout.cli import compose_experiment

import seed_loop  # isort: skip  # after scout, which takes back what importing PuffeRL does to the process

Updates = list[dict[str, float]]


def losses_by_hand(updates: int, data_dir: Path) -> tuple[Updates, dict[str, torch.Tensor]]:
    """The losses of each update and the last weights of the seed's own loop."""
    trainer = seed_loop.make_trainer(data_dir)
    losses = []
    for _ in range(updates):
        trainer.evaluate()
        trainer.last_log_time = 0  # so that every update's losses can be seen, whatever the clock says
        trainer.train()
        losses.append(dict(trainer.losses))
    trainer.vecenv.close()
    return losses, trainer.policy.state_dict()


def losses_of_ours(updates: int) -> tuple[Updates, dict[str, torch.Tensor]]:
    """The same of `experiment=notebook`, as train.py builds it."""
    experiment = compose_experiment("experiment=notebook", "device=cpu")
    trainer = trainer_of(experiment)
    losses = []
    for _ in range(updates):
        trainer.evaluate()
        trainer.train()
        losses.append(dict(trainer.losses))
    trainer.close()
    return losses, trainer.uncompiled_policy.state_dict()


@pytest.mark.parametrize("updates", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_the_notebook_experiment_has_the_very_losses_of_pufferl_driven_by_hand(updates: int, tmp_path: Path) -> None:
    """Update by update, every loss and then every weight equals, to the last bit, those of the seed's own loop."""
    expected, expected_weights = losses_by_hand(updates, tmp_path)
    actual, actual_weights = losses_of_ours(updates)
    assert len(actual) == updates
    assert actual == expected
    assert actual_weights.keys() == expected_weights.keys()
    for name, weight in expected_weights.items():
        assert torch.equal(actual_weights[name], weight), name
