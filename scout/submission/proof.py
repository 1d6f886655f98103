"""Proves a bundle before it is sent: it says what evaluate.py's network says, and plays as on the server."""

import json
import logging
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation
from numpy.typing import NDArray
from pydantic_core import PydanticSerializationError
from rich import box
from rich.console import Console
from rich.table import Table

from scout.environment import evaluation_map_seed, with_map_seed
from scout.errors import ScoutError
from scout.playing import play_all
from scout.policies import NetworkPolicy
from scout.submission.alone import ON_SERVER, Alone
from scout.submission.bundle import Bundle
from scout.submission.upload import Leaderboard, Season

log = logging.getLogger(__name__)

RECORDED = 128  # steps of an episode whose observations the bundle has to answer
TOLERANCE = 1e-4  # of logits: the bundle takes torch's own layers, one agent at a time, and rounds otherwise
START_SECONDS = 300  # that a process for each agent may take to start, as cogames allows
MOST_LATE = 0.1  # of the actions
LOG = "proof.log"


@dataclass(frozen=True)
class PlayedEpisode:
    """One whole episode, and the same map under evaluate.py."""

    map_seed: int
    steps: int
    bundle_return: float
    """Mean return per agent."""
    evaluate_return: float
    timeouts: list[int]
    """Actions of each agent that came too late, and that the server replaces by noop."""


@dataclass(frozen=True)
class Proof:
    """What was seen of a bundle."""

    largest_difference: float
    """Between its logits and those of evaluate.py's network on the same observations."""
    answers: int
    """How many were compared."""
    milliseconds: dict[str, float]
    """Of a step of one agent: median, percentile_99 and largest."""
    episodes: list[PlayedEpisode]


def prove(
    bundle: Bundle,
    policy: NetworkPolicy,
    game: MettaGridConfig,
    *,
    seed: int,
    episodes: int,
    action_timeout_ms: int,
    log_path: Path,
) -> Proof:
    """Plays the bundle in processes of its own, and compares it with the policy that evaluate.py plays.

    Raises ScoutError when it fails there, hangs, or says something else; `log_path` then has all that it said.
    """
    observations = recorded(policy, game, seed)
    expected = answers(policy, observations)
    games = [with_map_seed(game, evaluation_map_seed(seed, episode)) for episode in range(episodes)]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scout-proof-") as name:
        folder = Path(name)
        np.save(folder / "observations.npy", observations)
        log.info("Playing it on %s, each agent in a process of its own", game.label)
        files = {"observations": str(folder / "observations.npy"), "outputs": str(folder / "outputs.npz")}
        command = _player(folder, bundle, [_as_json(one) for one in games], action_timeout_ms, **files)
        with Alone(command, folder, log_path, "The bundle fails as it would on the server") as player:
            player.line(START_SECONDS + expected[..., 0].size * action_timeout_ms / 1000)
            with np.load(folder / "outputs.npz") as outputs:
                logits, milliseconds = outputs["logits"], 1000 * outputs["seconds"]
            difference = float(np.abs(logits - expected).max())
            if not difference <= TOLERANCE:
                raise ScoutError(
                    f"{bundle.path} says something else than evaluate.py's network: logits differ by up to "
                    f"{difference:.3g}, expected at most {TOLERANCE:g}. Do not send it; a network of one's own must "
                    "give for one agent and step what it gives for several"
                )
            # What hangs is ended long before all actions of an episode could be late.
            actions = game.game.max_steps * game.game.num_agents
            patience = START_SECONDS + 10 * actions * milliseconds.mean() / 1000
            for episode in range(episodes):
                found.append(json.loads(player.line(patience)))
                log.info("Episode %d: %.2f per agent", episode, np.mean(found[-1]["returns"]))
            player.finish(START_SECONDS)
    evaluated = play_all(policy, games[0], seed, episodes, 8, None)
    return Proof(
        largest_difference=difference,
        answers=milliseconds.size,
        milliseconds={
            "median": float(np.median(milliseconds)),
            "percentile_99": float(np.percentile(milliseconds, 99)),
            "largest": float(milliseconds.max()),
        },
        episodes=[
            PlayedEpisode(
                map_seed=evaluation_map_seed(seed, number),
                steps=played["steps"],
                bundle_return=float(np.mean(played["returns"])),
                evaluate_return=episode.record["return"],
                timeouts=played["timeouts"],
            )
            for number, (played, episode) in enumerate(zip(found, evaluated, strict=True))
        ],
    )


def show(proof: Proof, greedy: bool, action_timeout_ms: int) -> None:
    """Prints a proof: an episode a line, and what the server would say of late actions.

    Raises ScoutError where too many are late for the scout to be what was trained.
    """
    table = Table("episode", "steps", "bundle", "evaluate.py", "late actions", box=box.SIMPLE_HEAD)
    for number, episode in enumerate(proof.episodes):
        returns = f"{episode.bundle_return:.2f}", f"{episode.evaluate_return:.2f}"
        table.add_row(str(number), str(episode.steps), *returns, str(sum(episode.timeouts)))
    Console().print(table)
    times = proof.milliseconds
    log.info(
        "Its %d answers differ from evaluate.py's by at most %.2g; a step of an agent takes %.1f ms (99%%: %.1f, "
        "largest: %.1f)",
        *(proof.answers, proof.largest_difference, times["median"], times["percentile_99"], times["largest"]),
    )
    if not greedy:
        log.info("Its actions are sampled, so that returns on a map differ from one time to the next; answers do not")
    late = np.sum([episode.timeouts for episode in proof.episodes], axis=0)
    actions = late.size * sum(episode.steps for episode in proof.episodes)
    said = f"{late.sum()} of {actions} actions came after {action_timeout_ms} ms, where the server takes noop instead"
    if late.sum() > MOST_LATE * actions:
        raise ScoutError(f"{said}: too many to send it. Try again when this machine is idle, or take a smaller network")
    if late.any():
        log.warning("%s; by agent: %s", said, ", ".join(map(str, late)))


def recorded(policy: NetworkPolicy, game: MettaGridConfig, seed: int) -> NDArray[np.uint8]:
    """What all agents see in the first steps of an episode that the policy plays: uint8 [steps, agents, T, 3]."""
    simulation = Simulation(with_map_seed(game, evaluation_map_seed(seed, 0)), seed=0)
    policy.begin([simulation], [np.random.default_rng((seed, 0))])
    seen = []
    while len(seen) < RECORDED and not simulation.is_done():
        seen.append(simulation._c_sim.observations().copy())
        policy.act()
        simulation.step()
    simulation.close()
    return np.stack(seen)


@torch.inference_mode()
def answers(policy: NetworkPolicy, observations: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits float32 [steps, agents, actions] of the policy's network, from a zero state on."""
    network: Any = policy.network
    zeros = torch.zeros(observations.shape[1], network.hidden_size)
    state = {"lstm_h": zeros, "lstm_c": zeros.clone()}
    return np.stack([network.forward_eval(torch.from_numpy(tokens), state)[0].numpy() for tokens in observations])


def validate(bundle: Bundle, leaderboard: Leaderboard, season: Season, log_path: Path) -> None:
    """Plays the first steps of the season's mission by `cogames validate-bundle`, which asks the server for it.

    Raises ScoutError when it fails; `log_path` then has all that it said.
    """
    log.info("Validating it on the mission of season %s", season.name)
    failure = f"The bundle fails on the mission of season {season.name}"
    with tempfile.TemporaryDirectory(prefix="scout-proof-") as name:
        folder = Path(name)
        with zipfile.ZipFile(bundle.path) as archive:
            archive.extractall(folder / "bundle")  # of a zip cogames would keep a copy for good
        command = ["-m", "cogames", "validate-bundle", "--policy", (folder / "bundle").as_uri()]
        command += ["--server", leaderboard.server, "--season", season.name]
        try:
            with Alone(command, folder, log_path, failure) as validation:
                validation.finish(2 * START_SECONDS)
        except ScoutError:
            mission = leaderboard.mission(season)
            mission["game"]["max_steps"] = 10  # as many as cogames validates
            with Alone(_player(folder, bundle, [mission]), folder, log_path, failure) as player:
                player.finish(2 * START_SECONDS)  # it fails as well, but says why
            raise


def _as_json(game: MettaGridConfig) -> Any:
    try:
        return json.loads(game.model_dump_json())
    except PydanticSerializationError as error:
        raise ScoutError(
            f"{game.label} cannot be written down for the bundle's processes ({error}): choose another mission=NAME"
        ) from error


def _player(folder: Path, bundle: Bundle, games: list[Any], action_timeout_ms: int = 10_000, **files: str) -> list[str]:
    """The command that plays a bundle, in a folder of its own (on_server/play.py)."""
    job = {"bundle": str(bundle.path.resolve()), "games": games, "action_timeout_ms": action_timeout_ms, **files}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return [str(ON_SERVER / "play.py"), str(folder / "job.json")]
