"""A trainer with its environments and its network, from a typed experiment."""

import logging
from typing import Any

from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from scout.checkpoint import load_into, load_weights
from scout.config import Experiment
from scout.device import seed_everything
from scout.environment import Turns
from scout.errors import ScoutError
from scout.excursions import make_excursions
from scout.mission import make_games
from scout.models import make_model, set_fast_layers
from scout.ppo import PPO
from scout.rank_state import own_state
from scout.ranks import ALONE, Ranks
from scout.state import NOT_FITTING, restore
from scout.trainer import StockTrainer
from scout.vecenv import make_vecenv

log = logging.getLogger(__name__)

TRAINERS = {"pufferl": StockTrainer, "ppo": PPO}


def build(
    experiment: Experiment, game: Any, device: str, state: dict[str, Any] | None = None, ranks: Ranks = ALONE
) -> StockTrainer:
    """Environments, network and trainer, in the order in which the seed notebook draws its random numbers.

    With a `state` (state.py) they go on from there; it is that of all ranks. Raises ScoutError when it does not fit.
    """
    try:
        own = None if state is None else own_state(state, ranks, experiment.vecenv.num_envs)
        return _build(experiment, game, device, own, ranks)
    except NOT_FITTING as error:
        if state is None:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScoutError(
            f"the checkpoint of update {state['update']} does not fit the run's config: {reason}. "
            "It is another run's, or damaged: remove it to resume from the one before"
        ) from error


def _build(experiment: Experiment, game: Any, device: str, state: dict[str, Any] | None, ranks: Ranks) -> StockTrainer:
    seed_everything(experiment.seed)
    games = make_games(experiment, game)
    turns = Turns(len(games), experiment.curriculum.episodes, experiment.curriculum.stagger)
    vecenv = make_vecenv(experiment.vecenv, games, experiment.seed, state and state["environments"], ranks, turns)
    try:
        env_info = PolicyEnvInterface.from_mg_cfg(game)
        network = make_model(experiment.model, env_info).to(device)
        set_fast_layers(network, experiment.device.fast_layers)
        if experiment.initial_weights is not None and state is None:
            weights = load_weights(experiment.initial_weights)
            load_into(network, weights)
            log.info("Starting from the weights of %s", weights.path)
        trainer = TRAINERS[experiment.trainer.name](experiment, device, vecenv, network, ranks)
        trainer.games = games
        if isinstance(trainer, PPO):
            trainer.excursions = make_excursions(experiment.trainer, env_info, trainer.total_agents, device, ranks)
        if state is not None:
            restore(trainer, state)
        return trainer
    except BaseException:
        vecenv.close()
        raise
