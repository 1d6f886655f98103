"""The proof of a bundle: it plays in processes without the project, and what is wrong with it is told."""

import zipfile
from pathlib import Path
from typing import Any

import evaluation_helpers
import pytest
from conftest import tiny_experiment
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from own_builder import OwnConfig

from scout.config import MissionConfig
from scout.errors import ScoutError
from scout.mission import make_game
from scout.model_config import ConvConfig, Model
from scout.policies import NetworkPolicy
from scout.submission import proof
from scout.submission.alone import _reason, hidden_packages
from scout.submission.bundle import write_bundle
from scout.submission.proof import PlayedEpisode, Proof, prove, show

GAME = make_game(MissionConfig(num_agents=1, max_steps=160))
ENV_INFO = PolicyEnvInterface.from_mg_cfg(GAME)


TRACEBACK = "Traceback (most recent call last):\n  File x\n    y\n"
LOST = "RuntimeError: episode_subprocess failed (exit 1)\n"


def network_of(model: Model, seed: int = 1) -> Any:
    """A network whose actions depend on what it sees."""
    return evaluation_helpers.network_of(seed, model, ENV_INFO)


def own(**options: Any) -> Model:
    """A network of one's own, with a fault."""
    return ConvConfig(target="own_network.OwnNetwork", options=options, hidden_size=8)


def proven(folder: Path, model: Model, greedy: bool = False, played: Any = None, action_timeout_ms: int = 250) -> Proof:
    """Proves the bundle of a network against a policy: the same network, or `played`."""
    bundle = write_bundle(folder / "bundle.zip", model, network_of(model), greedy)
    policy = NetworkPolicy("judged", played or network_of(model), "cpu", greedy)
    return prove(
        *(bundle, policy, GAME),
        seed=0,
        episodes=1,
        action_timeout_ms=action_timeout_ms,
        log_path=folder / "proof.log",
    )


def test_a_greedy_bundle_plays_its_maps_exactly_as_evaluate_does(tmp_path: Path) -> None:
    """The whole way through mettagrid's loader, server and rollout gives the same return, and the same answers."""
    found = proven(tmp_path, tiny_experiment().model, greedy=True)
    assert found.answers == 128
    assert found.largest_difference < 1e-5
    (episode,) = found.episodes
    assert (episode.steps, episode.timeouts) == (160, [0])
    assert episode.bundle_return == pytest.approx(episode.evaluate_return, rel=1e-6)
    assert episode.bundle_return > 0


def test_a_bundle_of_other_weights_is_refused(tmp_path: Path) -> None:
    """Where its answers are not those of the network that was judged, the message gives the difference."""
    model = tiny_experiment().model
    with pytest.raises(ScoutError, match=r"says something else than evaluate.py's network: logits differ by up to \d"):
        proven(tmp_path, model, played=network_of(model, seed=2))


def test_what_cogames_does_not_require_is_hidden() -> None:
    """Training's packages and the tools of development are; what a server has to have is not, nor the bundle's own."""
    hidden = set(hidden_packages())
    assert hidden >= {"hydra", "omegaconf", "wandb", "numba", "matplotlib", "optuna", "pytest"}
    assert not hidden & {"torch", "numpy", "pydantic", "mettagrid", "cogames", "einops", "scipy", "scout"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("from_step", "fault", "reason"),
    [
        (0, "imports", "ModuleNotFoundError: No module named 'hydra': a bundle has to do without it"),
        (0, "raises", "KeyError: 'the fault of this network'"),
        (140, "raises", "KeyError: 'the fault of this network'"),  # in mid-episode, in an agent's own process
    ],
)
def test_an_error_of_the_bundle_is_told_as_the_server_would_see_it(
    from_step: int, fault: str, reason: str, tmp_path: Path
) -> None:
    """The message has the error itself, names the log, and the log has the traceback."""
    healthy = network_of(own())
    with pytest.raises(ScoutError) as caught:
        proven(tmp_path, own(from_step=from_step, fault=fault), played=healthy)
    assert str(caught.value).splitlines() == [
        f"The bundle fails as it would on the server: {reason}",
        f"All that it said: {tmp_path / 'proof.log'}",
    ]
    assert "own_network.py" in (tmp_path / "proof.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("from_step", [0, 140])
def test_a_bundle_that_hangs_is_ended(from_step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its first step or in mid-episode, after a time that depends on how fast it was before."""
    monkeypatch.setattr(proof, "START_SECONDS", 12)
    with pytest.raises(ScoutError, match=r"The bundle fails as it would on the server: nothing came for \d+ s"):
        proven(tmp_path, own(from_step=from_step, fault="hangs"), played=network_of(own()), action_timeout_ms=20)


@pytest.mark.slow
def test_a_network_may_print(tmp_path: Path) -> None:
    """What it prints goes into the log, and is taken for no answer."""
    found = proven(tmp_path, own(fault="prints"), played=network_of(own()))
    assert found.episodes[0].steps == 160
    assert "a network may say something" in (tmp_path / "proof.log").read_text()


@pytest.mark.slow
def test_a_mission_of_this_machine_alone_is_told_apart_from_a_fault_of_the_bundle(tmp_path: Path) -> None:
    """A map builder that no server has: the message says that it is the mission."""
    game = GAME.model_copy(deep=True)
    game.game.map_builder = OwnConfig()
    model = tiny_experiment().model
    bundle = write_bundle(tmp_path / "bundle.zip", model, network_of(model), greedy=False)
    policy = NetworkPolicy("judged", network_of(model), "cpu", greedy=False)
    reason = r"ValueError: the mission needs what only this machine has \(.*own_builder.*\): choose mission=NAME"
    with pytest.raises(ScoutError, match=reason):
        prove(bundle, policy, game, seed=0, episodes=1, action_timeout_ms=250, log_path=tmp_path / "proof.log")


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        (f"{TRACEBACK}MyFault: the reason\n{LOST}", 1, "MyFault: the reason"),
        (f"{TRACEBACK}RuntimeError: in loading:\n\tsize mismatch\n", 1, "RuntimeError: in loading: size mismatch"),
        (LOST, 1, LOST.strip()),
        ("No entry config found for season\n", 1, "No entry config found for season"),
        ("  warnings.warn(\n", -9, "it was ended by SIGKILL, as a system does that has no more memory"),
        ("", 3, "it left with 3 and said nothing"),
    ],
)
def test_the_reason_is_the_last_error_that_is_no_consequence(text: str, code: int, expected: str) -> None:
    """Of all that the processes said, and of how they ended."""
    assert _reason(text, code) == expected


@pytest.mark.slow
def test_late_actions_are_counted_as_on_the_server(tmp_path: Path) -> None:
    """Each action that takes 50 ms where 20 are allowed counts, and stands for a noop."""
    found = proven(tmp_path, own(from_step=0, fault="is_slow"), played=network_of(own()), action_timeout_ms=20)
    assert found.episodes[0].timeouts == [160]
    assert found.milliseconds["median"] > 50


@pytest.mark.parametrize(("late", "sent"), [(16, True), (17, False)])
def test_a_scout_that_is_mostly_late_is_not_sent(late: int, sent: bool) -> None:
    """A tenth of its actions may be noops on the server; with more it is not what was trained, and that is told."""
    times = {"median": 1.0, "percentile_99": 1.0, "largest": 1.0}
    found = Proof(0.0, 1, times, [PlayedEpisode(0, 80, 1.0, 1.0, [late, 0])])
    if sent:
        show(found, greedy=True, action_timeout_ms=250)
    else:
        with pytest.raises(ScoutError, match=r"^17 of 160 actions came after 250 ms, .*: too many to send it"):
            show(found, greedy=True, action_timeout_ms=250)


@pytest.mark.slow
def test_a_bundle_whose_code_is_incomplete_fails(tmp_path: Path) -> None:
    """A module that is not in the zip is not found elsewhere, though the project is installed here."""
    model = tiny_experiment().model
    whole = write_bundle(tmp_path / "whole.zip", model, network_of(model), greedy=False)
    with zipfile.ZipFile(whole.path) as archive, zipfile.ZipFile(tmp_path / "part.zip", "w") as part:
        for name in archive.namelist():
            if name != "scout/observation.py":
                part.writestr(name, archive.read(name))
    whole.path.unlink()
    (tmp_path / "part.zip").rename(whole.path)
    policy = NetworkPolicy("judged", network_of(model), "cpu", greedy=False)
    with pytest.raises(ScoutError, match=r"ModuleNotFoundError: No module named 'scout.observation'"):
        prove(whole, policy, GAME, seed=0, episodes=1, action_timeout_ms=250, log_path=tmp_path / "proof.log")
