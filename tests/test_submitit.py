"""Sweeps through submitit: for real in processes of this machine, and as SLURM jobs of stub commands.

The stubs run what they are given as a SLURM of one machine would: `sbatch` reads the script's options and runs it, once
for each task of an array, `srun` runs its command into the files that it names, and `scontrol requeue` makes `sbatch`
run a task again.
"""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from conftest import wait_until
from test_sweeps import begin, has_checkpoint, losses_of, status_of, summary_of

SBATCH = r"""
import os, re, subprocess, sys, time
from pathlib import Path

state = Path(os.environ["STUB_SLURM"])
script = Path(sys.argv[1])
options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script.read_text(), re.M))
job = str(1000 + len(list(state.glob("*.sh"))))
(state / f"{job}.sh").write_text(script.read_text())
first, last = map(int, re.match(r"'?(\d+)-(\d+)", options.get("array", "0-0")).groups())
print(f"Submitted batch job {job}", flush=True)
sys.stdout.close()
if os.fork():
    os._exit(0)
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)


def start(task):
    number = f"{job}_{task}" if "array" in options else job
    names = {"SLURM_JOB_ID": str(int(job) + task), "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
    names |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "node1"}
    if "array" in options:
        names |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
    wait = f"sleep {os.environ.get('STUB_QUEUE', 0)}; " if task else ""
    return number, subprocess.Popen(["bash", "-c", f"{wait}exec bash {state}/{job}.sh"], env={**os.environ, **names})


running = {task: start(task) for task in range(first, last + 1)}
while running:
    time.sleep(0.1)
    for task, (number, process) in list(running.items()):
        if process.poll() is not None:
            asked = state / f"requeue_{number}"
            if asked.exists():
                asked.rename(state / f"requeued_{number}")
                running[task] = start(task)
            else:
                (state / f"over_{number}").touch()
                del running[task]
"""

SRUN = r"""
import os, sys

arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    option = arguments.pop(0)
    if option in ("--output", "--error"):
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
        path = arguments.pop(0)
        for placeholder, value in (("%A", array), ("%a", task), ("%j", os.environ["SLURM_JOB_ID"]), ("%t", "0")):
            path = path.replace(placeholder, value)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if option == "--output" else 2)
os.execvp(arguments[0], arguments)
"""

SACCT = r"""
import os
from pathlib import Path

print("JobID|State|NodeList")
for path in Path(os.environ["STUB_SLURM"]).glob("over_*"):
    print(f"{path.name.removeprefix('over_')}|FAILED|node1")
"""

SCONTROL = r"""
import os, sys
from pathlib import Path

assert sys.argv[1] == "requeue"
(Path(os.environ["STUB_SLURM"]) / f"requeue_{sys.argv[2]}").touch()
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in whose path a SLURM's commands are; STUB_SLURM has the scripts that came in."""
    commands, state = tmp_path / "bin", tmp_path / "slurm"
    commands.mkdir()
    state.mkdir()
    for name, code in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
        (commands / name).write_text(f"#!{sys.executable}\n{code}")
        (commands / name).chmod(stat.S_IRWXU)
    return {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "STUB_SLURM": str(state)}


def preempt(run_dir: Path) -> None:
    """Once the run has a checkpoint: the signals that SLURM sends to a job that it takes the machine from."""
    wait_until(lambda: has_checkpoint(run_dir))
    process = status_of(run_dir)["process"]
    os.kill(process, signal.SIGTERM)
    os.kill(process, signal.SIGUSR2)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of seed 1 that was left alone."""
    sweep = tmp_path_factory.mktemp("sweeps") / "unbroken"
    assert begin(sweep, "seed=1").wait(120) == 0
    return sweep / "0"


@pytest.mark.slow
def test_a_local_job_that_is_preempted_goes_on_exactly(unbroken: Path, tmp_path: Path) -> None:
    """Told to go, a job of submitit_local writes a checkpoint and is started again; it learns what it would have."""
    process = begin(tmp_path, "seed=1", "hydra/launcher=submitit_local")
    preempt(tmp_path / "0")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    status = status_of(tmp_path / "0")
    assert (status["state"], len(status["resumed"])) == ("finished", 1)
    assert losses_of(tmp_path / "0") == losses_of(unbroken)
    assert [(row["folder"], row["status"]) for row in summary_of(tmp_path)] == [("0", "finished")]


@pytest.mark.slow
def test_a_job_of_slurm_that_is_preempted_is_queued_again_and_goes_on_exactly(
    slurm: dict[str, str], unbroken: Path, tmp_path: Path
) -> None:
    """An array of two jobs is submitted with the options that were asked for; the one that has to go comes back."""
    sweep = tmp_path / "sweep"
    keys = ("partition=gpu", "gpus_per_node=1", "timeout_min=90", "cpus_per_task=8", "mem_gb=16", "account=lab")
    options = ("hydra/launcher=submitit_slurm", *(f"hydra.launcher.{key}" for key in keys))
    process = begin(sweep, "seed=1,2", *options, **slurm)
    preempt(sweep / "0")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    (script,) = Path(slurm["STUB_SLURM"]).glob("*.sh")
    lines = script.read_text().splitlines()
    for line in ("partition=gpu", "gpus-per-node=1", "time=90", "cpus-per-task=8", "mem=16GB", "account=lab"):
        assert f"#SBATCH --{line}" in lines
    assert "#SBATCH --signal=USR2@120" in lines
    assert any(line.startswith("#SBATCH --array=0-1%2") for line in lines)
    assert len(list(Path(slurm["STUB_SLURM"]).glob("requeued_*"))) == 1
    statuses = [status_of(sweep / name) for name in ("0", "1")]
    assert [status["state"] for status in statuses] == ["finished", "finished"]
    assert [len(status.get("resumed", [])) for status in statuses] == [1, 0]
    assert losses_of(sweep / "0") == losses_of(unbroken)


@pytest.mark.slow
def test_a_job_of_slurm_that_fails_is_a_failed_row(slurm: dict[str, str], tmp_path: Path) -> None:
    """The sweep ends with exit code 1, and the summary has the reason from the job's own log."""
    sweep = tmp_path / "sweep"
    options = ("mission.difficulty=brutal", "hydra/launcher=submitit_slurm")
    process = begin(sweep, *options, **slurm)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    (row,) = summary_of(sweep)
    assert (row["status"], row["error"]) == (
        "failed",
        "mission.difficulty=brutal is unknown; valid: easy, hard, medium",
    )
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_lost_job_of_slurm_costs_no_other_one(slurm: dict[str, str], tmp_path: Path) -> None:
    """While one job is killed the other still waits in the queue: the sweep waits for it."""
    sweep = tmp_path / "sweep"
    process = begin(sweep, "seed=1,2", "hydra/launcher=submitit_slurm", **slurm, STUB_QUEUE="40")
    wait_until(lambda: has_checkpoint(sweep / "0"))
    os.kill(status_of(sweep / "0")["process"], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert {row["folder"]: row["status"] for row in summary_of(sweep)} == {"0": "killed", "1": "finished"}


@pytest.mark.slow
def test_sigterm_to_the_sweep_ends_local_jobs_with_checkpoints(tmp_path: Path) -> None:
    """Both jobs of submitit_local are interrupted in order, and the sweep leaves after them with 143."""
    process = begin(tmp_path, "seed=1,2", "hydra/launcher=submitit_local")
    wait_until(lambda: has_checkpoint(tmp_path / "0") and has_checkpoint(tmp_path / "1"))
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert [status_of(tmp_path / name)["state"] for name in ("0", "1")] == ["interrupted"] * 2
