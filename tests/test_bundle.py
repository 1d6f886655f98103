"""Bundles: which class plays a network, what lies in the zip, and that it is the same zip each time."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_experiment
from evaluation_helpers import ENV_INFO, network_of

from scout.errors import ScoutError
from scout.model_config import CnnLstmConfig, ConvConfig, Model
from scout.models import make_model
from scout.submission.bundle import Bundle, write_bundle
from scout.submission.code import code_of, imports_of

SMALL = tiny_experiment().model
TUTORIAL, OWN = "cogames.policy.tutorial_policy.TutorialPolicy", "scout.policy.ScoutPolicy"


def bundle_of(path: Path, model: Model, greedy: bool = False) -> Bundle:
    """The bundle of a network with such a config."""
    torch.manual_seed(2)
    return write_bundle(path, model, make_model(model, ENV_INFO), greedy)


def spec_in(path: Path) -> dict[str, Any]:
    """A bundle's policy_spec.json."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("policy_spec.json"))


@pytest.mark.parametrize(
    ("model", "greedy", "expected"),
    [
        (CnnLstmConfig(), False, TUTORIAL),
        (CnnLstmConfig(), True, OWN),  # the tutorial policy always samples
        (CnnLstmConfig(hidden_size=64), False, OWN),
        (ConvConfig(), False, OWN),
    ],
)
def test_the_tutorial_class_plays_the_seeds_network_and_scout_policy_every_other(
    model: Model, greedy: bool, expected: str, tmp_path: Path
) -> None:
    """`class=tutorial` where it plays alike, else the custom class, which is told whether to be greedy."""
    written = bundle_of(tmp_path / "bundle.zip", model, greedy)
    arguments = {} if expected == TUTORIAL else {"device": "cpu", "greedy": greedy}
    assert written.class_path == expected
    assert spec_in(written.path) == {
        "class_path": expected,
        "data_path": "network.pt",
        "init_kwargs": arguments,
        "setup_script": None,
    }


@pytest.mark.parametrize("model", [CnnLstmConfig(), SMALL])
def test_the_same_bundle_twice_is_the_same_bytes(model: Model, tmp_path: Path) -> None:
    """Written again, under another name and of a network that was loaded anew, it differs in no byte."""
    first, again = (bundle_of(tmp_path / name, model) for name in ("first.zip", "again.zip"))
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.sha256 == again.sha256


def test_a_bundle_needs_what_comes_with_mettagrid_and_nothing_of_training(tmp_path: Path) -> None:
    """Its code imports itself, torch, numpy, pydantic and mettagrid; no hydra, no wandb, no pufferlib.

    numba is imported by fast layers alone, which a bundle does not take, safetensors to read exported files.
    """
    imported: dict[str, set[str]] = {}
    with zipfile.ZipFile(bundle_of(tmp_path / "bundle.zip", SMALL).path) as archive:
        for file in (name for name in archive.namelist() if name.startswith("scout/")):
            for name in imports_of(archive.read(file), file.removesuffix(".py").replace("/", "."), package=False):
                imported.setdefault(name.partition(".")[0], set()).add(file)
    needed = {name for name in imported if name not in sys.stdlib_module_names}
    assert needed == {"scout", "einops", "torch", "numpy", "pydantic", "mettagrid", "numba", "safetensors"}
    assert imported["numba"] == {"scout/models/first_layer.py"}
    assert imported["safetensors"] == {"scout/policy.py"}


def test_another_bundle_is_not_written_over(tmp_path: Path) -> None:
    """Where a bundle is already the same one may be made again, another one not."""
    first = bundle_of(tmp_path / "bundle.zip", SMALL)
    assert bundle_of(tmp_path / "bundle.zip", SMALL) == first
    with pytest.raises(ScoutError, match=r"bundle\.zip exists already, and is another bundle: choose another folder"):
        bundle_of(tmp_path / "bundle.zip", SMALL, greedy=True)
    assert bundle_of(tmp_path / "bundle.zip", SMALL) == first


def test_the_weights_in_a_bundle_are_the_networks(tmp_path: Path) -> None:
    """network.pt holds each tensor as it is, and the config that makes the network."""
    path = write_bundle(tmp_path / "bundle.zip", SMALL, network_of(3), greedy=False).path
    with zipfile.ZipFile(path) as archive:
        archive.extract("network.pt", tmp_path)
    contents = torch.load(tmp_path / "network.pt", weights_only=True)
    assert contents["model"] == SMALL.model_dump()
    expected = network_of(3).state_dict()
    assert contents["state_dict"].keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in contents["state_dict"].items())


def test_a_network_of_ones_own_brings_its_code_along() -> None:
    """Its module and what that imports from beside it, but no tests, no training and no installed package."""
    files = code_of(ConvConfig(target="own_network.OwnNetwork"))
    assert {name for name in files if not name.startswith(("scout/", "einops/"))} == {"own_network.py", "own_layer.py"}
    assert "scout/training.py" not in files


def test_packages_and_relative_imports_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`from . import x`, `from ..y import z` and the packages on the way are found."""
    for name, source in {
        "nets/__init__.py": "",
        "nets/deep/__init__.py": "from . import sizes",
        "nets/deep/net.py": "from ..layers import Layer\nclass Net: pass",
        "nets/deep/sizes.py": "",
        "nets/layers.py": "import os.path\nLayer = 1",
        "nets/unused.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    files = code_of(ConvConfig(target="nets.deep.net.Net"))
    assert {name for name in files if name.startswith("nets")} == {
        "nets/__init__.py",
        "nets/deep/__init__.py",
        "nets/deep/net.py",
        "nets/deep/sizes.py",
        "nets/layers.py",
    }


def test_code_is_found_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that a function imports goes along unimported; so does what lies beside a link to the network."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/linked_net.py").write_text("import beside\ndef later():\n    from job import run\nNet = 1\n")
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "job.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "linked_net.py").symlink_to(tmp_path / "elsewhere/linked_net.py")
    monkeypatch.syspath_prepend(tmp_path)
    files = code_of(ConvConfig(target="linked_net.Net"))
    own = {name for name in files if not name.startswith(("scout/", "einops/"))}
    assert own == {"linked_net.py", "beside.py", "job.py"}


def test_an_installed_network_is_refused() -> None:
    """A class out of site-packages would not be on the server, which the message says."""
    with pytest.raises(ScoutError, match=r"model.target=torch.nn.Linear is an installed package"):
        code_of(ConvConfig(target="torch.nn.Linear"))
