"""PuffeRL with its learning defects mended: `trainer=ppo`.

In PuffeRL's buffers step t holds the observation o[t], the action chosen there, and the reward, terminal and truncation
that *arrived with* o[t]: those of the action at t - 1. Environments restart lazily: o[t] of an ended episode is its
final observation. It is needed to judge a truncated episode, but the action chosen there is no move of that episode:
such steps are left out of every loss, and after them the recurrent state begins anew.
"""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any, override

import numpy as np
import torch
from pufferlib import vector
from pufferlib.pufferlib import unroll_nested_dict
from torch import Tensor, nn

from scout import categorical
from scout.advantages import Ahead, Timeline, generalized_advantages
from scout.config import Experiment
from scout.device import to_device
from scout.excursions import Excursions
from scout.losses import drift_of, policy_losses, value_losses
from scout.models import fixed_weights
from scout.optimizer import make_optimizer, make_schedule
from scout.priorities import draw_by_priority
from scout.ranks import ALONE, Ranks
from scout.reward_scale import RewardScale
from scout.sequences import cut_at_ends
from scout.trainer import STATE, StockTrainer, diverged


class PPO(StockTrainer):
    """Recurrent PPO on PuffeRL's buffers."""

    def __init__(
        self, experiment: Experiment, device: str, vecenv: Any, network: nn.Module, ranks: Ranks = ALONE
    ) -> None:
        super().__init__(experiment, device, vecenv, network, ranks)
        # PuffeRL knows no adamw, and its cosine ends one update early at a rate of 0 and never reads min_lr_ratio.
        self.optimizer = make_optimizer(experiment.optimizer, network)
        self.scheduler = make_schedule(experiment.optimizer, self.optimizer, self.total_updates)
        hidden_size: Any = network.hidden_size
        self.initial_states = {key: torch.zeros(self.segments, hidden_size, device=device) for key in STATE}
        self.reward_scale = RewardScale(self.total_agents, experiment.trainer.gamma, ranks, len(experiment.missions))
        self.excursions: Excursions | None = None
        self.excursion = torch.zeros(self.values.shape, dtype=torch.bool, device=device)  # steps that are part of one
        acting: Any = network.forward_eval
        self._acting: Any = torch.compile(acting) if experiment.device.compile else acting
        self._rolling_out = False
        self._received: list[tuple[Any, Any]] = []  # steps that arrived after the last rollout and await their action
        self.ahead: Ahead

    def _autocast(self) -> AbstractContextManager[Any]:
        """Products in the precision that was asked for; in a rollout, weights are cast but once.

        Else the cache is off: it belongs to the process, and PuffeRL enters a context for good, whose cache would keep
        the first update's weights.
        """
        if self.experiment.device.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.config["device"], dtype=torch.bfloat16, cache_enabled=self._rolling_out)

    # -- rollout -----------------------------------------------------------------------------------------------------

    @override
    def evaluate(self) -> defaultdict[str, list[Any]]:
        """Collects `segments x bptt_horizon` steps, and what arrives one step after them."""
        batches = self.total_agents // self.vecenv.agents_per_batch
        torch.clear_autocast_cache()
        if self.excursions is not None:
            self.excursions.anneal(self.global_step / self.experiment.total_timesteps)
        self._rolling_out = True
        # A network of the user's own may make tensors at its first call that its training needs too.
        without_gradients = torch.inference_mode if self.experiment.model.target is None else torch.no_grad
        with without_gradients(), self._autocast(), fixed_weights(self.uncompiled_policy):
            if not self.experiment.trainer.carry_state:
                for state in (*self.lstm_h.values(), *self.lstm_c.values()):
                    state.zero_()
            for step in range(self.segments // self.total_agents * self.config["bptt_horizon"]):
                for _ in range(batches):
                    self._act(step)
            self.ahead = self._look_ahead(batches)
        self._rolling_out = False
        torch.clear_autocast_cache()
        return self.stats

    def _receive(self) -> Any:
        """The next batch of steps, those kept from the last rollout first."""
        if not self._received:
            return self.vecenv.recv()
        arrived, workers = self._received.pop(0)
        self.vecenv.w_slice, self.vecenv.flag = workers, vector.SEND  # so that send() answers these
        return arrived

    def _act(self, step: int) -> None:
        """Receives one batch of agents' step, stores it, and sends their actions."""
        observation, reward, terminal, truncation, _, infos, agent_ids, mask = self._receive()
        agents = slice(int(agent_ids[0]), int(agent_ids[-1]) + 1)
        # Agent a's segment k lies in row k x total_agents + a, so a row's continuation is total_agents further on.
        segment, t = divmod(step, self.config["bptt_horizon"])
        rows = slice(segment * self.total_agents + agents.start, segment * self.total_agents + agents.stop)

        state = self._state(agents.start)
        if t == 0:
            for key in STATE:
                self.initial_states[key][rows] = state[key]
        tokens = to_device(observation, self.config["device"])
        logits, value, state = self._forward(tokens, state)
        action, logprob = categorical.draw(logits, self.ranks)
        outcome = self._outcome(reward, terminal, truncation)
        if self.excursions is not None:
            action, self.excursion[rows, t] = self.excursions.take(agents, action, over=outcome[1] + outcome[2] > 0)
        self.observations[rows, t] = tokens.to(self.observations.device)
        self.vecenv.send(action.int().cpu().numpy())  # which may write over all that arrived
        self.actions[rows, t] = action
        self.logprobs[rows, t] = logprob
        self.values[rows, t] = value
        self.rewards[rows, t], self.terminals[rows, t], self.truncations[rows, t] = outcome
        # PuffeRL keeps the state across episodes: the next one would begin with memories of another map.
        goes_on = (outcome[1] + outcome[2] == 0).unsqueeze(1)
        self.lstm_h[agents.start], self.lstm_c[agents.start] = (state[key] * goes_on for key in STATE)

        self.global_step += int(mask.sum()) * self.ranks.size
        for info in infos:
            for key, statistic in unroll_nested_dict(info):
                self.stats[key].append(statistic)

    def _state(self, first_agent: int) -> dict[str, Tensor]:
        """The recurrent state of one batch of agents: float32 [agents, hidden_size] each."""
        return {"lstm_h": self.lstm_h[first_agent], "lstm_c": self.lstm_c[first_agent]}

    def _forward(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits, values [agents] and the next state of one batch of agents; the state given stays as it is."""
        state = dict(state)
        with self._autocast():
            logits, value = self._acting(tokens, state)
        # Networks leave a state as [B, hidden_size] or [B, 1, hidden_size].
        return logits.float(), value.flatten().float(), {key: state[key].flatten(1).float() for key in STATE}

    def _look_ahead(self, batches: int) -> Ahead:
        """Receives each batch's next step without answering it; `_receive` hands it out again."""
        ahead = Ahead(*(torch.zeros(self.total_agents, device=self.config["device"]) for _ in Ahead._fields))
        for _ in range(batches):
            arrived = self.vecenv.recv()
            self.vecenv.flag = vector.RECV
            self._received.append((arrived, getattr(self.vecenv, "w_slice", None)))
            observation, reward, terminal, truncation, *_, agent_ids, _ = arrived
            agents = slice(int(agent_ids[0]), int(agent_ids[-1]) + 1)
            tokens = to_device(observation, self.config["device"])
            _, ahead.values[agents], _ = self._forward(tokens, self._state(agents.start))
            outcome = self._outcome(reward, terminal, truncation)
            ahead.rewards[agents], ahead.terminals[agents], ahead.truncations[agents] = outcome
        return ahead

    def _outcome(self, *parts: Any) -> tuple[Tensor, ...]:
        """Reward, terminal and truncation that arrived with a step: float32 [agents] each, on the training device."""
        return to_device(
            np.stack([np.asarray(part, dtype=np.float32) for part in parts]), self.config["device"]
        ).unbind()

    # -- what an update learns from ----------------------------------------------------------------------------------

    @property
    def ended(self) -> Tensor:
        """Where the observation is an episode's final one: bool [segments, bptt_horizon]."""
        return (self.terminals + self.truncations) > 0

    @property
    def counted(self) -> Tensor:
        """Where the policy chose an action that was played: bool [segments, bptt_horizon]."""
        return ~(self.ended | self.excursion)

    def _timeline(self, stored: Tensor, ahead: Tensor) -> Tensor:
        """[segments, bptt_horizon] and the step after it as [agents, L + 1]: each agent's steps in their order."""
        return torch.cat([*stored.split(self.total_agents), ahead.unsqueeze(1)], dim=1)

    def _advantages(self, rewards: Tensor) -> Tensor:
        """Advantages of the whole rollout, float32 [segments, bptt_horizon], with the current values and ratios.

        Raises ScoutError when one is not finite.
        """
        timeline = Timeline(
            self._timeline(self.values, self.ahead.values),
            rewards,
            self._timeline(self.terminals, self.ahead.terminals),
            # What follows upon an excursion is not the policy's doing: the value where it begins stands for it.
            self._timeline(torch.maximum(self.truncations, self.excursion.float()), self.ahead.truncations),
        )
        ratio = torch.cat(self.ratio.split(self.total_agents), dim=1)
        advantages = generalized_advantages(timeline, ratio, self.experiment.trainer)
        if self.ranks.sum((~advantages.isfinite()).sum(), "the advantages") > 0:  # all ranks end alike
            raise diverged(self.epoch, "the advantages, computed from rewards and values, are not finite")
        return torch.cat(advantages.split(self.config["bptt_horizon"], dim=1))

    def _rewards(self) -> Tensor:
        """The rollout's rewards [agents, L + 1] as they are trained on: normalized, then clamped, where asked for.

        PuffeRL clamps all rewards to [-1, 1].
        """
        config = self.experiment.trainer
        rewards = self._timeline(self.rewards, self.ahead.rewards)
        if config.normalize_rewards:
            ends = self._timeline(self.ended.float(), self.ahead.terminals + self.ahead.truncations)
            missions = self.vecenv.record.missions(ends) if len(self.experiment.missions) > 1 else None
            # The first arrived with the rollout before.
            self.reward_scale.update(rewards[:, 1:], ends[:, 1:], None if missions is None else missions[:, 1:])
            rewards = self.reward_scale.scaled(rewards, missions)
        return rewards if config.reward_clip is None else rewards.clamp(-config.reward_clip, config.reward_clip)

    def _draw(self, minibatch: int, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """Segments of a minibatch, int64 [M], and their weights in the policy loss, float32 [M, 1].

        Each epoch goes through all segments once, in a new order. PuffeRL draws by priority instead, anew for each
        minibatch, so that an update leaves out some segments and takes others twice: `prioritized_replay`.
        """
        config = self.experiment.trainer
        size = config.minibatch_size // config.bptt_horizon
        if config.prioritized_replay:
            progress = self.scheduler.last_epoch / max(self.total_updates - 1, 1)
            return draw_by_priority((advantages.abs() * self.counted).sum(dim=1), size, progress, config)
        begin = minibatch * size % self.segments
        if begin == 0:
            self._order = torch.randperm(self.segments, device=self.config["device"])
        return self._order[begin : begin + size], torch.ones(size, 1, device=self.config["device"])

    def _replay(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [M x T, actions] and values [M, T] of some segments, from the states that they were played with.

        The state begins anew where an episode ended, so what follows in a segment is run as a sequence of its own,
        beside the others. PuffeRL starts every segment from zero and never resets, so that it trains another policy
        than the one that acted.
        """
        cut = cut_at_ends(self.ended[rows])
        played = rows[cut.segment]
        state = {key: self.initial_states[key][played] * (cut.first == 0).unsqueeze(1) for key in STATE}
        at = played.unsqueeze(1).to(self.observations.device), cut.steps.to(self.observations.device)
        with self._autocast():
            logits, values = self.policy(self.observations[at].to(self.config["device"], non_blocking=True), state)
        logits, values = logits.float().view(*cut.steps.shape, -1), values.float().view(cut.steps.shape)
        if len(played) > len(rows):
            logits, values = cut.back(logits), cut.back(values)
        return logits.flatten(0, 1), values

    # -- update ------------------------------------------------------------------------------------------------------

    def _update(self) -> None:
        """Trains on the rollout, minibatch by minibatch."""
        config = self.experiment.trainer
        self.ratio[:] = 1
        acted_values, rewards = self.values.clone(), self._rewards()
        advantages = self._advantages(rewards)
        counted = self.counted
        returns = (advantages + acted_values)[counted]
        explained_variance = 1 - self.ranks.variance(returns - acted_values[counted]) / self.ranks.variance(returns)

        minibatches = config.update_epochs * self.experiment.batch_size // config.minibatch_size
        measured: list[dict[str, Tensor]] = []
        norms: list[Tensor] = []  # of the whole gradient, which all ranks have
        for minibatch in range(minibatches):
            if minibatch > 0 and (
                config.prioritized_replay or minibatch * config.minibatch_size % self.experiment.batch_size == 0
            ):
                advantages = self._advantages(rewards)  # with what the minibatches before have changed
            rows, weights = self._draw(minibatch, advantages)
            found = self._learn(rows, weights, advantages[rows], acted_values[rows])
            measured.append(found)
            if config.target_kl is not None and self.ranks.sum(found["approx_kl"], "the KL") > config.target_kl:
                break  # before the step, so the policy stays where it is
            self.ranks.sum_gradients(self.uncompiled_policy.parameters())
            norms.append(self._clip_gradients())
            self.optimizer.step()

        means = torch.stack([torch.stack([found[name] for found in measured]).mean() for name in measured[0]])
        self.losses = dict(zip(measured[0], self.ranks.sum(means, "the losses").tolist(), strict=True))
        if norms:
            self.losses["gradient_norm"] = torch.stack(norms).mean().item()
        self.losses["explained_variance"] = explained_variance.item()
        if config.target_kl is not None:
            self.losses["minibatches"] = len(measured)

    def _learn(self, rows: Tensor, weights: Tensor, advantages: Tensor, acted_values: Tensor) -> dict[str, Tensor]:
        """Accumulates this rank's share of a minibatch's gradient, in parts that fit in memory; returns that of losses.

        All means are over the whole minibatch, of all ranks, so that the gradient does not depend on the parts: PuffeRL
        adds the gradients of the parts' means, and normalizes each part's advantages by itself.
        """
        config = self.experiment.trainer
        self.optimizer.zero_grad()
        counted = self.counted[rows]
        returns = advantages + self.values[rows]
        count, mean, deviation = self.ranks.count_mean_and_deviation(advantages[counted])
        advantages = weights * (advantages - mean) / (deviation + 1e-8)
        share = counted / count
        losses: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.config["device"]))
        for part in torch.arange(len(rows), device=rows.device).split(self.minibatch_segments):
            logits, values = self._replay(rows[part])
            logprobs, entropy = categorical.look_back(logits, self.actions[rows[part]].flatten())
            log_ratio = logprobs.view(values.shape) - self.logprobs[rows[part]]
            log_ratio = log_ratio.masked_fill(~counted[part], 0.0)  # else one that overflows would be 0 x inf below
            ratio = log_ratio.exp()
            terms = {
                "policy_loss": policy_losses(ratio, advantages[part], config.clip_coef),
                "value_loss": value_losses(values, acted_values[part], returns[part], config.vf_clip_coef),
                "entropy": entropy.view(values.shape),
                **drift_of(log_ratio, ratio, config.clip_coef),
            }
            means = {name: (term * share[part]).sum() for name, term in terms.items()}
            loss = means["policy_loss"] + config.vf_coef * means["value_loss"] - config.ent_coef * means["entropy"]
            loss.backward()
            self.ratio[rows[part]], self.values[rows[part]] = ratio.detach(), values.detach()
            for name, mean in means.items():
                losses[name] = losses[name] + mean.detach()
        return losses

    @override
    def train(self) -> None:
        """One update. Raises ScoutError, before the step is taken, when a gradient is not finite."""
        self._update()
        self.scheduler.step()
        self.epoch += 1
        self.mean_and_log()
        self.stats = defaultdict(list)
        self.check_finite()

    @override
    def state_dict(self) -> dict[str, Any]:
        own = {name: part.state_dict() for name, part in self._parts().items()}
        return {**super().state_dict(), **own}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for name, part in self._parts().items():
            if name in state:  # else excursions begin with this resume
                part.load_state_dict(state[name])

    def _parts(self) -> dict[str, RewardScale | Excursions]:
        """What keeps a state of its own from update to update."""
        return {"reward_scale": self.reward_scale} | ({"excursions": self.excursions} if self.excursions else {})

    @override
    def restore_schedule(self, saved: dict[str, Any]) -> None:
        """By the agent steps: with another number of ranks so many are another number of updates."""
        schedule: Any = self.scheduler
        schedule.last_epoch = self.global_step // (self.experiment.batch_size * self.ranks.size)
        schedule._step_count = saved["_step_count"]
        factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
        self._set_learning_rates([rate * factor for rate, factor in zip(schedule.base_lrs, factors, strict=True)])
