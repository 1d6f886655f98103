"""PuffeRL as shipped, made safe to run and to read: nothing here changes what it learns."""

import warnings
from typing import Any, override

import numpy as np
import torch
from torch import Tensor, nn

from scout.config import Experiment
from scout.device import settled
from scout.errors import ScoutError, SharedError
from scout.pufferl import pufferl
from scout.ranks import ALONE, Ranks

STATE = ("lstm_h", "lstm_c")


class StockTrainer(pufferl.PuffeRL):
    """PuffeRL with its algorithm untouched: `trainer=pufferl`.

    `evaluate()` collects a rollout, `train()` updates the network on it; after both, `losses` and `episodes` are
    those of this update. PuffeRL's own dashboard, checkpoints and clock-dependent logging are off: the run folder keeps
    the record.
    """

    losses: dict[str, float]
    games: tuple[Any, ...] = ()
    """Of the run's missions, the first of them before the curriculum's."""

    def __init__(
        self, experiment: Experiment, device: str, vecenv: Any, network: nn.Module, ranks: Ranks = ALONE
    ) -> None:
        if experiment.trainer.name == "pufferl" and not pufferl._C_AVAILABLE:
            raise ScoutError(
                "trainer=pufferl needs PufferLib's compiled extension, which this build of torch cannot load: "
                "install torch with its CUDA libraries, or take trainer=ppo"
            )
        self.experiment = experiment = settled(experiment, device)
        self.ranks = ranks
        self.episodes: dict[str, list[Any]] = {}  # each statistic's value in each episode that ended in this update
        with warnings.catch_warnings():  # it opens a float32 autocast, which the CPU does not have and does not need
            warnings.filterwarnings("ignore", message="In CPU autocast", category=UserWarning)
            super().__init__(pufferl_config(experiment, device, ranks), vecenv, network)
        # PuffeRL switches the benchmark on even when deterministic, and the fastest algorithm may differ between runs.
        torch.backends.cudnn.benchmark = not experiment.device.deterministic
        self.optimizer.register_step_pre_hook(lambda *_: self._check_gradients())

    @override
    def train(self) -> None:
        """One update. Raises ScoutError, before the step is taken, when a gradient is not finite."""
        self.last_log_time = 0.0  # PuffeRL logs only 0.25 s after the last log: this lets every update through
        super().train()
        self.check_finite()

    @override
    def mean_and_log(self) -> None:
        """Keeps the statistics of the episodes that ended, where PuffeRL would send them to its logger.

        The first rank has those of all ranks, which it is to log, and the others none.
        """
        parts = self.ranks.gather(dict(self.stats), "the episodes") or []
        keys = dict.fromkeys(key for part in parts for key in part)
        self.episodes = {key: [value for part in parts for value in part.get(key, [])] for key in keys}

    @property
    def total_updates(self) -> int:
        """Updates of the whole run; the last may go beyond total_timesteps."""
        return updates_of(self.experiment, self.ranks)

    @property
    def learning_rate(self) -> float:
        """The rate that the next update will use."""
        return self.optimizer.param_groups[0]["lr"]

    def state_dict(self) -> dict[str, Any]:
        """What an algorithm has beside the network, between two updates: tensors, for a checkpoint.

        The recurrent states are float32 [total_agents, hidden_size], in whatever batches the agents act.
        """
        return {name: torch.cat([batch.flatten(1) for batch in getattr(self, name).values()]) for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave. Raises ValueError when that is of other agents."""
        for name in STATE:
            batches = getattr(self, name)
            expected = self.total_agents, batches[0].shape[-1]
            if state[name].shape != expected:
                raise ValueError(f"{name} is {list(state[name].shape)}, expected {list(expected)}")
            for first, batch in batches.items():
                batches[first] = state[name][first : first + len(batch)].to(batch)

    def restore_schedule(self, saved: dict[str, Any]) -> None:
        """Goes on with the learning rate's schedule. The optimizer has its saved learning rate already.

        PuffeRL's schedule computes each rate from the one before, so that an unchanged one has to go on from there.
        """
        own: Any = self.scheduler
        anneals = self.experiment.optimizer.anneal_lr
        unchanged = all(saved[name] == getattr(own, name) for name in ("T_max", "base_lrs"))
        unchanged = unchanged and saved["last_epoch"] == (self.epoch if anneals else 0)
        own.last_epoch = self.epoch if anneals else 0
        own._step_count, own._last_lr = own.last_epoch + 1, saved["_last_lr"]
        if not unchanged:
            self._set_learning_rates(own._get_closed_form_lr())

    def _set_learning_rates(self, rates: list[float]) -> None:
        self.scheduler._last_lr = rates
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def check_finite(self) -> None:
        """After an update: raises ScoutError naming the loss or parameter that is not finite.

        explained_variance may be: 0 / 0 where all returns are alike.
        """
        for name, value in self.losses.items():
            if name != "explained_variance" and not np.isfinite(value):
                raise diverged(self.epoch - 1, f"losses/{name} is {value}")
        for name, parameter in self.uncompiled_policy.named_parameters():
            if not parameter.isfinite().all():
                raise diverged(self.epoch - 1, f"the parameter {name} is not finite")

    def _clip_gradients(self) -> Tensor:
        """Scales the gradients down to max_grad_norm where they are longer; returns the norm that they had.

        Raises ScoutError when that is not finite, before they are scaled by it.
        """
        parameters = [parameter for parameter in self.uncompiled_policy.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if not norm.isfinite():
            self._check_gradients()
        nn.utils.clip_grads_with_norm_(parameters, self.experiment.trainer.max_grad_norm, norm)
        return norm

    def _check_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self.uncompiled_policy.parameters() if parameter.grad is not None]
        norms = torch.stack([gradient.norm() for gradient in gradients])
        if norms.isfinite().all():
            return
        names = [name for name, p in self.uncompiled_policy.named_parameters() if p.grad is not None]
        worst = [name for name, norm in zip(names, norms.tolist(), strict=True) if not np.isfinite(norm)]
        raise diverged(self.epoch, f"the gradient of {worst[0]} is not finite ({len(worst)} of {len(names)} are not)")

    @override
    def save_checkpoint(self) -> None:
        """Off: checkpoint.py writes them, whole or not at all."""

    @override
    def print_dashboard(self, *args: Any, **kwargs: Any) -> None:
        """Off: progress.py shows the run."""

    @override
    def close(self) -> str:
        """Ends the environments and their worker processes."""
        self.vecenv.close()
        return ""


def updates_of(experiment: Experiment, ranks: Ranks) -> int:
    """Updates of a whole run: total_timesteps is of all ranks together, a batch of each."""
    return -(-experiment.total_timesteps // (experiment.batch_size * ranks.size))


def diverged(update: int, reason: str) -> ScoutError:
    """The error that ends a run whose numbers are no longer finite; `update` counts from 0. All ranks have it."""
    return SharedError(
        f"training diverged in update {update + 1}: {reason}. Nothing of this update was saved; "
        "try a smaller optimizer.learning_rate or trainer.max_grad_norm"
    )


def pufferl_config(experiment: Experiment, device: str, ranks: Ranks = ALONE) -> dict[str, Any]:
    """The dictionary that PuffeRL reads. What follows from other keys is derived here."""
    return {
        "env": experiment.mission.name,
        "device": device,
        "seed": experiment.seed + ranks.rank * experiment.vecenv.num_envs,  # environment i's reset gets seed + i
        "total_timesteps": experiment.total_timesteps,
        "torch_deterministic": experiment.device.deterministic,
        "cpu_offload": experiment.device.cpu_offload,
        "compile": experiment.device.compile,
        "compile_mode": "reduce-overhead" if experiment.device.cuda_graphs else "default",
        "compile_fullgraph": False,
        "precision": experiment.device.precision,
        "use_rnn": True,
        "data_dir": "",
        "checkpoint_interval": 1,
        "optimizer": "adam",
        **experiment.optimizer.model_dump(exclude={"name", "weight_decay"}),
        **experiment.trainer.model_dump(exclude={"name"}),
        "batch_size": experiment.batch_size,
    }
