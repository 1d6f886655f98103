"""Each agent sees the world turned: agent 1 by a quarter turn, agent 2 by a half, and so on.

All agents share one network. Told apart by the number of their agent alone, they learn one habit for all, such as
walking north first and then round the border in a convoy, of which only the first agent sees anything new. Turned, the
same habit sends each of four agents to another side of the map.
"""

import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from torch import Tensor, nn

from scout.errors import ScoutError

TURNS = 4
_AFTER_A_TURN = {"north": "west", "west": "south", "south": "east", "east": "north"}  # what was north is seen west
_BYTES = 256


class TurnedViews(nn.Module):
    """Turns observations on their way into a network, and its logits on their way out; it has no weights.

    Turned are the places in the window, the offset from the start (`lp:north` ...) and the last action. Raises
    ScoutError for a window that is not square.
    """

    places: Tensor
    features: Tensor
    actions: Tensor

    def __init__(self, env_info: PolicyEnvInterface, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        height, width = env_info.obs_height, env_info.obs_width
        if turned and height != width:
            raise ScoutError(
                f"model.turned_views=true needs a square window, this mission's is {height} x {width} cells: "
                "set model.turned_views=false"
            )
        ids = {feature.name: int(feature.id) for feature in env_info.obs_features}
        self._agent_id, self._last_action = (ids.get(name, -1) for name in ("agent_id", "last_action"))
        self._own_cell = height // 2 << 4 | width // 2
        self._action_count = len(env_info.action_names)
        actions = {name: index for index, name in enumerate(env_info.action_names)}
        place, feature, action = (torch.arange(_BYTES) for _ in range(3))  # each after one turn
        for y in range(height):
            for x in range(width):
                place[y << 4 | x] = (width - 1 - x) << 4 | y
        for side, turned_side in _AFTER_A_TURN.items():
            if f"lp:{side}" in ids:
                feature[ids[f"lp:{side}"]] = ids[f"lp:{turned_side}"]
            if f"move_{side}" in actions:
                action[actions[f"move_{side}"]] = actions[f"move_{turned_side}"]
        for name, once in (("places", place), ("features", feature), ("actions", action)):
            turns = [torch.arange(_BYTES)]
            for _ in range(TURNS - 1):
                turns.append(once[turns[-1]])
            self.register_buffer(name, torch.cat(turns).to(torch.uint8), persistent=False)  # [turns x 256]

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens uint8 [B, T, 3] as the simulator gives them -> as each agent sees them, and its turns, int64 [B]."""
        if not self.turned:
            return tokens, None
        place, feature, value = tokens.unbind(-1)
        own = (place == self._own_cell) & (feature == self._agent_id)
        turns = (value * own).sum(dim=1) % TURNS
        row = (turns * _BYTES).unsqueeze(1)
        value = torch.where(feature == self._last_action, self.actions[row + value], value)
        return torch.stack([self.places[row + place], self.features[row + feature], value], dim=-1), turns

    def back(self, logits: Tensor, turns: Tensor | None) -> Tensor:
        """Logits [B, actions] of actions as each agent sees them -> of the simulator's own."""
        if turns is None:
            return logits
        return logits.gather(1, self.actions.view(TURNS, _BYTES)[turns, : self._action_count].long())
