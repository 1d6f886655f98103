"""The folder conf/: each option works by itself, its defaults are the library's, and no key is dead."""

import ast
import inspect
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from pydantic import BaseModel

from scout import cli
from scout.cli import compose_experiment
from scout.config import Experiment, Group
from scout.evaluation_config import EvaluationConfig
from scout.submit_config import ExportConfig, SubmitConfig
from scout.validation import all_keys, groups_of

CONF = ROOT / "conf"
OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))

# The seed notebook's values, written out from it.
NOTEBOOK: dict[str, Any] = {
    "seed": 42,
    "total_timesteps": 100_000,
    "checkpoint": {"interval": 50},
    "mission": {
        "site": "cogsguard_arena",
        "num_agents": 4,
        "max_steps": 1000,
        "difficulty": "easy",
        "variants": ["scout_rewards"],
        "team": {"wealth": 3, "initial_hearts": 0},
    },
    "model": {
        "name": "cnn_lstm",
        "target": None,
        "conv_channels": [64, 128],
        "kernel_size": 3,
        "stride": 2,
        "cnn_features": 256,
        "self_features": 256,
        "hidden_size": 512,
    },
    "trainer": {
        "name": "pufferl",
        "batch_size": 4096,
        "minibatch_size": 4096,
        "max_minibatch_size": 32768,
        "bptt_horizon": 64,
        "update_epochs": 1,
        "gamma": 0.995,
        "gae_lambda": 0.90,
        "clip_coef": 0.2,
        "vf_coef": 2.0,
        "vf_clip_coef": 0.2,
        "ent_coef": 0.01,
        "max_grad_norm": 1.5,
        "vtrace_rho_clip": 1.0,
        "vtrace_c_clip": 1.0,
        "prio_alpha": 0.8,
        "prio_beta0": 0.2,
    },
    "optimizer": {
        "name": "adam",
        "learning_rate": 0.00092,
        "adam_beta1": 0.95,
        "adam_beta2": 0.999,
        "adam_eps": 1e-8,
        "anneal_lr": True,
        "min_lr_ratio": 0.0,
    },
    "vecenv": {"name": "serial", "num_envs": 4, "num_workers": 1, "map_seeds": "consecutive", "early_reset": True},
    "device": {"precision": "float32", "deterministic": True, "compile": False, "cpu_offload": False},
}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    result = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def compose_evaluation(*overrides: str) -> EvaluationConfig:
    """What `python evaluate.py overrides...` would judge."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return cli.load(EvaluationConfig, compose("evaluate", list(overrides)))


def compose_export(*overrides: str) -> ExportConfig:
    """What `python -m scout.export overrides...` would write."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return cli.load(ExportConfig, compose("export", list(overrides)))


def compose_submission(*overrides: str) -> SubmitConfig:
    """What `python -m scout.submit overrides...` would send."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return cli.load(SubmitConfig, compose("submit", list(overrides)))


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_folders_of_conf_are_the_groups_of_the_schema() -> None:
    """Each group that is chosen by option has a folder with at least one option, and each folder is such a group."""
    groups = {"curriculum", "device", "experiment", "mission", "model", "optimizer", "sweep", "trainer", "vecenv"}
    assert {group for group, _ in OPTIONS} == {*groups, "wandb"}


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group, option in OPTIONS if group not in ("experiment", "sweep")]
)
def test_an_option_alone_is_a_valid_experiment(group: str, option: str) -> None:
    """`python train.py group=option` passes every check, and the option is the one that its file is named after."""
    chosen = getattr(compose_experiment(f"{group}={option}"), group)
    if option == "conv_memoryless":  # one network, without its memory
        assert (chosen.name, chosen.memory) == ("conv", "none")
    else:
        assert (chosen.mode if group == "wandb" else chosen.name) == option


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "experiment"])
def test_an_experiment_alone_is_valid(option: str) -> None:
    """`python train.py experiment=option` passes every check and differs from the defaults."""
    assert compose_experiment(f"experiment={option}") != Experiment()


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "sweep"])
def test_a_ready_sweep_is_one_word_and_sweeps_over_keys_that_there_are(option: str) -> None:
    """`python train.py sweep=option` is valid, needs no -m but for `values`, and its keys are those of train.py."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"sweep={option}"], return_hydra_config=True)
    assert (cfg.hydra.mode is None) == (option == "values")
    assert [key for key in cfg.hydra.sweeper.params if key not in all_keys(Experiment)] == []
    assert bool(cfg.hydra.sweeper.params) == (option != "values")
    assert compose_experiment(f"sweep={option}").sweep.objective == "evaluation/return"


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "mission"])
def test_an_evaluation_takes_every_mission(option: str) -> None:
    """`python evaluate.py mission=option` passes every check, with interpolations between its keys resolved."""
    mission = compose_evaluation("policy=random", f"mission={option}").mission
    assert mission is not None
    assert mission["name"] == option
    assert isinstance(mission["spawn_count"], int)


def test_no_file_of_conf_is_ignored_by_git() -> None:
    """A fresh clone has every option, whatever .gitignore says about folders of the same name."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = [str(path.relative_to(ROOT)) for path in CONF.rglob("*.yaml")]
    ignored = subprocess.run(["git", "check-ignore", "--", *files], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.splitlines() == []


# -- defaults ----------------------------------------------------------------------------------------------------------


def test_train_yaml_and_the_library_have_the_same_defaults() -> None:
    """Composing conf/train.yaml gives `Experiment()`, value for value."""
    assert compose_experiment().model_dump() == Experiment().model_dump()


def test_evaluate_yaml_and_the_library_have_the_same_defaults() -> None:
    """Composing conf/evaluate.yaml gives `EvaluationConfig`, value for value."""
    expected = EvaluationConfig(policy="random")
    assert compose_evaluation("policy=random").model_dump() == expected.model_dump()


def test_export_yaml_and_the_library_have_the_same_defaults() -> None:
    """Composing conf/export.yaml gives `ExportConfig`, value for value."""
    expected = ExportConfig(checkpoint="pretrained", output="scout.pt")
    assert compose_export("checkpoint=pretrained", "output=scout.pt").model_dump() == expected.model_dump()


def test_submit_yaml_and_the_library_have_the_same_defaults() -> None:
    """Composing conf/submit.yaml gives `SubmitConfig`, value for value."""
    expected = SubmitConfig(checkpoint="pretrained", name="x")
    assert compose_submission("checkpoint=pretrained", "name=x").model_dump() == expected.model_dump()


def test_train_yaml_writes_out_every_key() -> None:
    """Nothing is left to a default that only Python knows: the composed config has every leaf of the schema."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        composed = compose("train")
    written = flat(Experiment().model_dump())
    missing = [key for key in written if key.rpartition(".")[2] not in parent_of(composed, key)]
    assert missing == []


def parent_of(composed: Any, key: str) -> Any:
    """The node of a composed config that holds a dotted key."""
    for part in key.split(".")[:-1]:
        composed = composed[part]
    return composed


# -- the seed notebook -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    """`experiment=notebook` as composed, by dotted keys."""
    return flat(compose_experiment("experiment=notebook").model_dump())


def test_the_notebook_experiment_has_the_notebooks_values(notebook: dict[str, Any]) -> None:
    """`experiment=notebook` sets each key to the number in the seed notebook."""
    assert {key: notebook[key] for key in flat(NOTEBOOK)} == flat(NOTEBOOK)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=7", "seed", 7),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 0.001),
        ("mission.max_steps=50", "mission.max_steps", 50),
        ("mission.team.wealth=1", "mission.team.wealth", 1),
        ("mission.variants=[credit,scout_rewards]", "mission.variants", ["credit", "scout_rewards"]),
        ("trainer.batch_size=8192", "trainer.batch_size", 8192),
        ("checkpoint.interval=5", "checkpoint.interval", 5),
        ("wandb=disabled", "wandb.mode", "disabled"),
    ],
)
def test_the_command_line_wins_over_an_experiment(
    notebook: dict[str, Any], override: str, key: str, value: Any
) -> None:
    """A key, a nested key, a list and a group given by hand stand against `experiment=notebook`, and alone change."""
    changed = flat(compose_experiment("experiment=notebook", override).model_dump())
    assert changed == notebook | {key: value}
    assert notebook[key] != value


def test_the_notebooks_run_on_the_corrected_trainer(notebook: dict[str, Any]) -> None:
    """`experiment=notebook trainer=ppo` keeps the seed's settings, but for what PuffeRL always does."""
    changed = flat(compose_experiment("experiment=notebook", "trainer=ppo").model_dump())
    corrected = {"name": "ppo", "reward_clip": None, "carry_state": True, "prioritized_replay": False}
    assert changed == notebook | {f"trainer.{key}": value for key, value in corrected.items()}


def test_several_overrides_hold_together() -> None:
    """Sizes that are changed together on the command line are checked together, not one by one."""
    experiment = compose_experiment(
        "experiment=notebook", "vecenv.num_envs=8", "trainer.batch_size=6144", "trainer.minibatch_size=2048"
    )
    assert (experiment.vecenv.num_envs, experiment.trainer.batch_size) == (8, 6144)


# -- dead keys ---------------------------------------------------------------------------------------------------------


def prefixes_of(schema: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The name of each group's class, its base classes included, and the prefix of its keys."""
    found = {base.__name__: prefix for base in schema.__mro__ if issubclass(base, Group) and base is not Group}
    for name, field in schema.model_fields.items():
        for group in groups_of(field.annotation):
            found |= prefixes_of(group, f"{prefix}{name}.")
    return found


def attribute_chain(node: ast.expr) -> list[str]:
    """`a.b.c` as [a, b, c]; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    chain = attribute_chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*chain, node.attr] if isinstance(node, ast.Attribute) and chain else []


def keys_read_in(path: Path, schema: type[Group]) -> set[str]:
    """Dotted keys that a module reads as attributes.

    Followed are arguments that are annotated as the schema or as one of its groups, what is assigned from such a one,
    and whatever is called `experiment` where the schema is Experiment.
    """
    groups, keys = prefixes_of(schema), set(all_keys(schema))
    read = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        prefixes = {
            argument.arg: groups[name]
            for argument in function.args.args
            if argument.annotation is not None
            for name in ast.unparse(argument.annotation).split(" | ")
            if name in groups
        }
        for node in ast.walk(function):
            key = resolve(node.value, prefixes, schema) if isinstance(node, ast.Assign) else None
            if key is not None and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                prefixes[node.targets[0].id] = f"{key}."
        read |= {resolve(node, prefixes, schema) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    return {key for key in keys if key in read}


def resolve(node: ast.AST, prefixes: dict[str, str], schema: type[Group]) -> str | None:
    """The dotted key that an expression reads, as far as its first names are known."""
    chain = attribute_chain(node) if isinstance(node, ast.expr) else []
    if chain and chain[0] in prefixes:
        return prefixes[chain[0]] + ".".join(chain[1:])
    if "experiment" in chain and schema is Experiment:
        return ".".join(chain[chain.index("experiment") + 1 :])
    return None


SCHEMA = (
    *("config.py", "config_checks.py", "evaluation_config.py", "mission_config.py", "model_config.py"),
    "submit_config.py",
)


def read_as_attributes(schema: type[Group]) -> set[str]:
    """Keys that some module reads; the schema itself and its checks do not count, for they build nothing."""
    modules = [path for path in (ROOT / "scout").rglob("*.py") if path.name not in SCHEMA]
    return {key for path in modules for key in keys_read_in(path, schema)}


def leaves(schema: type[Group]) -> set[str]:
    """Keys that hold a value of their own."""
    keys = set(all_keys(schema))
    return {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


def test_every_key_of_an_evaluation_is_read() -> None:
    """No key of conf/evaluate.yaml is without effect: each is read where an evaluation is built or run.

    Three exceptions: model.options are read by a network of one's own alone, and of the group device, which training
    shares, nothing is compiled or offloaded in an evaluation.
    """
    elsewhere = {"model.options", "device.compile", "device.cuda_graphs", "device.cpu_offload"}
    assert leaves(EvaluationConfig) - read_as_attributes(EvaluationConfig) - elsewhere == set()


def test_every_key_of_an_export_is_read() -> None:
    """No key of conf/export.yaml is without effect; model.options are read by a network of one's own alone."""
    assert leaves(ExportConfig) - read_as_attributes(ExportConfig) == {"model.options"}


def test_every_key_of_a_submission_is_read() -> None:
    """No key of conf/submit.yaml is without effect; model.options are read by a network of one's own alone."""
    assert leaves(SubmitConfig) - read_as_attributes(SubmitConfig) == {"model.options"}


def test_every_key_of_a_training_run_is_read() -> None:
    """No key of conf/train.yaml is without effect: each is read outside of the schema and its checks.

    Four exceptions: model.options are read by a network of one's own alone, resume is read before the config is
    checked (cli.py), Hydra reads sweep.name (train.yaml), and the trainer's hyperparameters go to PuffeRL as a
    dictionary, see below.
    """
    elsewhere = {"model.options", "resume", "sweep.name"}
    elsewhere |= {f"trainer.{name}" for name in type(Experiment().trainer).model_fields}
    assert leaves(Experiment) - read_as_attributes(Experiment) - elsewhere == set()


def test_every_hyperparameter_is_handed_to_pufferl() -> None:
    """The dictionary that PuffeRL reads has each key of trainer and optimizer that it knows, and its value."""
    from scout.trainer import pufferl_config

    experiment = Experiment()
    expected = experiment.trainer.model_dump(exclude={"name"})
    expected |= experiment.optimizer.model_dump(exclude={"name", "weight_decay"})
    expected["batch_size"] = 4096  # null: 16 environments x 4 agents x 64 steps
    handed = pufferl_config(experiment, "cpu")
    assert {key: handed.get(key) for key in expected} == expected


def test_every_hyperparameter_is_read_by_each_trainer() -> None:
    """Each key of the group trainer is read by trainer=ppo; PuffeRL reads each but those that it refuses to change."""
    from scout.pufferl import pufferl

    names = {name for name in type(Experiment().trainer).model_fields if name != "name"}
    always = {"target_kl", "reward_clip", "normalize_rewards", "carry_state", "prioritized_replay"}
    always |= {"excursion_share", "excursion_length"}  # a length without a share is refused by itself
    shipped, set_up = inspect.getsource(pufferl.PuffeRL), inspect.getsource(pufferl.PuffeRL.__init__)
    assert {name for name in names if f'config["{name}"]' not in shipped} == always
    read = {key.removeprefix("trainer.") for key in read_as_attributes(Experiment)}
    assert {name for name in names - read if f'config["{name}"]' not in set_up} == set()


def test_every_optimizer_key_is_read_by_pufferl() -> None:
    """PuffeRL looks up each key of the group optimizer but for the two that are refused with it (test_config.py)."""
    from scout.pufferl import pufferl

    refused = {"name", "weight_decay", "min_lr_ratio"}
    names = [name for name in type(Experiment().optimizer).model_fields if name not in refused]
    source = inspect.getsource(pufferl.PuffeRL)
    assert [name for name in names if f'config["{name}"]' not in source] == []
