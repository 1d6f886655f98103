"""A network of one's own for the tests of bundles, in two modules; its faults are chosen by model.options."""

import sys
import time

import own_layer
import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.model_config import ModelConfig


class OwnNetwork(nn.Module):
    """One layer over the bytes of the tokens, without memory. From the step `from_step` on it has its fault."""

    def __init__(self, env_info: PolicyEnvInterface, config: ModelConfig) -> None:
        super().__init__()
        self.hidden_size, self.options, self.steps = config.hidden_size, config.options, 0
        count = env_info.observation_space.shape[0] * 3
        self.body = own_layer.Bytes(count, config.hidden_size)
        self.action_head = nn.Linear(config.hidden_size, len(env_info.action_names))
        self.value_head = nn.Linear(config.hidden_size, 1)

    def forward(self, observations: Tensor, state: dict | None = None) -> tuple[Tensor, Tensor]:
        """Tokens uint8 [B, T, 3] or [B, S, T, 3] -> logits [B x S, actions], values [B x S, 1]."""
        self.steps += 1
        if self.steps > self.options.get("from_step", 0):
            match self.options.get("fault"):
                case "raises":
                    raise KeyError("the fault of this network")
                case "hangs":
                    time.sleep(600)
                case "hangs_on_server" if "mettagrid.runner.policy_server.server" in sys.orig_argv:
                    time.sleep(600)
                case "is_slow":
                    time.sleep(0.05)
                case "imports":
                    import hydra  # noqa: F401
                case "prints":
                    print("a network may say something", flush=True)
        features = torch.relu(self.body(observations.flatten(0, -3)))
        return self.action_head(features), self.value_head(features)

    forward_eval = forward
