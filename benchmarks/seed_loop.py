"""The seed notebook's own loop, written anew from its settings: plain PuffeRL, cogames' mission and network.

It is what `experiment=notebook` is held equal to (tests) and compared with (speed.py). With COGAMES_NUM_ENVS and
COGAMES_OVERRIDES it is the loop of `cogames train -p class=tutorial` with its default settings on a CPU.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cogames.cogs_vs_clips.scout_tutorial import ScoutTutorialMission
from cogames.policy.tutorial_policy import TutorialPolicyNet
from mettagrid.envs.early_reset_handler import EarlyResetHandler
from mettagrid.envs.mettagrid_puffer_env import MettaGridPufferEnv
from mettagrid.envs.stats_tracker import StatsTracker
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulator
from mettagrid.util.stats_writer import NoopStatsWriter
from pufferlib import pufferl, vector
from pufferlib.pufferlib import set_buffers

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
# `cogames train` takes 256 environments, serial ones on a CPU, and raises its batch to one segment of each agent.
COGAMES_NUM_ENVS = 256
COGAMES_OVERRIDES: dict[str, Any] = {
    "total_timesteps": 10_000_000_000,
    "batch_size": COGAMES_NUM_ENVS * 4 * 64,
    "checkpoint_interval": 200,
}


def make_trainer(data_dir: Path, num_envs: int = 4, overrides: dict[str, Any] | None = None) -> Any:
    """A fresh PuffeRL as the notebook makes it; its generators are seeded first, which the notebook leaves out.

    `overrides` go over TRAIN_CONFIG.
    """
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
    vecenv = vector.make(make_env, num_envs=num_envs, num_workers=1, batch_size=num_envs, backend=backend)
    network = TutorialPolicyNet(PolicyEnvInterface.from_mg_cfg(game))
    return pufferl.PuffeRL({**TRAIN_CONFIG, **(overrides or {}), "data_dir": str(data_dir)}, vecenv, network)


def diverged(trainer: Any) -> bool:
    """The notebook's check after each update."""
    return any(
        (parameter.grad is not None and not parameter.grad.isfinite().all()) or not parameter.isfinite().all()
        for parameter in trainer.policy.parameters()
    )
