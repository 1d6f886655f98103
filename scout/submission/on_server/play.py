"""Plays a bundle as a leaderboard's server would: `python play.py JOB.json`, in an empty folder.

Imports nothing of the project. The bundle is unpacked and loaded by mettagrid's own loader. First its agents answer
recorded observations, then each episode runs as cogames' episode runner runs it, an agent a process.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from mettagrid.base_config import LENIENT_CONTEXT
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.policy.loader import initialize_or_load_policy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.prepare_policy_spec import load_policy_spec_from_path
from mettagrid.runner.episode_runner import run_episode_isolated
from mettagrid.runner.rollout import run_episode_local
from mettagrid.runner.types import EpisodeSpec
from mettagrid.simulator import AgentObservation, ObservationToken
from numpy.typing import NDArray
from torch import Tensor


def main(job: dict[str, Any]) -> None:
    """Writes `outputs` (logits float32 [steps, agents, actions] and seconds [steps, agents]), and prints that it did.

    Then it prints a line of JSON for each episode. Without `observations` it begins with the episodes.
    """
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a network prints is no answer
    try:
        games = [MettaGridConfig.model_validate(game, context=LENIENT_CONTEXT) for game in job["games"]]
    except Exception as error:
        raise ValueError(f"the mission needs what only this machine has ({error}): choose mission=NAME") from error
    unpacked = Path("bundle").resolve()
    spec = load_policy_spec_from_path(Path(job["bundle"]), force_dest=unpacked)
    env_info = PolicyEnvInterface.from_mg_cfg(games[0])
    policy: Any = initialize_or_load_policy(env_info, spec, device_override="cpu")
    if "observations" in job:
        called = "forward_eval" if spec.class_path == "scout.policy.ScoutPolicy" else "forward"
        logits, seconds = answers(policy, called, env_info, np.load(job["observations"]))
        np.savez(job["outputs"], logits=logits, seconds=seconds)
        print("answered", file=told, flush=True)
    for episode, game in enumerate(games):
        said = EpisodeSpec(
            policy_uris=[unpacked.as_uri()],
            assignments=[0] * env_info.num_agents,
            env=game,
            seed=episode,
            max_action_time_ms=job["action_timeout_ms"],
        )
        try:
            result = run_episode_isolated(said, Path("result.json").resolve())
        except RuntimeError:  # an agent's process has died, and mostly took its reason with it: here it is told
            run_episode_local(policy_specs=[spec], assignments=said.assignments, env=game, seed=episode, device="cpu")
            raise
        line = {"returns": result.rewards, "timeouts": result.action_timeouts, "steps": result.steps}
        print(json.dumps(line), file=told, flush=True)


def answers(
    policy: Any, called: str, env_info: PolicyEnvInterface, observations: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """What the network says when the agents are shown tokens uint8 [steps, agents, T, 3], and how long that took.

    `called` is the method of the network that the policy calls.
    """
    said: list[NDArray[np.float32]] = []
    network = policy.network()
    own = getattr(network, called)

    def listening(*arguments: Any) -> tuple[Tensor, Tensor]:
        logits, values = own(*arguments)
        said.append(logits.detach().float().cpu().numpy()[0])
        return logits, values

    setattr(network, called, listening)
    features = {int(feature.id): feature for feature in env_info.obs_features}
    agents = [policy.agent_policy(agent) for agent in range(observations.shape[1])]
    for agent in agents:
        agent.reset()
    seconds = np.zeros(observations.shape[:2])
    for step, of_all in enumerate(observations):
        for agent, tokens in enumerate(of_all):
            seen = [(int(place), int(feature), int(value)) for place, feature, value in tokens if place != 0xFF]
            listed = [ObservationToken(feature=features[token[1]], value=token[2], raw_token=token) for token in seen]
            start = time.perf_counter()
            agents[agent].step(AgentObservation(agent_id=agent, tokens=listed))
            seconds[step, agent] = time.perf_counter() - start
    return np.reshape(said, (*observations.shape[:2], -1)), seconds


def follow(parent: int) -> None:
    """Ends this process and all that it started, which are a group, when its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=follow, args=(os.getppid(),), daemon=True).start()
    logging.basicConfig(level=logging.WARNING)  # what a policy's server said, when it failed
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
