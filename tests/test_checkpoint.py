"""Checkpoints are written whole or not at all, give the same network back, and never run what a file contains."""

import os
import pickle
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import tiny_experiment
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import nn

from scout.build import build
from scout.checkpoint import STATE, load_experiment, load_into, load_weights, save_checkpoint
from scout.config import Experiment
from scout.errors import ScoutError
from scout.mission import make_game
from scout.models import make_model
from scout.training import train

EXPERIMENT = tiny_experiment()
GAME = make_game(EXPERIMENT.mission)


def network_of(seed: int, experiment: Experiment = EXPERIMENT) -> nn.Module:
    """A network with weights drawn from a seed."""
    torch.manual_seed(seed)
    return make_model(experiment.model, PolicyEnvInterface.from_mg_cfg(GAME))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two state_dicts have the same keys in the same order, and the same values."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def names_in(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder with its config and no checkpoint yet."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(EXPERIMENT.model_dump()))
    return folder


def save(run_dir: Path, network: nn.Module, update: int, keep: int = 3) -> Path:
    """A checkpoint as a run saves it, without the optimizer."""
    contents = {"model": network.state_dict(), "agent_steps": 256 * update, "update": update}
    return save_checkpoint(run_dir, contents, update, keep)


def test_only_the_newest_checkpoints_are_kept(run_dir: Path) -> None:
    """After 11 updates with keep=2 the last two are there, by number and not by spelling; nothing else is left."""
    for update in range(1, 12):
        save(run_dir, network_of(1), update, keep=2)
    assert names_in(run_dir) == ["000010.pt", "000011.pt"]


def test_a_run_keeps_as_many_checkpoints_as_it_is_told(train_tiny: Callable[..., Path]) -> None:
    """Three updates, each with a checkpoint, and checkpoint.keep=2 leave the second and the third."""
    assert names_in(train_tiny(total_timesteps=768, checkpoint={"keep": 2})) == ["000002.pt", "000003.pt"]


def test_a_run_makes_a_checkpoint_every_interval_and_at_its_end(train_tiny: Callable[..., Path]) -> None:
    """Five updates with checkpoint.interval=2 leave those of updates 2 and 4, and of the end."""
    run_dir = train_tiny(total_timesteps=5 * 256, checkpoint={"interval": 2})
    assert names_in(run_dir) == ["000002.pt", "000004.pt", "000005.pt"]


def test_the_best_checkpoint_is_never_removed(run_dir: Path) -> None:
    """best.pt does not count as one of the newest, and stays when they are thinned out."""
    save(run_dir, network_of(1), 1)
    shutil.copy(run_dir / "checkpoints" / "000001.pt", run_dir / "checkpoints" / "best.pt")
    for update in (2, 3):
        save(run_dir, network_of(1), update, keep=1)
    assert names_in(run_dir) == ["000003.pt", "best.pt"]


def test_the_newest_are_kept_beyond_a_million_updates(run_dir: Path) -> None:
    """Checkpoint 1,000,000 is newer than 999,999, though its name is longer."""
    for update in (999_999, 1_000_000):
        save(run_dir, network_of(1), update, keep=1)
    assert names_in(run_dir) == ["1000000.pt"]


def test_saved_weights_give_an_equal_network_back(run_dir: Path) -> None:
    """Loaded into a network of other weights, a checkpoint makes it the saved one: every weight, every output."""
    saved, loaded = network_of(1), network_of(2)
    observation = torch.randint(0, 11, (4, 200, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(saved(observation)[0], loaded(observation)[0])
    load_into(loaded, load_weights(str(save(run_dir, saved, 1))))
    assert equal(loaded.state_dict(), saved.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(saved(observation), loaded(observation), strict=True))


def test_a_checkpoint_knows_its_run_and_its_steps(run_dir: Path) -> None:
    """Both a run folder and a checkpoint file in it bring the experiment, and how far the network was trained."""
    path = save(run_dir, network_of(1), 3)
    for location in (run_dir, path):
        weights = load_weights(str(location))
        assert (weights.path, weights.experiment, weights.agent_steps) == (path, EXPERIMENT, 768)


def test_a_checkpoint_holds_what_resuming_needs(finished_run: Path) -> None:
    """The last checkpoint of a run has all of its state, readable without running any code."""
    contents = torch.load(finished_run / "checkpoints" / "000002.pt", weights_only=True)
    assert contents.keys() == set(STATE)
    assert (contents["agent_steps"], contents["update"]) == (512, 2)
    # Two updates of two minibatches are four steps of the optimizer.
    assert {int(state["step"]) for state in contents["optimizer"]["state"].values()} == {4}


def test_a_run_folder_means_its_newest_checkpoint(run_dir: Path) -> None:
    """Without a best one, the newest of several checkpoints is taken."""
    for update in (1, 2, 10):
        save(run_dir, network_of(update), update)
    assert equal(load_weights(str(run_dir)).state_dict, network_of(10).state_dict())


def test_the_best_checkpoint_is_preferred(run_dir: Path) -> None:
    """Where there is a best.pt, a run folder means it and not the newest checkpoint."""
    save(run_dir, network_of(1), 1).rename(run_dir / "checkpoints" / "best.pt")
    save(run_dir, network_of(2), 2)
    weights = load_weights(str(run_dir))
    assert (weights.path.name, weights.agent_steps) == ("best.pt", 256)
    assert equal(weights.state_dict, network_of(1).state_dict())


def test_a_bare_state_dict_is_accepted(tmp_path: Path) -> None:
    """A file of weights alone, such as the seed notebook leaves, is loaded; it knows no run and no steps."""
    path = tmp_path / "tutorial_scout.pt"
    torch.save(network_of(1).state_dict(), path)
    weights = load_weights(str(path))
    assert equal(weights.state_dict, network_of(1).state_dict())
    assert (weights.experiment, weights.agent_steps) == (None, None)


def test_a_checkpoint_can_be_named_from_within_its_folder(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`checkpoint=000001.pt`, typed in the folder checkpoints, finds the run above it."""
    save(run_dir, network_of(1), 1)
    monkeypatch.chdir(run_dir / "checkpoints")
    assert load_weights("000001.pt").experiment == EXPERIMENT


def test_a_run_of_a_larger_machine_can_be_loaded(run_dir: Path) -> None:
    """Weights that were trained with more worker processes than there are cores here can still be read and judged."""
    values = EXPERIMENT.model_dump()
    workers = 4 * (os.cpu_count() or 1)
    values["vecenv"] |= {"name": "multiprocessing", "num_envs": workers, "num_workers": workers}
    values["trainer"]["batch_size"] = values["total_timesteps"] = workers * 4 * 16
    values["trainer"]["minibatch_size"] = 4 * 16
    (run_dir / "config.yaml").write_text(yaml.safe_dump(values))
    assert load_experiment(run_dir).vecenv.num_workers == workers


# -- what cannot be loaded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "random", "empty", "text"])
def test_a_damaged_file_is_an_error_that_names_it(damage: str, run_dir: Path) -> None:
    """Half a checkpoint, random bytes, an empty file and a text are each told as a damaged file."""
    path = save(run_dir, network_of(1), 1)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "random": random.Random(0).randbytes(10_000),
            "empty": b"",
            "text": b"not found\n",
        }[damage]
    )
    with pytest.raises(ScoutError, match=r"checkpoints/000001\.pt cannot be read as a checkpoint: it is damaged"):
        load_weights(str(run_dir))


def test_a_path_where_nothing_is_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A misspelt path is said not to exist, with what was expected."""
    with pytest.raises(
        ScoutError, match=r"nowhere does not exist: expected a run folder, a checkpoint, a state_dict or pretrained"
    ):
        load_weights(str(tmp_path / "nowhere"))


def test_a_folder_without_a_config_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A folder that is not a run's is told as such."""
    with pytest.raises(ScoutError, match=rf"{tmp_path.name} has no config\.yaml, so it is not a run folder"):
        load_weights(str(tmp_path))


@pytest.mark.parametrize("made", [False, True], ids=["no folder", "empty folder"])
def test_a_run_without_a_checkpoint_is_an_error_that_names_it(made: bool, run_dir: Path) -> None:
    """A run that ended before its first checkpoint is told as such."""
    if made:
        (run_dir / "checkpoints").mkdir()
    with pytest.raises(ScoutError, match=r"run has no checkpoint yet: the run ended before its first one"):
        load_weights(str(run_dir))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "seed: [",
        "sede: 1",
        b"\xff\xfe\x00",
    ],
    ids=["empty", "list", "no yaml", "unknown key", "no text"],
)
def test_a_config_that_is_none_is_an_error_that_names_it(text: str | bytes, run_dir: Path) -> None:
    """A config.yaml that is damaged, or of another version, is told as such."""
    (run_dir / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScoutError, match=r"run/config\.yaml is not a config of this version:\n."):
        load_experiment(run_dir)


def test_a_config_that_lacks_a_key_is_refused(run_dir: Path) -> None:
    """A run of an older version never takes this one's default in silence, with which it was not trained."""
    path = run_dir / "config.yaml"
    values = yaml.safe_load(path.read_text())
    del values["model"]["hidden_size"], values["trainer"]["gamma"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(
        ScoutError, match=r"config\.yaml .*\nmodel\.hidden_size, trainer\.gamma: missing; add what the run"
    ):
        load_experiment(run_dir)


def test_a_config_from_before_there_were_curricula_is_read(run_dir: Path) -> None:
    """A run without the group had one mission alone; a group that lacks a key is refused like any other."""
    path = run_dir / "config.yaml"
    values = yaml.safe_load(path.read_text())
    curriculum = values.pop("curriculum")
    path.write_text(yaml.safe_dump(values))
    assert load_experiment(run_dir).curriculum == Experiment().curriculum
    del curriculum["stagger"]
    path.write_text(yaml.safe_dump({**values, "curriculum": curriculum}))
    with pytest.raises(ScoutError, match=r"curriculum\.stagger: missing; add what the run"):
        load_experiment(run_dir)


@pytest.mark.parametrize("contents", [[1, 2], {"epoch": 3}, {"model": 5}, {"model": {"a": 1}}, "weights"])
def test_a_file_that_holds_no_weights_is_an_error_that_names_it(contents: Any, tmp_path: Path) -> None:
    """A file of torch that is not a network's is told as such."""
    torch.save(contents, tmp_path / "other.pt")
    with pytest.raises(ScoutError, match=r"other\.pt holds no network's weights: expected a checkpoint of train\.py"):
        load_weights(str(tmp_path / "other.pt"))


def test_a_checkpoint_without_a_count_of_steps_is_loaded(run_dir: Path) -> None:
    """{"model": weights}, as other programs save them, is read like a state_dict: the steps are unknown."""
    save(run_dir, network_of(1), 1)
    torch.save({"model": network_of(2).state_dict()}, run_dir / "checkpoints" / "best.pt")
    weights = load_weights(str(run_dir))
    assert equal(weights.state_dict, network_of(2).state_dict())
    assert weights.agent_steps is None


def test_other_sizes_are_an_error_that_names_what_differs(run_dir: Path) -> None:
    """A checkpoint of hidden_size=16 does not fit hidden_size=24: the error names file, tensors and both shapes."""
    path = save(run_dir, network_of(1), 1)
    other = network_of(1, tiny_experiment(model={"hidden_size": 24}))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(ScoutError) as caught:
        load_into(other, load_weights(str(path)))
    # An LSTM's 4 gates have 4 x 16 = 64 rows, or 4 x 24 = 96, in weight_ih (of 8 + 8 features), weight_hh (of the
    # state), bias_ih and bias_hh; the weights of the two heads read the state as well.
    assert str(caught.value) == (
        f"{path} is of another architecture: _rnn.weight_ih_l0 is [64, 16], expected [96, 16]; "
        "_rnn.weight_hh_l0 is [64, 16], expected [96, 24]; _rnn.bias_ih_l0 is [64], expected [96] and 3 more. "
        "Give the model and sizes it was trained with"
    )
    assert equal(other.state_dict(), before)


def test_other_tensors_are_an_error_that_names_what_differs(tmp_path: Path) -> None:
    """Tensors that are missing or unknown are named."""
    weights = network_of(1).state_dict()
    weights["_third_head.bias"] = weights.pop("_value_head.bias")
    torch.save(weights, tmp_path / "other.pt")
    with pytest.raises(
        ScoutError, match=r"other\.pt is .*: _value_head\.bias is missing; _third_head\.bias is unknown\."
    ):
        load_into(network_of(1), load_weights(str(tmp_path / "other.pt")))


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("form", ["checkpoint", "state_dict", "pickle"])
def test_code_in_a_checkpoint_is_never_run(form: str, run_dir: Path, tmp_path: Path) -> None:
    """A file whose unpickling runs code is refused, and the code does not run."""
    marker = tmp_path / "code_has_run"
    evil = Malicious(marker)
    path = run_dir / "checkpoints" / "000001.pt"
    path.parent.mkdir()
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))
        pickle.loads(path.read_bytes()).close()
    else:
        torch.save({"model": {"weight": evil}, "agent_steps": 1} if form == "checkpoint" else {"weight": evil}, path)
        torch.load(path, weights_only=False)
    assert marker.exists(), "the file does not do what this test is about"
    marker.unlink()
    with pytest.raises(ScoutError, match=r"000001\.pt cannot be read as a checkpoint"):
        load_weights(str(path))
    assert not marker.exists()


# -- what cannot be saved ----------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_earlier_checkpoints(run_dir: Path) -> None:
    """When the disk takes no more than 4 KB, the error says so; what was there before stays, and nothing half-made."""
    before = save(run_dir, network_of(1), 1).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ScoutError, match=r"000002\.pt: the checkpoint cannot be written .*before it are intact"):
            save(run_dir, network_of(2), 2, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(run_dir) == ["000001.pt"]
    assert (run_dir / "checkpoints" / "000001.pt").read_bytes() == before


def test_a_file_in_place_of_the_folder_is_an_error_that_names_it(run_dir: Path) -> None:
    """Where `checkpoints` is a regular file, no checkpoint can be written, which is told as such."""
    (run_dir / "checkpoints").write_text("mine")
    with pytest.raises(ScoutError, match=r"checkpoints/000001\.pt: the checkpoint cannot be written"):
        save(run_dir, network_of(1), 1)
    assert (run_dir / "checkpoints").read_text() == "mine"


# -- initial weights ---------------------------------------------------------------------------------------------------


def built_weights(experiment: Experiment) -> dict[str, torch.Tensor]:
    """The weights with which a run of this experiment begins."""
    trainer = build(experiment, GAME, "cpu")
    try:
        return {name: tensor.clone() for name, tensor in trainer.uncompiled_policy.state_dict().items()}
    finally:
        trainer.close()


def test_initial_weights_are_those_a_run_begins_with(finished_run: Path) -> None:
    """A run with initial_weights begins with exactly the weights of that checkpoint, and not with those of its seed."""
    saved = torch.load(finished_run / "checkpoints" / "000002.pt", weights_only=True)["model"]
    assert equal(built_weights(tiny_experiment(seed=7, initial_weights=str(finished_run))), saved)
    assert not equal(built_weights(tiny_experiment(seed=7)), saved)


def test_initial_weights_of_another_architecture_fail_before_the_first_update(
    finished_run: Path, tmp_path: Path
) -> None:
    """A run whose network has other sizes than its initial weights is refused with what differs."""
    with pytest.raises(ScoutError, match=r"is of another architecture: .*expected \[96, 16\]"):
        train(tiny_experiment(model={"hidden_size": 24}, initial_weights=str(finished_run)), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
