"""The schema of conf/evaluate.yaml: who is judged, where, for how long, and what is shown of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from scout.config import DeviceConfig, MissionConfig, WandbConfig
from scout.group import Group, Integer, NonNegative, Positive
from scout.model_config import ForeignModel


class EvaluationConfig(Group):
    """All of one evaluation: what is judged (`checkpoint`, `policy` or `policies`), where, and how long."""

    checkpoint: str | None = None
    """Run folder, checkpoint file, or bare state_dict such as the seed notebook's; pretrained is shipped.

    So is pretrained/cnn_lstm, which has the seed's network."""
    policy: str | None = None
    """A baseline instead of a checkpoint: random, noop, walker, or cogames/NAME for a policy that cogames ships."""
    policies: list[str] = []
    """Several checkpoints and baselines, judged on the same maps; of a sweep's folder all its runs."""
    episodes: Positive = 16
    """Whole episodes of each policy, each on a map of its own."""
    parallel: Positive = 8
    """Episodes that a process plays side by side."""
    processes: Positive | None = None
    """Processes that play; null is one for each core, and one alone on a GPU."""
    seed: Annotated[Integer, Field(ge=0, lt=2**30)] = 0
    """Chooses the maps, out of a range that training never touches, and the action noise."""
    greedy: Literal[False, True, "both"] = False
    """Take the most probable action instead of sampling; both: judge each network either way."""
    mission: dict[str, Any] | None = None
    """The run's mission unless one is chosen here; single keys change the run's (+mission.max_steps=500)."""
    model: ForeignModel | None = None
    """Network of a bare state_dict, when it is not the seed's."""
    episode: Annotated[Integer, Field(ge=0, lt=2**31)] = 0
    """The episode that render, film and replay show, of the first policy."""
    render: bool = False
    """Show the episode in the terminal, step by step."""
    render_delay: NonNegative = 0.05
    """Seconds between the steps shown."""
    film: str | None = None
    """Film the episode into this file: .mp4 or .gif."""
    replay: str | None = None
    """Record the episode into this file, .json.z, for mettascope, the package's own viewer."""
    heatmap: str | None = None
    """Draw where the scouts of all episodes went into this file, .png."""
    overwrite: bool = False
    """Let film, replay and heatmap replace files that are there."""
    device: DeviceConfig = DeviceConfig()
    wandb: WandbConfig = WandbConfig(mode="disabled")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = [bool(self.checkpoint), bool(self.policy), bool(self.policies)]
        if sum(given) != 1:
            raise ValueError(
                f"checkpoint={self.checkpoint} policy={self.policy} policies={self.policies}: exactly one of them says "
                "what to judge, for instance checkpoint=RUN_DIR, policy=random or policies=[RUN_DIR,random]"
            )
        for key in ("compile", "cuda_graphs", "cpu_offload"):
            if getattr(self.device, key):
                raise ValueError(f"device.{key}=true has no effect in an evaluation: leave it out")
        if self.episode and not (self.render or self.film or self.replay):
            raise ValueError(f"episode={self.episode} has no effect without render, film or replay: add one of them")
        return self


class EvaluationMission(Group):
    """The mission of an evaluation, checked under the name that the user gave it."""

    mission: MissionConfig
