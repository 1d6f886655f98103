"""The command line: what a person sees who asks for something wrong, or asks what there is."""

import os
import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import run_script

HEAVY = {"torch", "mettagrid", "cogames", "pufferlib", "wandb"}  # each takes seconds to import

GROUPS = {
    "curriculum": "none, tutorials",
    "device": "auto, cpu, cuda, mps",
    "experiment": "notebook, scout, scout_gpu, smoke",
    "mission": "aligner_tutorial, arena, machina_1, miner_tutorial, scout_tutorial, scrambler_tutorial",
    "model": "attention, cnn_lstm, conv, conv_memoryless",
    "optimizer": "adam, adamw, muon",
    "sweep": "grid, optuna, seeds, values",
    "trainer": "ppo, pufferl",
    "vecenv": "multiprocessing, serial",
    "wandb": "disabled, offline, online",
}


def train(run_dir: Path, *overrides: str) -> CompletedProcess[str]:
    """`python train.py overrides...` with a run folder of the test's own."""
    return run_script("train.py", *overrides, f"hydra.run.dir={run_dir}")


def heavy_imports(stderr: str) -> set[str]:
    """Which heavy packages a process imported, by what `python -X importtime` wrote."""
    modules = re.findall(r"^import time:.*\| +(\S+)$", stderr, flags=re.MULTILINE)
    assert "hydra" in modules  # the report is there
    return {module for module in modules if module in HEAVY}


def files_in(folder: Path) -> list[str]:
    """Everything below a folder; empty where there is none."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- before anything is imported ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "mission.max_step=50",
            "mission.max_step=50 is not a key in mission; did you mean max_steps? valid: difficulty, heart_limit, "
            "max_steps, name, num_agents, rewards, site, spawn_count, target, team, variants",
        ),
        (
            "+mission.max_step=50",
            "mission.max_step=50 is not a key in mission; did you mean max_steps? valid: difficulty, heart_limit, "
            "max_steps, name, num_agents, rewards, site, spawn_count, target, team, variants",
        ),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate=fast is not valid: expected a valid number"),
        (
            "vecenv={name:multiprocessing,num_envs:1024,num_workers:1024}",
            f"vecenv.num_workers=1024 is more than this machine's {os.cpu_count()} cores: "
            f"take {os.cpu_count()} or fewer",
        ),
    ],
    ids=["unknown key", "added key", "wrong type", "workers"],
)
def test_a_wrong_override_is_answered_with_one_message(override: str, message: str, tmp_path: Path) -> None:
    """Wrong keys, with + or without, types and numbers exit with 1; the message names what is valid, and is all."""
    result = train(tmp_path / "run", override)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{message}\n")


def test_an_unknown_option_is_answered_with_the_right_ones(tmp_path: Path) -> None:
    """An option that a group does not have exits with 1 and lists those it has, without a traceback or a folder."""
    result = train(tmp_path / "run", "optimizer=sgd")
    assert (result.returncode, result.stdout) == (1, "")
    first, *others = result.stderr.splitlines()
    assert first == "In 'train': Could not find 'optimizer/sgd'"
    assert [line.strip() for line in others][:5] == ["", "Available options in 'optimizer':", "adam", "adamw", "muon"]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompletedProcess[str], Path]:
    """A run whose sizes do not fit together, and the folder where it would have been."""
    run_dir = tmp_path_factory.mktemp("refused") / "run"
    command = ("-X", "importtime", "train.py", f"hydra.run.dir={run_dir}", "trainer.batch_size=5120")
    return run_script(*command), run_dir


def test_sizes_that_do_not_fit_are_answered_with_one_message(refused: tuple[CompletedProcess[str], Path]) -> None:
    """A failed check across groups exits with 1 and names the key, its value and the nearest values that fit."""
    result, _ = refused
    messages = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert messages == [
        "trainer.batch_size=5120 must be a multiple of 4096, which is 16 environments x 4 agents x "
        "trainer.bptt_horizon=64 steps; nearest: 4096 or 8192; null is one such rollout"
    ]
    assert (result.returncode, result.stdout) == (1, "")


def test_a_refused_run_leaves_no_run_behind(refused: tuple[CompletedProcess[str], Path]) -> None:
    """Only Hydra's log of the message lies in the folder, so that the folder can be used again."""
    result, run_dir = refused
    assert result.returncode == 1
    assert files_in(run_dir) == ["train.log"]


def test_a_wrong_config_imports_nothing_heavy(refused: tuple[CompletedProcess[str], Path]) -> None:
    """Neither torch, mettagrid nor wandb is imported before the config is checked, so a mistake is answered at once."""
    assert heavy_imports(refused[0].stderr) == set()


# -- what there is -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def help_page() -> CompletedProcess[str]:
    """What `python train.py --help` does."""
    return run_script("-X", "importtime", "train.py", "--help")


def test_help_shows_how_to_begin(help_page: CompletedProcess[str]) -> None:
    """The help page has a command that runs in seconds."""
    assert help_page.returncode == 0
    assert "python train.py experiment=smoke" in help_page.stdout


def test_help_shows_the_options_of_every_group(help_page: CompletedProcess[str]) -> None:
    """The help page lists each group with its options."""
    lines = help_page.stdout.splitlines()
    assert [group for group, options in GROUPS.items() if f"{group}: {options}" not in lines] == []


def test_help_imports_nothing_heavy(help_page: CompletedProcess[str]) -> None:
    """The help page is there at once."""
    assert heavy_imports(help_page.stderr) == set()


def test_the_composed_config_can_be_printed(tmp_path: Path) -> None:
    """`--cfg job` prints what would be trained, overrides included, and trains nothing."""
    result = train(tmp_path / "run", "--cfg", "job", "experiment=smoke", "optimizer.learning_rate=3e-4")
    assert result.returncode == 0
    assert "\ntotal_timesteps: 20480\n" in f"\n{result.stdout}"
    assert "\n  learning_rate: 0.0003\n" in result.stdout
    assert files_in(tmp_path / "run") == []


# -- mistakes that only cogames can tell -------------------------------------------------------------------------------


def test_an_unknown_variant_is_answered_with_the_list_of_right_ones(tmp_path: Path) -> None:
    """A variant that cogames does not know exits with 1 and one message, and no run has begun."""
    result = train(tmp_path / "run", "mission.variants=[scout_reward]", "device=cpu")
    assert result.returncode == 1
    assert result.stdout == ""
    *before, message = result.stderr.splitlines()
    assert all(line.startswith("Device: cpu") for line in before)
    assert message.startswith(
        "mission.variants=scout_reward is unknown; did you mean scout_rewards? valid: aligner, aligner_rewards, "
    )
    assert not (tmp_path / "run" / "status.json").exists()


def test_a_wrong_config_leaves_the_log_of_an_earlier_run_alone(tmp_path: Path) -> None:
    """A config that is refused adds nothing to a folder that holds a run, not even to its log."""
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "train.log").write_text("mine")
    result = run_script("train.py", "trainer.gamma=2", f"hydra.run.dir={tmp_path}")
    assert (result.returncode, result.stderr) == (1, "trainer.gamma=2 is not valid: expected less than or equal to 1\n")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"status.json": "{}", "train.log": "mine"}
