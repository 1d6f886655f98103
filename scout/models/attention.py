"""Attention over the set of embedded tokens, each with its place: no grid at all."""

import torch
from einops import rearrange
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.model_config import AttentionConfig
from scout.models.embedding import TokenEmbedding, Tokens
from scout.models.heads import Heads, split_steps
from scout.models.memory import RELU_GAIN, RecurrentLayer, orthogonal
from scout.models.turned_views import TurnedViews


class Attention(nn.Module):
    """Learned questions attend to the tokens of the window; those of the own cell and of no cell are read apart.

    Source: Lee et al., 2019, "Set Transformer", section 3.2, pooling by multi-head attention, with one question a head.
    """

    def __init__(self, env_info: PolicyEnvInterface, config: AttentionConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self._heads = config.heads
        self.views = TurnedViews(env_info, config.turned_views)
        self.embedding = TokenEmbedding(env_info, config.embedding_size)
        places = env_info.obs_height * env_info.obs_width
        self._centre = env_info.obs_height // 2 * env_info.obs_width + env_info.obs_width // 2
        self._no_cell = places
        self.place = nn.Embedding(places + 1, config.embedding_size)
        nn.init.normal_(self.place.weight, std=config.embedding_size**-0.5)
        self.token = orthogonal(nn.Linear(config.embedding_size, config.token_features), RELU_GAIN)
        self.question = orthogonal(nn.Linear(config.token_features, config.heads, bias=False), gain=1.0)
        self.surroundings = orthogonal(nn.Linear(config.token_features, config.features), RELU_GAIN)
        self.own = orthogonal(nn.Linear(2 * config.embedding_size, config.global_features), RELU_GAIN)
        self.memory = RecurrentLayer(config.memory, config.features + config.global_features, config.hidden_size)
        self.heads = Heads(config.hidden_size, len(env_info.action_names))

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> logits [B x S, actions], values [B x S, 1]; `state` goes on."""
        tokens, steps = split_steps(observations)
        tokens, turns = self.views(tokens)
        found = self.embedding(tokens)
        own = [_sums(found, found.place == place, tokens.shape[0]) for place in (self._centre, self._no_cell)]
        own = torch.relu(self.own(torch.cat(own, dim=-1)))
        surroundings = torch.relu(self.surroundings(self._pool(found, tokens.shape[0])))
        features = rearrange(torch.cat([surroundings, own], dim=-1), "(b s) f -> b s f", s=steps)
        logits, values = self.heads(self.memory(features, state))
        return self.views.back(logits, turns), values

    def _pool(self, found: Tokens, batch: int) -> Tensor:
        """Each head's mean of its part of the tokens' features, weighted by its softmax: [B, token_features]."""
        token = torch.relu(self.token(found.embedding + self.place(found.place)))
        score = self.question(token).float()
        index = found.observation.unsqueeze(1).expand_as(score)
        # An observation's largest score is taken off, so that no exponential is too large; the softmax is the same.
        largest = torch.zeros(batch, self._heads, device=score.device).scatter_reduce(
            0, index, score.detach(), "amax", include_self=False
        )
        weight = (score - largest[found.observation]).exp()
        total = torch.zeros_like(largest).index_add(0, found.observation, weight)
        weight = weight / total[found.observation]
        weighted = rearrange(token.float(), "n (h d) -> n h d", h=self._heads) * weight.unsqueeze(-1)
        return torch.zeros(batch, token.shape[1], device=token.device).index_add(
            0, found.observation, weighted.flatten(1)
        )

    def forward_eval(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """The same for one step; the name is the trainer's."""
        return self.forward(observations, state)


def _sums(found: Tokens, chosen: Tensor, batch: int) -> Tensor:
    """The sum of some of the tokens' vectors, float32 [B, embedding_size], in each of B observations."""
    embedding = found.embedding[chosen]
    sums = torch.zeros(batch, embedding.shape[1], dtype=embedding.dtype, device=embedding.device)
    return sums.index_add(0, found.observation[chosen], embedding)
