"""`experiment=notebook` is the seed notebook's run: the same losses and the same weights as PuffeRL driven by hand."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cogames.cogs_vs_clips.scout_tutorial import ScoutTutorialMission
from cogames.policy.tutorial_policy import TutorialPolicyNet
from conftest import compose_experiment
from mettagrid.envs.early_reset_handler import EarlyResetHandler
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.envs.stats_tracker import StatsTracker
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulator
from mettagrid.util.stats_writer import NoopStatsWriter
from pufferlib import vector
from pufferlib.pufferlib import set_buffers

from scout.mission import make_game
from scout.pufferl import pufferl
from scout.training import build

SEED = 42
# The notebook's train_config, written out from it; what it derives from its own environment stands as a number.
TRAIN_CONFIG: dict[str, Any] = {
    "env": "cogames.cogs_vs_clips",
    "device": "cpu",
    "total_timesteps": 100_000,
    "batch_size": 4096,
    "minibatch_size": 4096,
    "bptt_horizon": 64,
    "seed": SEED,
    "use_rnn": True,
    "torch_deterministic": True,
    "cpu_offload": False,
    "compile": False,
    "optimizer": "adam",
    "learning_rate": 0.00092,
    "anneal_lr": True,
    "min_lr_ratio": 0.0,
    "adam_beta1": 0.95,
    "adam_beta2": 0.999,
    "adam_eps": 1e-8,
    "precision": "float32",
    "gamma": 0.995,
    "gae_lambda": 0.90,
    "update_epochs": 1,
    "clip_coef": 0.2,
    "vf_coef": 2.0,
    "vf_clip_coef": 0.2,
    "max_grad_norm": 1.5,
    "ent_coef": 0.01,
    "vtrace_rho_clip": 1.0,
    "vtrace_c_clip": 1.0,
    "prio_alpha": 0.8,
    "prio_beta0": 0.2,
    "checkpoint_interval": 50,
    "max_minibatch_size": 32768,
}

Updates = list[dict[str, float]]


def losses_by_hand(updates: int, data_dir: Path) -> tuple[Updates, dict[str, torch.Tensor]]:
    """The losses of each update and the last weights of plain PuffeRL, with cogames' own mission and network."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    game = ScoutTutorialMission.make_env()

    def make_env(buf: Any = None, seed: int | None = None) -> MettaGridPufferEnv:
        config = game.model_copy(deep=True)
        if seed is not None:
            config.game.map_builder.seed = SEED + seed  # pyright: ignore[reportAttributeAccessIssue]
        simulator = Simulator()
        simulator.add_event_handler(StatsTracker(NoopStatsWriter()))
        simulator.add_event_handler(EarlyResetHandler())
        env = MettaGridPufferEnv(simulator, config, buf=buf, seed=seed or 0)
        set_buffers(env, buf)
        return env

    backend: Any = vector.Serial
    vecenv = vector.make(make_env, num_envs=4, num_workers=1, batch_size=4, backend=backend)
    network = TutorialPolicyNet(PolicyEnvInterface.from_mg_cfg(game))
    trainer = pufferl.PuffeRL({**TRAIN_CONFIG, "data_dir": str(data_dir)}, vecenv, network)
    losses = []
    for _ in range(updates):
        trainer.evaluate()
        trainer.last_log_time = 0  # so that every update's losses can be seen, whatever the clock says
        trainer.train()
        losses.append(dict(trainer.losses))
    vecenv.close()
    return losses, network.state_dict()


def losses_of_ours(updates: int) -> tuple[Updates, dict[str, torch.Tensor]]:
    """The same of `experiment=notebook`, as train.py builds it."""
    experiment = compose_experiment("experiment=notebook", "device=cpu")
    trainer = build(experiment, make_game(experiment.mission), "cpu")
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
