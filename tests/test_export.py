"""`python -m scout.export`: a trained network as one file, as others play it."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cogames.game import save_mission_config
from conftest import ROOT, TINY, run_script, tiny_experiment
from evaluation_helpers import ENV_INFO, observed, run_folder
from torch import Tensor, nn

from scout.config import DeviceConfig, MissionConfig
from scout.contestants import make_contestants
from scout.errors import ScoutError
from scout.evaluation_config import EvaluationConfig
from scout.mission import make_game
from scout.model_config import ConvConfig
from scout.models import make_model
from scout.policies import NetworkPolicy
from scout.policy import ScoutPolicy
from scout.pretrained import PRETRAINED
from scout.submission import torchscript
from scout.submission.formats import export
from scout.submit_config import ExportConfig

SIZES: dict[str, Any] = {"embedding_size": 6, "features": 20, "global_features": 18, "hidden_size": 16}
CONV = {"name": "conv", "conv_channels": [7, 8], **SIZES}
ATTENTION = {"name": "attention", "token_features": 12, "heads": 3, **SIZES}
MODELS: dict[str, dict[str, Any]] = {
    "cnn_lstm": {"name": "cnn_lstm", **TINY["model"]},
    "conv": CONV,
    "conv_lstm": {**CONV, "memory": "lstm", "turned_views": False},
    "conv_memoryless": {**CONV, "memory": "none"},
    "attention": ATTENTION,
    "attention_lstm": {**ATTENTION, "memory": "lstm", "turned_views": False},
}
COGAMES_EVAL = ("-m", "cogames", "eval", "-m", "cogsguard_arena.scout_tutorial", "-e", "1", "-s", "20")


def run_of(kind: str, folder: Path, **changes: Any) -> str:
    """A run folder whose network says something plainly different on each observation."""
    experiment = tiny_experiment(model=MODELS[kind], **changes)
    torch.manual_seed(1)
    network = make_model(experiment.model, ENV_INFO)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2).add_(0.05 * torch.randn(parameter.shape))
    return str(run_folder(folder / "run", experiment, network))


def exported(checkpoint: str, output: Path, **changes: Any) -> Path:
    return export(ExportConfig(checkpoint=checkpoint, output=str(output), **changes))


def evaluated(checkpoint: str) -> Any:
    """The network that `python evaluate.py checkpoint=...` plays."""
    device = DeviceConfig(name="cpu", precision="float32")
    ((contestant,), _, _) = make_contestants(EvaluationConfig(checkpoint=checkpoint, device=device))
    assert isinstance(contestant.policy, NetworkPolicy)
    return contestant.policy.network


@torch.no_grad()
def answers(network: Any, observations: Tensor, h: Tensor, c: Tensor) -> list[tuple[Tensor, ...]]:
    """Logits, values and the state after each step, on [rows, steps, T, 3] and from a state [rows, hidden] each."""
    state, said = {"lstm_h": h, "lstm_c": c}, []
    for tokens in observations.unbind(1):
        logits, values = network.forward_eval(tokens, state)
        said.append((logits, values, state["lstm_h"].flatten(1), state["lstm_c"].flatten(1)))
    return said


# -- .safetensors and .pt ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_the_policy_of_a_safetensors_says_what_evaluate_says(kind: str, observations: Tensor, tmp_path: Path) -> None:
    """Read back by ScoutPolicy from the file alone, any network gives evaluate.py's logits to 1e-4, step by step."""
    run = run_of(kind, tmp_path)
    policy = ScoutPolicy(ENV_INFO)
    policy.load_policy_data(str(exported(run, tmp_path / "scout.safetensors")))
    found, expected = (
        torch.stack([step[0] for step in answers(network, observations, torch.zeros(4, 16), torch.zeros(4, 16))])
        for network in (policy.network(), evaluated(run))
    )
    assert expected.std(dim=(0, 1)).min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_the_same_network_is_the_same_bytes(ending: str, tmp_path: Path) -> None:
    """Exported twice, under another name and over the first file, the seed's network is the same file each time."""
    first, other = tmp_path / f"first.{ending}", tmp_path / f"other.{ending}"
    contents = [
        exported("pretrained/cnn_lstm", path, overwrite=path.exists()).read_bytes() for path in (first, other, first)
    ]
    assert contents == [contents[0]] * 3


def test_a_pt_is_the_bare_state_dict(tmp_path: Path) -> None:
    """It has the very keys and tensors of the seed's state_dict, for cogames loads it strictly."""
    found = torch.load(exported("pretrained/cnn_lstm", tmp_path / "scout.pt"), weights_only=True)
    expected = torch.load(PRETRAINED["pretrained/cnn_lstm"], weights_only=True)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def seeds_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the seed's network in both of the formats that cogames plays."""
    folder = tmp_path_factory.mktemp("seeds_network")
    for ending in ("pt", "safetensors"):
        exported("pretrained/cnn_lstm", folder / f"scout.{ending}")
    return folder


POLICIES = {"pt": "class=tutorial", "safetensors": "class=scout.policy.ScoutPolicy"}


@pytest.mark.slow
@pytest.mark.parametrize("ending", POLICIES)
def test_cogames_eval_plays_the_file(ending: str, seeds_network: Path) -> None:
    """`cogames eval -p class=...,data=FILE` plays an episode of the seed's mission with it, and reports its reward."""
    policy = f"{POLICIES[ending]},data={seeds_network / f'scout.{ending}'}"
    done = run_script(*COGAMES_EVAL, "-p", policy, "--action-timeout-ms", "10000", "--format", "json")
    assert done.returncode == 0, done.stderr
    (mission,) = json.loads(done.stdout[done.stdout.index("{") :])["missions"]
    summary = mission["mission_summary"]
    ((reward,),) = summary["per_episode_per_policy_avg_rewards"].values()
    assert isinstance(reward, float)
    assert summary["policy_summaries"][0]["avg_agent_metrics"]["action.move.success"] > 5


@pytest.mark.slow
def test_cogames_play_plays_the_file(seeds_network: Path, tmp_path: Path) -> None:
    """`cogames play -r none -p class=...,data=FILE` plays an episode without a display, ends, and says its score.

    The mission is a file, since cogames 0.8.1 does not hear `play --steps` with today's typer.
    """
    game = tmp_path / "game.json"
    save_mission_config(make_game(MissionConfig(max_steps=20)), game)
    policy = f"class=scout.policy.ScoutPolicy,data={seeds_network / 'scout.safetensors'}"
    done = run_script("-m", "cogames", "play", "-m", str(game), "-p", policy, "-r", "none")
    assert done.returncode == 0, done.stderr
    assert "Steps: 20" in done.stdout
    assert re.search(r"Score\W+per cog\W+\d+\.\d\d", done.stdout)


# -- .torchscript ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_a_traced_network_says_what_evaluate_says(
    kind: str, observations: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits, values and state equal evaluate.py's to 1e-4 along 12 steps, for 1, 3 and 8 observations at once."""
    monkeypatch.setattr(torchscript, "_check", lambda *_: None)  # what this does, in a process that takes seconds
    run = run_of(kind, tmp_path)
    traced, network = torch.jit.load(exported(run, tmp_path / "scout.torchscript")), evaluated(run)
    both_ways = torch.cat([observations, observations.flip(1)])
    for rows in (1, 3, 8):
        h, c = torch.randn(2, rows, 16, generator=torch.Generator().manual_seed(rows)).clamp(-1, 1)
        for tokens, expected in zip(both_ways[:rows].unbind(1), answers(network, both_ways[:rows], h, c), strict=True):
            *found, h, c = traced(tokens, h, c)
            for ours, theirs in zip((*found, h, c), expected, strict=True):
                assert ours.shape == theirs.shape
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "kept"), [("conv", (False, True)), ("conv_memoryless", (True, True))])
def test_a_part_of_the_state_that_is_not_used_comes_back(
    kind: str, kept: tuple[bool, bool], observations: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GRU leaves lstm_c alone, a network without memory both."""
    monkeypatch.setattr(torchscript, "_check", lambda *_: None)
    traced = torch.jit.load(exported(run_of(kind, tmp_path), tmp_path / "scout.torchscript"))
    given = torch.randn(2, 4, 16)
    _, _, *state = traced(observations[:, 0], *given)
    assert (torch.equal(state[0], given[0]), torch.equal(state[1], given[1])) == kept


@pytest.mark.slow
def test_the_command_writes_a_torchscript_that_is_complete_in_itself(tmp_path: Path) -> None:
    """It is checked and kept, has its config, its size and the actions with it, and names no folder of this machine."""
    run, path = run_of("conv", tmp_path), tmp_path / "made/scout.torchscript"
    done = run_script("-m", "scout.export", f"checkpoint={run}", f"output={path}", f"hydra.run.dir={tmp_path / 'log'}")
    assert done.returncode == 0, done.stderr
    *_, written, how = done.stderr.splitlines()
    assert re.fullmatch(rf"Wrote {path}: conv of {run}, 0\.\d MB", written)
    assert how.startswith(f"Call it: torch.jit.load('{path}')(tokens, lstm_h, lstm_c) with tokens uint8 [B, 200, 3]")
    assert [path.name for path in sorted(tmp_path.rglob("*")) if "run" not in path.parts] == [
        *("log", "export.log", "made", "scout.torchscript")
    ]
    files = dict.fromkeys(["model", "hidden_size", "action_names"], "")
    torch.jit.load(path, _extra_files=files)
    assert json.loads(files["model"]) == tiny_experiment(model=CONV).model.model_dump()
    assert (json.loads(files["hidden_size"]), json.loads(files["action_names"])) == (16, ENV_INFO.action_names)
    assert str(ROOT).encode() not in path.read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()


def test_a_state_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two states for four observations are an error; torch's traced LSTM alone would write beyond its memory."""
    monkeypatch.setattr(torchscript, "_check", lambda *_: None)
    traced = torch.jit.load(exported(run_of("conv_lstm", tmp_path), tmp_path / "scout.torchscript"))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        traced(observed(1)[:, 0], torch.zeros(2, 16), torch.zeros(2, 16))


class Own(nn.Module):
    """A network of one's own: what `features` [B, 600] makes of the bytes, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 8
        self.layer = nn.Linear(600, 6)

    def forward_eval(self, tokens: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        both = self.layer(self.features(tokens.flatten(1) / 255))
        return both[:, :5], both[:, 5:]

    def features(self, numbers: Tensor) -> Tensor:
        return numbers


class Branches(Own):
    def features(self, numbers: Tensor) -> Tensor:
        return numbers.sqrt() if (numbers < 0.5).sum() % 2 else numbers


class Counts(Own):
    """Its trace is of two rows for ever, and an LSTM of the wrong number of rows crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(600, 600, batch_first=True)

    def features(self, numbers: Tensor) -> Tensor:
        zeros = torch.zeros(1, len(numbers), 600)
        return self.memory(numbers.unsqueeze(1), (zeros, zeros))[0][:, 0]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 2 * gradient


class OwnOperation(Own):
    def features(self, numbers: Tensor) -> Tensor:
        result = Doubled.apply(numbers)
        assert isinstance(result, Tensor)
        return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Branches, r"its trace is off by .*; the tracer said: Converting a tensor to a Python boolean might cause"),
        (Counts, r"its trace fails with 1, 3, 8 observations \(.*\); the tracer said: Using len to get tensor shape"),
        (OwnOperation, r"it cannot be traced \(Could not export Python function call 'Doubled'"),
    ],
)
def test_what_cannot_be_traced_is_refused(network: type[Own], message: str, observations: Tensor) -> None:
    """A network of one's own that decides by values, counts by len() or has operations of its own is told why."""
    model = ConvConfig(target=f"my.{network.__name__}", hidden_size=8)
    recorded = observations.transpose(0, 1).contiguous().numpy()
    whole = rf"^A \.torchscript cannot hold model\.target=my\.{network.__name__}: {message}.* Take output=FILE\.safe"
    with pytest.raises(ScoutError, match=whole):
        torchscript.as_torchscript(model, network(), ENV_INFO.action_names, recorded)


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "conv",
            "scout.onnx",
            r"output=.*scout\.onnx has an unknown ending: expected \.safetensors or \.pt or \.torch",
        ),
        ("conv", "there.pt", r"output=.*there\.pt exists already: set overwrite=true"),
        ("conv", "scout.pt", r"seed's network alone: .* This one is model=conv: take output=FILE\.safetensors"),
        (
            "cnn_lstm",
            "scout.pt",
            r"This one is model=cnn_lstm .*model\.hidden_size=16.*: take output=FILE\.safetensors",
        ),
    ],
)
def test_what_cannot_be_written_is_an_error(kind: str, name: str, message: str, tmp_path: Path) -> None:
    """The message says what was expected, and no file is made or changed."""
    run = run_of(kind, tmp_path)
    (tmp_path / "there.pt").write_text("mine")
    with pytest.raises(ScoutError, match=message):
        exported(run, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there.pt"]
    assert (tmp_path / "there.pt").read_text() == "mine"


def test_the_command_says_one_thing_when_it_cannot(tmp_path: Path) -> None:
    """A wrong value is one message, exit code 1, no traceback, and nothing on stdout."""
    arguments = ["checkpoint=nowhere", f"output={tmp_path / 'scout.pt'}", f"hydra.run.dir={tmp_path / 'log'}"]
    done = run_script("-m", "scout.export", *arguments)
    message = "nowhere does not exist: expected a run folder, a checkpoint, a state_dict or pretrained\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


@pytest.mark.parametrize(
    ("mission", "name"), [("scout_tutorial", "cogsguard_arena.scout_tutorial"), ("mine", "MISSION")]
)
def test_it_says_how_cogames_plays_it(
    mission: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The command has cogames' name of the run's mission, where cogames has one, and is safe for a shell."""
    path = tmp_path / "my scout.safetensors"
    run = run_of("conv", tmp_path, mission={"name": mission})
    with caplog.at_level(logging.INFO):
        exported(run, path)
    command = f"cogames eval -m {name} -p 'class=scout.policy.ScoutPolicy,data={path}' -e 1"
    assert caplog.messages[-1].endswith(f" MB\nPlay it: {command}")
