"""A small game, network and policies for the tests of rollouts and evaluations."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from conftest import tiny_experiment
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator import Simulation
from torch import Tensor, nn

from scout.checkpoint import save_checkpoint
from scout.config import Experiment, MissionConfig
from scout.environment import with_map_seed
from scout.evaluation_config import EvaluationConfig
from scout.mission import make_game
from scout.model_config import Model
from scout.models import make_model
from scout.playing import play_all
from scout.policies import NetworkPolicy, NoopPolicy, Policy, RandomPolicy

STEPS = 40
GAME = make_game(MissionConfig(max_steps=STEPS))
ENV_INFO = PolicyEnvInterface.from_mg_cfg(GAME)
TINY_MODEL = tiny_experiment().model


def network_of(seed: int, model: Model = TINY_MODEL, env_info: PolicyEnvInterface = ENV_INFO) -> nn.Module:
    """A small network whose actions depend strongly on what it sees and remembers."""
    torch.manual_seed(seed)
    network = make_model(model, env_info)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    return network


def observed(steps: int = 12) -> Tensor:
    """Real observations uint8 [4 agents, steps, 200, 3] under random moves."""
    simulation = Simulation(with_map_seed(GAME, 5), seed=1)
    generator = np.random.default_rng(0)
    seen = []
    for _ in range(steps):
        seen.append(simulation._c_sim.observations().copy())
        simulation._c_sim.actions()[:] = generator.integers(5, size=4)
        simulation.step()
    return torch.from_numpy(np.stack(seen, axis=1))


def policy_of(kind: str) -> Policy:
    """A fresh policy of a kind: random, noop, or a network whose actions are sampled or greedy."""
    if kind in ("random", "noop"):
        return RandomPolicy() if kind == "random" else NoopPolicy()
    return NetworkPolicy(kind, network_of(1), "cpu", greedy=kind == "greedy")


def config_of(**changes: Any) -> EvaluationConfig:
    """A short evaluation of random play with some keys changed."""
    base: dict[str, Any] = {
        "policy": "random",
        "episodes": 3,
        "parallel": 2,
        "processes": 1,
        "mission": {"max_steps": 20},
        "device": {"name": "cpu"},
    }
    if "checkpoint" in changes:
        base["policy"] = None
    return EvaluationConfig.model_validate(base | changes)


def records(policy: Policy, game: MettaGridConfig = GAME, seed: int = 0, episodes: int = 3, **spread: Any) -> list[Any]:
    """What is recorded of each of the episodes that a policy plays, in this process unless `processes` says more."""
    return [episode.record for episode in play_all(policy, game, seed, episodes, **{"processes": 1, **spread})]


def run_folder(run_dir: Path, experiment: Experiment, network: nn.Module) -> Path:
    """What an evaluation needs of a run: its config and one checkpoint."""
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(yaml.safe_dump(experiment.model_dump()))
    save_checkpoint(run_dir, {"model": network.state_dict(), "agent_steps": 256}, update=1, keep=3)
    return run_dir
