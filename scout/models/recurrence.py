"""Recurrent layers on a CPU, with the weights of torch's: a sequence of a GRU, and single steps.

torch's GRU fills the gradient of a whole sequence with zeros at every step of its backward pass, and in bfloat16 keeps
the state itself in it, where a slow memory stands still: what changes it by less than 1/256 is rounded away. Its LSTM
is fast over sequences (oneDNN's), but prepares its weights anew at each call, which costs more than a single step. Here
the state is float32, and only the products are bfloat16 under autocast.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Kept = dict[str, Any]
"""What a network keeps of its weights within `fixed_weights`."""


class FastModule(nn.Module):
    """A network, or a part of one, that has layers of this project's own for a CPU beside torch's."""

    fast: bool = True
    """Whether it takes them, on a CPU."""
    kept: Kept | None = None
    """A place for what can be kept while the weights are fixed; None while they may change."""


def linear(kept: Kept | None, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer [B, inputs] -> [B, outputs]; while weights are fixed, float32's are laid out beforehand, by name.

    oneDNN multiplies 64 rows by such a weight 2.6 times as fast as torch's linear on an AMD EPYC. In bfloat16 it gains
    nothing. The two operations are those that torch.compile takes for frozen weights.
    """
    plain = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or x.device.type != "cpu"
    if kept is None or plain or "AVX" not in torch.backends.cpu.get_cpu_capability():
        return F.linear(x, weight, bias)
    if name not in kept:
        kept[name] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), len(x))
    return torch.ops.mkldnn._linear_pointwise(x, kept[name], bias.detach(), "none", [], "")


def lstm_step(layer: nn.LSTM, x: Tensor, h: Tensor, c: Tensor, kept: Kept | None) -> tuple[Tensor, Tensor]:
    """One step of the layer: inputs [B, inputs] and the state float32 [B, hidden] each -> the new state."""
    w, u, w_bias, u_bias = _weights(layer)
    gates = (linear(kept, "inputs", x, w, w_bias) + linear(kept, "state", h, u, u_bias)).float()
    size = layer.hidden_size
    entry, forget = gates[:, : 2 * size].sigmoid().chunk(2, dim=1)
    c = torch.addcmul(forget * c, entry, gates[:, 2 * size : 3 * size].tanh())
    return gates[:, 3 * size :].sigmoid() * c.tanh(), c


def gru_step(layer: nn.GRU, x: Tensor, h: Tensor, kept: Kept | None) -> Tensor:
    """One step of the layer: inputs [B, inputs] and the state float32 [B, hidden] -> the new state."""
    w, u, w_bias, u_bias = _weights(layer)
    from_x = linear(kept, "inputs", x, w, w_bias).float()
    from_h = linear(kept, "state", h, u, u_bias).float()
    size = layer.hidden_size
    reset, update = (from_x[:, : 2 * size] + from_h[:, : 2 * size]).sigmoid().chunk(2, dim=1)
    new = torch.addcmul(from_x[:, 2 * size :], reset, from_h[:, 2 * size :]).tanh()
    return torch.lerp(new, h, update)


def gru(layer: nn.GRU, features: Tensor, h: Tensor) -> Tensor:
    """The layer over features [B, S, inputs] from a state float32 [B, hidden] -> the states float32 [B, S, hidden]."""
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else torch.float32
    with torch.autocast("cpu", enabled=False):
        weights = (weight.to(dtype) for weight in _weights(layer))
        states: Tensor = _Gru.apply(features.transpose(0, 1).to(dtype), h, *weights)  # pyright: ignore[reportAssignmentType]
    return states.transpose(0, 1)


def _weights(layer: nn.LSTM | nn.GRU) -> list[Tensor]:
    return [
        cast("Tensor", getattr(layer, name)) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    ]


class _Gru(torch.autograd.Function):
    """h[t] = (1 - z) n + z h[t-1]; r, z = sigmoid(x W + h U); n = tanh(x W + r (h U)). Time comes first: [T, B, ...].

    Source: Cho et al., 2014, "Learning phrase representations", in the form of torch.nn.GRU and cuDNN, where r
    multiplies the product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, w: Tensor, u: Tensor, w_bias: Tensor, u_bias: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        steps, batch, _ = x.shape
        size = u.shape[1]
        from_x = F.linear(x, w, w_bias).float()
        states = torch.empty(steps + 1, batch, size)
        low = torch.empty(steps + 1, batch, size, dtype=x.dtype)  # the states as the products take them
        from_h = torch.empty(steps, batch, 3 * size)
        gates = torch.empty(steps, batch, 3 * size)
        states[0], low[0] = h, h
        transposed = u.t()
        for t in range(steps):
            from_h[t] = torch.addmm(u_bias, low[t], transposed)
            reset, _, new = gates[t].split(size, dim=1)
            both = gates[t, :, : 2 * size]
            torch.add(from_x[t, :, : 2 * size], from_h[t, :, : 2 * size], out=both).sigmoid_()
            torch.addcmul(from_x[t, :, 2 * size :], reset, from_h[t, :, 2 * size :], out=new).tanh_()
            torch.lerp(new, states[t], gates[t, :, size : 2 * size], out=states[t + 1])
            low[t + 1] = states[t + 1]
        ctx.save_for_backward(x, states, low, from_h, gates, w, u)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (from_above,) = gradients
        x, states, low, from_h, gates, w, u = ctx.saved_tensors
        steps, batch, _ = x.shape
        size = u.shape[1]
        reset, update, new = gates.split(size, dim=2)
        # All that a step's gradient is multiplied by, known before the loop: d r, d z, d (h U), d n per d h[t].
        to_new = (1 - update) * (1 - new * new)
        factors = torch.stack(
            [
                to_new * from_h[:, :, 2 * size :] * reset * (1 - reset),
                (states[:-1] - new) * update * (1 - update),
                to_new * reset,
                to_new,
            ],
            dim=2,
        )
        found = torch.empty(steps, batch, 4, size, dtype=x.dtype)
        back = torch.zeros_like(states[0])
        for t in reversed(range(steps)):
            back += from_above[t]
            torch.mul(factors[t], back.unsqueeze(1), out=found[t])
            through = found[t].flatten(1)[:, : 3 * size] @ u
            back = torch.addcmul(through.float(), back, update[t])
        to_h = found[:, :, :3].flatten(2).flatten(0, 1)
        to_x = found[:, :, [0, 1, 3]].flatten(2).flatten(0, 1)
        return (
            (to_x @ w).view_as(x),
            back,
            to_x.t() @ x.flatten(0, 1),
            to_h.t() @ low[:-1].flatten(0, 1),
            to_x.sum(dim=0),
            to_h.sum(dim=0),
        )
