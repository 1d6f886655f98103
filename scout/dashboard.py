"""A W&B workspace with the curves that matter: `python -m scout.dashboard --project scout`.

W&B's own workspace has a chart for each of more than a hundred metrics. Without an account this prints what it would
make. Each call makes a new view; none that is there is changed.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from scout.config import WandbConfig
from scout.errors import ScoutError

X = "agent_steps"
_GEAR = [f"environment/agent/{role}.gained" for role in ("scout", "miner", "aligner", "scrambler")]

SECTIONS: dict[str, dict[str, list[str]]] = {
    "Return": {
        "Return on held-out maps": ["evaluation/return"],
        "Return on held-out maps, with its 95% interval": [
            "evaluation/interval_low",
            "evaluation/return",
            "evaluation/interval_high",
        ],
        "Return in training": ["environment/episode_return"],
    },
    "What the scouts do": {
        "Cells seen by the team, on held-out maps": ["evaluation/cells_seen"],
        "cell.visited": ["environment/agent/cell.visited"],
        "Gear taken": _GEAR,
        "Deaths": ["environment/agent/death"],
    },
    "Learning": {
        "Entropy": ["losses/entropy"],
        "Explained variance of the values": ["losses/explained_variance"],
        "How far the policy went": ["losses/approx_kl", "losses/clipfrac"],
        "Losses": ["losses/policy_loss", "losses/value_loss"],
        "Norm of the gradient": ["losses/gradient_norm"],
        "Learning rate": ["optimizer/learning_rate"],
    },
    "Speed": {
        "Agent steps per second": ["performance/SPS"],
        "Seconds": ["performance/rollout_seconds", "performance/update_seconds", "performance/evaluation_seconds"],
        "Peak memory in MiB": ["performance/peak_memory_mb"],
    },
}
"""Metrics of each chart, of each section."""
EACH_MISSION = {
    "Return on held-out maps": "^evaluation/return/.+",
    "Return in training": "^environment/episode_return/.+",
}
"""What the metrics of each chart match: those of each mission of a curriculum, whose names only its runs know."""
EACH, FILM = "Each mission of a curriculum", "film"
COLUMNS = ["evaluation/best_return", "evaluation/return", "environment/episode_return", X]
"""Of the summary, in the table of runs."""


def spec(project: str, entity: str | None, name: str) -> dict[str, Any]:
    """What is made, in plain values for a reader."""
    return {
        "name": name,
        "project": f"{entity or 'YOUR_ENTITY'}/{project}",
        "runs": "trainings; one line a setting: the mean of its seeds, with their range",
        "columns": COLUMNS,
        "x": X,
        "sections": {**SECTIONS, EACH: EACH_MISSION, "Film": [FILM]},
    }


def make(project: str, entity: str | None, name: str) -> str | None:
    """Makes the workspace, and returns its address; None where W&B has no key, which it is never asked for.

    Raises ScoutError when W&B refuses or cannot be reached, after `WANDB_HTTP_TIMEOUT` seconds a request.
    """
    try:
        wandb = importlib.import_module("wandb")  # takes seconds, so it is not imported before it is needed
        importlib.import_module("wandb_workspaces")
    except ImportError as error:
        raise ScoutError(f"The workspace needs wandb and wandb-workspaces ({error}): install them") from error
    try:
        if not wandb.login(prompt=False, verify=False):
            return None
        owner = entity or wandb.Api().default_entity
        if owner is None:
            raise ScoutError("The account has no entity of its own: say whose project it is with --entity")
        workspace = _workspace(project, owner, name)
        workspace.save()
        return workspace.url
    except ScoutError:
        raise
    except Exception as error:  # of many kinds, some of them private to wandb; an odd answer is a TypeError
        server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise ScoutError(
            f"{server} did not make the workspace in --project {project}: {reason}. "
            "See that the server can be reached, the key is valid and the project is there"
        ) from error


def _workspace(project: str, entity: str, name: str) -> Any:
    workspaces = importlib.import_module("wandb_workspaces.workspaces")
    panels = importlib.import_module("wandb_workspaces.reports.v2")
    expressions = importlib.import_module("wandb_workspaces.expr")
    sections = [
        workspaces.Section(
            name=section,
            is_open=True,
            panels=[
                panels.LinePlot(title=title, x=X, y=metrics, groupby_aggfunc="mean", groupby_rangefunc="minmax")
                for title, metrics in charts.items()
            ],
        )
        for section, charts in SECTIONS.items()
    ]
    each = [panels.LinePlot(title=title, x=X, metric_regex=regex) for title, regex in EACH_MISSION.items()]
    sections.append(workspaces.Section(name=EACH, panels=each))  # closed, since most runs have one mission
    sections.append(workspaces.Section(name="Film", is_open=True, panels=[panels.MediaBrowser(media_keys=[FILM])]))
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=X, max_runs=50),
        runset_settings=workspaces.RunsetSettings(
            filters=[expressions.Metric("JobType") == "train"],
            groupby=[expressions.Config("setting")],
            pinned_columns=[f"summary:{column}" for column in COLUMNS],
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 when W&B did not make it, 0 else, also where there is no account."""
    parser = argparse.ArgumentParser(prog="python -m scout.dashboard", description="A W&B workspace of a project.")
    parser.add_argument("--project", default=WandbConfig().project, help="W&B's project (default: %(default)s)")
    parser.add_argument("--entity", help="team or user (default: your own)")
    parser.add_argument("--name", default="Scouts", help="of the workspace (default: %(default)s)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", "10")
    try:
        address = make(options.project, options.entity, options.name)
    except ScoutError as error:
        print(error, file=sys.stderr)
        return 1
    if address is None:
        print(yaml.safe_dump(spec(options.project, options.entity, options.name), sort_keys=False))
        print("Nothing was made: W&B has no key here. Run `wandb login` (or set WANDB_API_KEY), then this again.")
    else:
        print(f"Made: {address}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    sys.exit(main())
