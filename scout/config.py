"""The strict schema of a training run: one frozen pydantic model a group (checks across them: config_checks.py).

The defaults here are those of conf/train.yaml, so that the library works without Hydra; a test holds them equal.
This module imports neither torch nor mettagrid, so a mistake is answered at once.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PlainValidator, Tag, model_validator

from scout import config_checks
from scout.group import (
    Fraction,
    Group,
    Integer,
    NonNegative,
    Positive,
    PositiveNumber,
    Share,
    chosen_by_name,
)
from scout.mission_config import CurriculumConfig, MissionConfig
from scout.model_config import ConvConfig, Model


class OptimizerConfig(Group):
    name: Literal["adam", "adamw", "muon"] = "adam"
    """muon is for the matrices, with adam for the rest; adamw and muon want trainer=ppo."""
    learning_rate: PositiveNumber = 0.00092
    """Step size at the start."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the mean of gradients; muon's momentum."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the mean of squared gradients."""
    adam_eps: PositiveNumber = 1e-8
    """Keeps adam's division from exploding."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay, for adamw and muon."""
    anneal_lr: bool = True
    """Cosine from learning_rate to min_lr_ratio x learning_rate over the run."""
    min_lr_ratio: Fraction = 0.0
    """Where the cosine ends, as a part of learning_rate."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name == "adam" and self.weight_decay > 0:
            raise ValueError(f"optimizer.weight_decay={self.weight_decay} is not for adam: take optimizer=adamw")
        if not self.anneal_lr and self.min_lr_ratio > 0:
            raise ValueError(
                f"optimizer.min_lr_ratio={self.min_lr_ratio} has no effect with optimizer.anneal_lr=false: set it to 0"
            )
        return self


class TrainerConfig(Group):
    name: Literal["ppo"] = "ppo"
    """PuffeRL with its learning defects mended."""
    batch_size: Annotated[Integer, Field(ge=1, le=2**31)] | None = None
    """Agent steps of a rollout, on which an update trains; null is one segment of every agent."""
    minibatch_size: Positive = 1024
    """Agent steps of an optimizer step."""
    max_minibatch_size: Positive = 32768
    """Agent steps in memory at once; a larger minibatch is averaged over parts of this size, which PuffeRL adds up."""
    bptt_horizon: Annotated[Integer, Field(ge=2, le=2**16)] = 64
    """Steps of a segment, through which gradients flow back in time."""
    update_epochs: Positive = 3
    """How often an update trains on the whole batch; PuffeRL draws as many segments, but not each of them."""
    gamma: Fraction = 0.99
    """Discount of a step."""
    gae_lambda: Fraction = 0.90
    """Decay of the advantage estimate's traces."""
    clip_coef: PositiveNumber = 0.2
    """How far the probability ratio may go from 1."""
    vf_coef: NonNegative = 0.5
    """Weight of the value loss."""
    vf_clip_coef: PositiveNumber | None = None
    """How far a value may go from the rollout's; null does not limit it, which PuffeRL always does."""
    ent_coef: NonNegative = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: PositiveNumber = 1.5
    """Gradients are scaled down to this norm."""
    vtrace_rho_clip: PositiveNumber = 1.0
    """Ceiling of V-trace's weight of a temporal difference."""
    vtrace_c_clip: PositiveNumber = 1.0
    """Ceiling of V-trace's weight of a trace."""
    target_kl: PositiveNumber | None = None
    """An update ends when the policy has gone this far from the rollout's; null never. PuffeRL has no such end."""
    reward_clip: PositiveNumber | None = None
    """Rewards are clamped to +- this much; null leaves them alone. PuffeRL always clamps to 1."""
    normalize_rewards: bool = True
    """Divide rewards by the standard deviation of the discounted return so far, before the clamp. PuffeRL does not."""
    excursion_share: Share = 0.15
    """Share of the steps in which agents walk straight on whatever the policy says, at first; it falls to 0 by the end.

    They teach nothing themselves, but where they lead does (scout/excursions.py)."""
    excursion_length: Positive = 60
    """Mean steps of such a walk. Only with an excursion_share."""
    carry_state: bool = True
    """Carry recurrent states from one rollout to the next; PuffeRL begins each rollout without memory."""
    prioritized_replay: bool = False
    """Draw segments by their advantages, as PuffeRL does; else each epoch takes every segment once, in random order."""
    prio_alpha: NonNegative = 0.8
    """Exponent of the priorities by which segments are drawn; 0 draws uniformly. Only with prioritized_replay."""
    prio_beta0: Fraction = 0.2
    """Where the exponent of the importance weights starts. Only with prioritized_replay."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.excursion_share == 0 and self.excursion_length != type(self).model_fields["excursion_length"].default:
            raise ValueError(
                f"trainer.excursion_length={self.excursion_length} has no effect with trainer.excursion_share=0: "
                f"set it to {type(self).model_fields['excursion_length'].default}"
            )
        for key in ("prio_alpha", "prio_beta0"):
            value = getattr(self, key)
            if not self.prioritized_replay and value != type(self).model_fields[key].default:
                raise ValueError(
                    f"trainer.{key}={value} has no effect without replay: set trainer.prioritized_replay=true"
                )
        return self


class PufferlConfig(TrainerConfig):
    name: Literal["pufferl"] = "pufferl"  # pyright: ignore[reportIncompatibleVariableOverride]
    """PuffeRL as shipped."""
    vf_coef: NonNegative = 2.0
    """Weight of the value loss."""
    vf_clip_coef: PositiveNumber | None = 0.2
    """How far a value may go from the last one computed; PuffeRL always limits it."""
    reward_clip: PositiveNumber | None = 1.0
    """PuffeRL always clamps rewards to +- 1."""
    normalize_rewards: bool = False
    """PuffeRL knows no normalization."""
    excursion_share: Share = 0.0
    """PuffeRL knows no excursions."""
    carry_state: bool = False
    """PuffeRL begins each rollout without memory."""
    prioritized_replay: bool = True
    """PuffeRL always draws segments by their advantages, anew for each minibatch."""


Trainer = Annotated[
    Annotated[TrainerConfig, Tag("ppo")] | Annotated[PufferlConfig, Tag("pufferl")],
    Discriminator(chosen_by_name("ppo")),
]


AUTO = 0  # stands for vecenv.num_envs=auto until it is measured


def _number_of_envs(value: Any) -> int:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if value == "auto":
        return AUTO
    if isinstance(whole, bool) or not isinstance(whole, int) or not 1 <= whole <= 8192:
        raise ValueError(f"vecenv.num_envs={value} is not valid: expected an integer from 1 to 8192, or auto")
    return whole


class VecenvConfig(Group):
    name: Literal["serial", "multiprocessing"] = "serial"
    """serial: in this process; multiprocessing: in num_workers processes, for machines with many cores."""
    num_envs: Annotated[int, PlainValidator(_number_of_envs)] = 16
    """Environments of the run, under torchrun of each process, 1 to 8192 in all.

    auto measures which number is fastest, and which number of threads."""
    num_workers: Positive = 1
    """Worker processes; 1 for serial."""
    batch_size: Positive | None = None
    """Environments that act at a time; null is all of them."""
    worker_timeout: PositiveNumber = 8.0
    """Seconds, and a fifth of one for each of its environments, after which a worker process counts as hanging."""
    on_worker_failure: Literal["restart", "stop"] = "restart"
    """restart: a worker process that died or hangs is replaced, with its environments as they were.

    stop: the run ends, with a checkpoint of its last whole update."""
    map_seeds: Literal["spread", "consecutive"] = "spread"
    """spread: no two environments or episodes share a map; consecutive: the seed notebook's way, where they do."""
    early_reset: bool = True
    """End each environment's first episode at a random step, as the seed does, so that not all episodes end together.

    PuffeRL takes such an end for none at all; trainer=ppo knows that the episode would have gone on."""
    stale_first_action: bool = False
    """Begin an episode with the action chosen at the end of the last one, as MettaGrid's environment does.

    Else it begins with its first observation, which that way never shows."""


class DeviceConfig(Group):
    name: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes cuda, then mps, then cpu, and says which."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16: products in it, weights and sums in float32; auto takes it where ppo trains and the device can."""
    fast_layers: bool = True
    """On a CPU take this project's own first layers and recurrent steps; false: torch's, equal to 1e-5."""
    tf32: bool = True
    """On an NVIDIA GPU compute float32's products in TF32, with 10 bits of mantissa."""
    deterministic: bool = True
    """On a GPU take deterministic algorithms alone, so that a run can be repeated to the last bit."""
    compile: bool = False
    """torch.compile the network."""
    cuda_graphs: bool = False
    """On an NVIDIA GPU replay the compiled network's kernels as CUDA graphs. Only with compile."""
    cpu_offload: bool = False
    """Keep the rollout's observations in the CPU's memory."""
    threads: Positive | None = None
    """Threads of torch on the CPU; null leaves it to torch; under torchrun a process has its share of the cores."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cuda_graphs and not self.compile:
            raise ValueError("device.cuda_graphs=true has no effect without device.compile=true: set both")
        return self


class WandbConfig(Group):
    mode: Literal["offline", "online", "disabled"] = "offline"
    """offline needs no key and no network; `wandb sync` uploads later."""
    project: str = "scout"
    """W&B's project."""
    entity: str | None = None
    """Team or user; null is your default."""
    group: str | None = None
    """Runs of one group are shown together; null is the folder of a sweep."""
    tags: list[str] = []
    """Words to find the run by, beside its mission, network and trainer."""
    name: str | None = None
    """Name of the run; null says what differs from the defaults, and the seed."""


class CheckpointConfig(Group):
    interval: Positive = 50
    """Updates between checkpoints; one is always made at the end."""
    keep: Positive = 3
    """The newest so many are kept."""


class HeldOutConfig(Group):
    every: Positive | None = 250_000
    """Agent steps between evaluations on maps that neither training nor evaluate.py plays; null makes none."""
    episodes: Positive = 8
    """Whole episodes of each evaluation, always on the same maps; the best mean return decides checkpoints/best.pt."""
    film: bool = True
    """Film one of those episodes when the run ends, into its folder and to W&B."""


class SweepConfig(Group):
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] | None = None
    """Folder of a sweep under multirun/, where the same command goes on with what is missing; null is the time."""
    objective: str = "evaluation/return"
    """Metric whose last value a run returns to its sweep, and by which the sweep's summary is ordered."""


class Experiment(Group):
    """All of one training run. Build it in Python, or compose it from conf/ and call `validate`."""

    seed: Annotated[Integer, Field(ge=0, lt=2**32)] = 1
    """Seeds python, numpy, torch, every environment and its maps."""
    total_timesteps: Positive = 1_000_000
    """Agent steps of the run; the last update may go beyond it."""
    resume: str | None = None
    """Run folder to go on with, or auto: the newest unfinished run of this config, or a new one."""
    initial_weights: str | None = None
    """Run folder or checkpoint of a network to start from."""
    log_interval: NonNegative = 10.0
    """Seconds between progress lines where there is no terminal."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: HeldOutConfig = HeldOutConfig()
    mission: MissionConfig = MissionConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    model: Model = ConvConfig()
    trainer: Trainer = TrainerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    vecenv: VecenvConfig = VecenvConfig()
    device: DeviceConfig = DeviceConfig()
    wandb: WandbConfig = WandbConfig()
    sweep: SweepConfig = SweepConfig()

    @property
    def missions(self) -> tuple[MissionConfig, ...]:
        """All that is trained on: `mission`, and those that are played in turn with it."""
        return (self.mission, *self.curriculum.missions.values())

    @property
    def total_agents(self) -> int:
        """Agents that act at each step: of all environments together."""
        return self.mission.agents_per_env * self.vecenv.num_envs

    @property
    def batch_size(self) -> int:
        """Agent steps of a rollout."""
        return self.trainer.batch_size or self.total_agents * self.trainer.bptt_horizon

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = config_checks.problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self
