"""PuffeRL with its learning defects mended: `trainer=ppo`.

Mended so far: the last step of every segment has a bootstrap value and keeps its reward; a truncated episode is told
from one that ended; mixed precision acts with the current weights; the learning rate's schedule spans the run.
As in PuffeRL still: rewards are clamped to [-1, 1]; recurrent states are zeroed at each rollout and not at an episode's
end, and training starts every segment from zero; prioritised replay leaves segments out; accumulated parts of a
minibatch are added, not averaged; the first action of an episode is the one chosen on the last one's final observation.

In PuffeRL's buffers step t holds the observation o[t], the action chosen there, and the reward, terminal and truncation
that *arrived with* o[t]: those of the action at t - 1. Environments restart lazily: o[t] of an ended episode is its
final observation, and the action chosen there begins the next one.
"""

from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, override

import torch
from pufferlib import vector
from pufferlib.pufferlib import unroll_nested_dict
from pufferlib.pytorch import sample_logits
from torch import Tensor, nn

from scout.config import Experiment
from scout.optimizer import make_optimizer, make_schedule
from scout.trainer import StockTrainer, diverged


class Ahead(NamedTuple):
    """What arrives one step after a rollout's last: float32 [agents] each."""

    values: Tensor
    rewards: Tensor
    terminals: Tensor
    truncations: Tensor


class PPO(StockTrainer):
    """Recurrent PPO on PuffeRL's buffers."""

    def __init__(self, experiment: Experiment, device: str, vecenv: Any, network: nn.Module) -> None:
        super().__init__(experiment, device, vecenv, network)
        # PuffeRL knows no adamw, and its cosine ends one update early at a rate of 0 and never reads min_lr_ratio.
        self.optimizer = make_optimizer(experiment.optimizer, network)
        self.optimizer.register_step_pre_hook(lambda *_: self._check_gradients())
        self.scheduler = make_schedule(experiment.optimizer, self.optimizer, self.total_updates)
        self._received: list[tuple[Any, Any]] = []  # steps that arrived after the last rollout and await their action
        self.ahead: Ahead

    def _autocast(self) -> AbstractContextManager[Any]:
        """A fresh context without a cache: PuffeRL enters one for good, and its cache keeps the first update's weights.

        The cache belongs to the process: where another run left a context open, it would outlive this one too.
        """
        if self.experiment.device.precision == "float32":
            return nullcontext()
        return torch.autocast(self.config["device"], dtype=torch.bfloat16, cache_enabled=False)

    # -- rollout -----------------------------------------------------------------------------------------------------

    @override
    @torch.no_grad()
    def evaluate(self) -> defaultdict[str, list[Any]]:
        """Collects `segments x bptt_horizon` steps, and what arrives one step after them."""
        for state in (*self.lstm_h.values(), *self.lstm_c.values()):
            state.zero_()
        batches = self.total_agents // self.vecenv.agents_per_batch
        for step in range(self.segments // self.total_agents * self.config["bptt_horizon"]):
            for _ in range(batches):
                self._act(step)
        self.ahead = self._look_ahead(batches)
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

        logits, value = self._forward(observation, agents.start)
        action, logprob, _ = sample_logits(logits)

        self.observations[rows, t] = torch.as_tensor(observation).to(self.observations.device)
        self.actions[rows, t] = action
        self.logprobs[rows, t] = logprob
        self.values[rows, t] = value.flatten().float()
        outcome = self._outcome(reward, terminal, truncation)
        self.rewards[rows, t], self.terminals[rows, t], self.truncations[rows, t] = outcome

        self.global_step += int(mask.sum())
        for info in infos:
            for key, statistic in unroll_nested_dict(info):
                self.stats[key].append(statistic)
        self.vecenv.send(action.cpu().numpy())

    def _forward(self, observation: Any, first_agent: int) -> tuple[Tensor, Tensor]:
        """Logits and values of one batch of agents; their recurrent states go on."""
        state = {"lstm_h": self.lstm_h[first_agent], "lstm_c": self.lstm_c[first_agent]}
        with self._autocast():
            logits, value = self.uncompiled_policy.forward_eval(
                torch.as_tensor(observation).to(self.config["device"]), state
            )
        self.lstm_h[first_agent], self.lstm_c[first_agent] = state["lstm_h"].float(), state["lstm_c"].float()
        return logits.float(), value

    def _look_ahead(self, batches: int) -> Ahead:
        """Receives each batch's next step without answering it; `_receive` hands it out again."""
        ahead = Ahead(*(torch.zeros(self.total_agents, device=self.config["device"]) for _ in Ahead._fields))
        for _ in range(batches):
            arrived = self.vecenv.recv()
            self.vecenv.flag = vector.RECV
            self._received.append((arrived, getattr(self.vecenv, "w_slice", None)))
            observation, reward, terminal, truncation, *_, agent_ids, _ = arrived
            agents = slice(int(agent_ids[0]), int(agent_ids[-1]) + 1)
            _, value = self._forward(observation, agents.start)
            ahead.values[agents] = value.flatten().float()
            outcome = self._outcome(reward, terminal, truncation)
            ahead.rewards[agents], ahead.terminals[agents], ahead.truncations[agents] = outcome
        return ahead

    def _outcome(self, reward: Any, terminal: Any, truncation: Any) -> tuple[Tensor, ...]:
        """What arrived with a step, float32 [agents] each on the training device; the reward clamped as in PuffeRL."""
        parts = [torch.as_tensor(part).to(self.config["device"]).float() for part in (reward, terminal, truncation)]
        return parts[0].clamp(-1, 1), parts[1], parts[2]

    # -- update ------------------------------------------------------------------------------------------------------

    def _advantages(self) -> Tensor:
        """Advantages of the whole rollout, float32 [segments, bptt_horizon], with the current values and ratios."""
        following = [
            torch.cat([stored[self.total_agents :, 0], arrived])
            for stored, arrived in zip(
                (self.values, self.rewards, self.terminals, self.truncations), self.ahead, strict=True
            )
        ]
        return bootstrapped_advantages(
            (self.values, self.rewards, self.terminals, self.truncations), following, self.ratio, self.config
        )

    def _stored_observations(self, rows: Tensor) -> Tensor:
        """Observations of some segments on the training device; with cpu_offload they are kept on the CPU."""
        return self.observations[rows.to(self.observations.device)].to(self.config["device"])

    def _update(self) -> None:
        """PuffeRL's update, minibatch by minibatch, on bootstrapped advantages."""
        config, losses = self.config, defaultdict(float)
        beta = (
            config["prio_beta0"] + (1 - config["prio_beta0"]) * config["prio_alpha"] * self.epoch / self.total_updates
        )
        self.ratio[:] = 1
        advantages = torch.empty(0)
        for minibatch in range(self.total_minibatches):
            advantages = self._advantages()
            if not advantages.isfinite().all():
                raise diverged(self.epoch, "the advantages, computed from rewards and values, are not finite")
            priorities = advantages.abs().sum(dim=1) ** config["prio_alpha"]
            probabilities = (priorities + 1e-6) / (priorities.sum() + 1e-6)
            rows = torch.multinomial(probabilities, self.minibatch_segments)
            weights = (self.segments * probabilities[rows, None]) ** -beta
            returns = advantages[rows] + self.values[rows]

            with self._autocast():
                state = {"lstm_h": None, "lstm_c": None}
                logits, values = self.policy(self._stored_observations(rows), state)
            _, logprobs, entropy = sample_logits(logits.float(), action=self.actions[rows])
            values = values.float().view(returns.shape)
            log_ratio = logprobs.view(returns.shape) - self.logprobs[rows]
            ratio = log_ratio.exp()

            advantage = advantages[rows]
            advantage = weights * (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            clipped_ratio = ratio.clamp(1 - config["clip_coef"], 1 + config["clip_coef"])
            policy_loss = torch.max(-advantage * ratio, -advantage * clipped_ratio).mean()

            old_values = self.values[rows]
            clipped = old_values + (values - old_values).clamp(-config["vf_clip_coef"], config["vf_clip_coef"])
            value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()

            loss = policy_loss + config["vf_coef"] * value_loss - config["ent_coef"] * entropy.mean()
            loss.backward()
            self.ratio[rows] = ratio.detach()
            self.values[rows] = values.detach()
            if (minibatch + 1) % self.accumulate_minibatches == 0:
                nn.utils.clip_grad_norm_(self.uncompiled_policy.parameters(), config["max_grad_norm"])
                self.optimizer.step()
                self.optimizer.zero_grad()

            with torch.no_grad():
                measured = {
                    "policy_loss": policy_loss,
                    "value_loss": value_loss,
                    "entropy": entropy.mean(),
                    "old_approx_kl": -log_ratio.mean(),
                    "approx_kl": (ratio - 1 - log_ratio).mean(),
                    "clipfrac": ((ratio - 1).abs() > config["clip_coef"]).float().mean(),
                    "importance": ratio.mean(),
                }
            for name, value in measured.items():
                losses[name] += value.item() / self.total_minibatches

        targets = advantages + self.values
        losses["explained_variance"] = (1 - (targets - self.values).var() / targets.var()).item()
        self.losses = dict(losses)

    @override
    def train(self) -> None:
        """One update. Raises ScoutError, before the step is taken, when a gradient is not finite."""
        self._update()
        self.scheduler.step()
        self.epoch += 1
        self.mean_and_log()
        self.stats = defaultdict(list)
        self.check_finite()


def bootstrapped_advantages(rollout: Any, following: Any, ratio: Tensor, config: dict[str, Any]) -> Tensor:
    """V-trace's generalised advantages, float32 [S, T], of S segments of T steps that go on after their end.

    `rollout` holds values, rewards, terminals and truncations, float32 [S, T] each; `following` the same, [S] each, for
    the step after each segment's last; `ratio` [S, T] are the probability ratios, cut at their ceilings here. A
    truncated episode would have gone on, so its last value counts as its future, but nothing flows back from the
    episode after it.

    Sources: Schulman et al., 2016, "GAE", equation 16; Espeholt et al., 2018, "IMPALA", section 4.1; Pardo et al.,
    2018, "Time limits in reinforcement learning". In torch, since PuffeRL's kernel knows neither truncations nor a
    following step, and its Linux build loads only where CUDA's libraries are.
    """
    values, rewards, terminals, truncations = (
        torch.cat([stored, column.unsqueeze(1)], dim=1) for stored, column in zip(rollout, following, strict=True)
    )
    gamma, trace_decay = config["gamma"], config["gamma"] * config["gae_lambda"]
    rho, c = ratio.clamp(max=config["vtrace_rho_clip"]), ratio.clamp(max=config["vtrace_c_clip"])
    advantages = torch.zeros_like(ratio)
    advantage = torch.zeros_like(ratio[:, 0])
    for t in reversed(range(ratio.shape[1])):
        # delta[t] = rho[t] (r[t+1] + gamma V(o[t+1]) (1 - terminal[t+1]) - V(o[t]))
        has_future = 1 - terminals[:, t + 1]
        delta = rho[:, t] * (rewards[:, t + 1] + gamma * values[:, t + 1] * has_future - values[:, t])
        # A[t] = delta[t] + gamma lambda c[t] A[t+1] (1 - terminal[t+1]) (1 - truncation[t+1])
        goes_on = has_future * (1 - truncations[:, t + 1])
        advantage = delta + trace_decay * c[:, t] * advantage * goes_on
        advantages[:, t] = advantage
    return advantages
