"""The schemas of conf/submit.yaml and conf/export.yaml: which scout leaves the project, and for where."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from scout.group import Group, Integer, Positive
from scout.model_config import ForeignModel


class CheckpointConfig(Group):
    """Which scout."""

    checkpoint: str | None = None
    """Run folder, checkpoint file, or bare state_dict such as the seed notebook's; pretrained is shipped."""
    mission: dict[str, Any] | None = None
    """The run's mission unless one is chosen here; single keys change the run's (+mission.max_steps=500)."""
    model: ForeignModel | None = None
    """Network of a bare state_dict, when it is not the seed's."""

    @model_validator(mode="after")
    def _names_a_checkpoint(self) -> Self:
        if not self.checkpoint:
            named = "null" if self.checkpoint is None else ""
            raise ValueError(f"checkpoint={named} says nothing: expected a run folder, for instance checkpoint=RUN_DIR")
        return self


class SubmitConfig(CheckpointConfig):
    """All of one submission: the scout, how it plays, how that is proven, and where it goes."""

    name: str | None = None
    """What it is called on the leaderboard, where each upload of a name is its next version."""
    greedy: bool = False
    """Take the most probable action instead of sampling."""
    episodes: Positive = 2
    """Whole episodes that the bundle plays before it is sent, each on a map of its own."""
    seed: Annotated[Integer, Field(ge=0, lt=2**30)] = 0
    """Chooses these maps, out of those of evaluate.py."""
    action_timeout_ms: Positive = 250
    """Milliseconds that the leaderboard's server waits for an action before it takes noop instead."""
    bundle_only: bool = False
    """Make the bundle and stop."""
    dry_run: bool = False
    """Do everything but the upload."""
    again: bool = False
    """Send a bundle that was sent under this name before, as another version."""
    season: str | None = None
    """Season to enter; null is the server's default one."""
    server: str | None = None
    """The leaderboard's server; null is cogames' own."""
    login_server: str | None = None
    """Whose token, of `cogames login`, is sent; null is cogames' own."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.bundle_only:
            if self.name is None:
                raise ValueError("name=null says nothing: expected what to call the scout, for instance name=my-scout")
            if not re.fullmatch(r"[^:\s]{1,64}", self.name):
                raise ValueError(
                    f"name={self.name} is not valid: expected at most 64 characters, no space and no colon"
                )
            for key in ("server", "login_server"):
                url = getattr(self, key)
                if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s/@?#]+)*", url):
                    raise ValueError(
                        f"{key}={url} is not valid: expected http(s)://HOST without password, query and / at its end"
                    )
            if self.dry_run and self.again:
                raise ValueError("again=true has no effect with dry_run=true: leave one of them out")
            return self
        for key in ("dry_run", "again", "season", "server", "login_server"):
            if getattr(self, key):
                raise ValueError(f"{key} has no effect with bundle_only=true: leave one of them out")
        return self


class ExportConfig(CheckpointConfig):
    """All of one export: the scout, and the file."""

    output: str | None = None
    """File to write: .safetensors (with its config), .pt (cogames' `tutorial` policy) or .torchscript."""
    overwrite: bool = False
    """Let it replace a file that is there."""

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if not self.output:
            raise ValueError("output= says nothing: expected a file, for instance output=scout.safetensors")
        return self
