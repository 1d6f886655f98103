"""Proves a bundle before it is sent: it says what evaluate.py's network says, and plays as on the server."""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mettagrid.config.mettagrid_config import MettaGridConfig
from mettagrid.simulator import Simulation
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from scout.environment import evaluation_map_seed, with_map_seed
from scout.errors import ScoutError
from scout.playing import play_all
from scout.policies import NetworkPolicy
from scout.submission.bundle import Bundle

log = logging.getLogger(__name__)

ALONE = Path(__file__).resolve().parent / "alone"
RECORDED = 128  # steps of an episode whose observations the bundle has to answer
TOLERANCE = 1e-4  # of logits: the bundle takes torch's own layers, one agent at a time, and rounds otherwise
START_SECONDS = 300  # that a process for each agent may take to start, as cogames allows
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

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


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
    agents, steps = game.game.num_agents, game.game.max_steps
    found: list[dict[str, Any]] = []

    def heard(line: str) -> None:
        found.append(json.loads(line))
        log.info("Episode %d of %d: %.2f per agent", len(found), episodes, np.mean(found[-1]["returns"]))

    with tempfile.TemporaryDirectory(prefix="scout-proof-") as name:
        folder = Path(name)
        np.save(folder / "observations.npy", observations)
        job = {
            "bundle": str(bundle.path.resolve()),
            "observations": str(folder / "observations.npy"),
            "outputs": str(folder / "outputs.npz"),
            "games": [json.loads(game.model_dump_json()) for game in games],
            "action_timeout_ms": action_timeout_ms,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        patience = START_SECONDS + episodes * (START_SECONDS + steps * agents * action_timeout_ms / 1000)
        log.info("Playing %d episodes of %s, each agent in a process of its own", episodes, game.label)
        run_alone([str(ALONE / "play.py"), str(folder / "job.json")], folder, log_path, patience, heard)
        with np.load(folder / "outputs.npz") as outputs:
            logits, seconds = outputs["logits"], outputs["seconds"]
    difference = float(np.abs(logits - expected).max())
    if not difference <= TOLERANCE:
        raise ScoutError(
            f"{bundle.path} says something else than evaluate.py's network: logits differ by up to {difference:.3g}, "
            f"expected at most {TOLERANCE:g}. Do not send it; a network of one's own must give in single steps of one "
            "agent what it gives for all"
        )
    evaluated = play_all(policy, games[0], seed, episodes, 8, None)
    times = 1000 * seconds
    return Proof(
        largest_difference=difference,
        answers=logits.shape[0] * logits.shape[1],
        milliseconds={
            "median": float(np.median(times)),
            "percentile_99": float(np.percentile(times, 99)),
            "largest": float(times.max()),
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


def show(proof: Proof, action_timeout_ms: int) -> None:
    """Prints a proof: an episode a line, and what the server would say of late actions."""
    table = Table("map", "steps", "bundle", "evaluate.py", "late actions", box=box.SIMPLE_HEAD, title_justify="left")
    for episode in proof.episodes:
        returns = f"{episode.bundle_return:.2f}", f"{episode.evaluate_return:.2f}"
        table.add_row(str(episode.map_seed), str(episode.steps), *returns, str(sum(episode.timeouts)))
    Console().print(table)
    times = proof.milliseconds
    log.info(
        "Its %d answers differ from evaluate.py's by at most %.2g; a step of an agent takes %.1f ms (99%%: %.1f, "
        "largest: %.1f)",
        *(proof.answers, proof.largest_difference, times["median"], times["percentile_99"], times["largest"]),
    )
    late = np.sum([episode.timeouts for episode in proof.episodes], axis=0)
    for agent in np.flatnonzero(late):
        log.warning(
            "agent %d was late %d times in %d steps: after %d ms the server takes noop instead",
            *(agent, late[agent], sum(episode.steps for episode in proof.episodes), action_timeout_ms),
        )


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


def run_alone(
    arguments: Sequence[str],
    folder: Path,
    log_path: Path,
    patience: float,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Runs `python arguments...` in a folder, without the project and without what training alone needs.

    `on_line` takes each line that it prints. Raises ScoutError when it fails or takes longer than `patience` seconds,
    with the reason; then all that it said is in `log_path`. No process that it started outlives the call.
    """
    variables = {
        "PYTHONPATH": str(ALONE),
        "TMPDIR": str(folder),
        # A virtual environment for each agent, as cogames makes by default, would be installed from the network.
        "EPISODE_RUNNER_USE_ISOLATED_VENVS": os.environ.get("EPISODE_RUNNER_USE_ISOLATED_VENVS", "0"),
    }
    with log_path.open("w+", encoding="utf-8", errors="backslashreplace") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_line else said,
            stderr=said,
            text=True,
            start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(patience, lambda: (late.set(), _kill(process)))
        timer.start()
        try:
            for line in process.stdout or ():
                assert on_line is not None
                on_line(line)
            code = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
        said.seek(0)
        text = said.read()
    if late.is_set():
        raise ScoutError(f"The bundle was not done after {patience:.0f} s, and was ended: {log_path} has what it said")
    if code != 0:
        raise ScoutError(f"The bundle fails as it would on the server: {_reason(text, code)}\nAll of it: {log_path}")


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends the process and all that it started, which are a group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _reason(text: str, code: int) -> str:
    """The error that a bundle's processes ended by: the last one that is not another one's consequence."""
    errors = [line.strip() for line in text.splitlines() if re.match(r"^\s*[\w.]*(Error|Exception|Exit)\b", line)]
    causes = [line for line in errors if not re.search(r"episode_subprocess failed|ConnectionClosed|PolicyStep", line)]
    last = text.strip().splitlines()[-1:] or [f"it left with {code} and said nothing"]
    return (causes or errors or last)[-1]
