"""A first layer that adds up what an observation's tokens say, instead of multiplying a grid that is 99% zeros.

Of a window's 121 cells x 78 features some 40 are not zero. Every first layer here is linear in them, so that a token
adds a few rows of a weight table, each times a factor, to a few outputs: which ones, its three bytes tell. Reading them
takes less time than reading anything that was stored about them, so nothing is decoded beforehand. Compiled by numba,
for the CPU; the plain twin is a dense layer on a grid.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from scout.models.readers import BYTES, Reader
from scout.observation import PADDING

UPPER = np.uint32(16)  # of a float32's bits: bfloat16 is the upper 16
_SHARE = 512  # observations that are worth a thread of their own


@torch.compiler.disable
def _first_layer(tokens: Tensor, table: Tensor, bias: Tensor, reader: Reader) -> Tensor:
    """relu(bias + what the tokens add up to): [N, outputs, D] of tokens uint8 [N, T, 3] and a table [rows, taps, D].

    The sums are float32; under autocast the result is bfloat16.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    with torch.autocast("cpu", enabled=False):
        return _FirstLayer.apply(tokens, table.float(), bias.float(), reader, dtype)  # pyright: ignore[reportReturnType]


# torch.compile does not look into it; the annotation says what its decorator forgets.
first_layer: Callable[[Tensor, Tensor, Tensor, Reader], Tensor] = _first_layer  # pyright: ignore[reportAssignmentType]


class _FirstLayer(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, tokens: Tensor, table: Tensor, bias: Tensor, reader: Reader, dtype: torch.dtype
    ) -> Tensor:
        tokens, table = tokens.contiguous(), table.contiguous()
        result = torch.empty(len(tokens), reader.outputs, table.shape[2], dtype=dtype)
        given, weights, start, written = tokens.numpy(), table.detach().numpy(), bias.detach().numpy(), _bits(result)
        _in_parts(
            len(tokens),
            lambda _, low, high: _forward(given[low:high], weights, start, *reader.tables, written[low:high]),
        )
        ctx.save_for_backward(tokens, result)
        ctx.reader, ctx.size = reader, table.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        tokens, result = ctx.saved_tensors
        given, values, back = tokens.numpy(), _bits(result), _bits(gradients[0].to(result.dtype).contiguous())
        parts = _parts(len(tokens))
        to_table = torch.zeros(parts, *ctx.size)
        to_bias = torch.zeros(parts, ctx.size[2])
        tables, biases = to_table.numpy(), to_bias.numpy()
        _in_parts(
            len(tokens),
            lambda part, low, high: _backward(
                given[low:high], values[low:high], back[low:high], *ctx.reader.tables, tables[part], biases[part]
            ),
        )
        if parts == 1:
            return None, to_table[0], to_bias[0], None, None
        return None, to_table.sum(dim=0), to_bias.sum(dim=0), None, None


def _bits(tensor: Tensor) -> NDArray[Any]:
    """The tensor as numba can read it: float32 as it is, bfloat16 as the bits that it is made of."""
    return tensor.numpy() if tensor.dtype == torch.float32 else tensor.view(torch.uint16).numpy()


def _parts(observations: int) -> int:
    return max(1, min(torch.get_num_threads(), observations // _SHARE))


def _in_parts(observations: int, work: Callable[[int, int, int], None]) -> None:
    """Calls work(part, first, last + 1) for as many parts as there are threads; compiled code runs side by side."""
    parts = _parts(observations)
    bounds = [observations * part // parts for part in range(parts + 1)]
    if parts == 1:
        work(0, 0, observations)
    else:
        list(_pool(parts).map(work, range(parts), bounds[:-1], bounds[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="first-layer")


compiled: Any = njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})


@compiled
def _forward(tokens, table, bias, uses, outputs, taps, readings, rows, factors, result):
    sums = np.empty((result.shape[1], result.shape[2]), dtype=np.float32)
    bits = sums.view(np.uint32)
    for n in range(len(tokens)):
        sums[:] = bias
        for t in range(tokens.shape[1]):
            place = tokens[n, t, 0]
            if place == PADDING:
                continue
            code = np.int64(tokens[n, t, 1]) * BYTES + np.int64(tokens[n, t, 2])
            for use in range(uses[place]):
                total, tap = sums[outputs[place, use]], taps[place, use]
                for reading in range(readings[code]):
                    row, factor = table[rows[code, reading], tap], factors[code, reading]
                    for d in range(len(total)):
                        total[d] += factor * row[d]
        for output in range(sums.shape[0]):
            for d in range(sums.shape[1]):
                if sums[output, d] <= 0:  # not where it is no number, which must be seen
                    sums[output, d] = 0
        if result.itemsize == 4:
            result[n] = sums
        else:  # the upper half of a float32's bits, rounded to the nearest even
            for output in range(sums.shape[0]):
                for d in range(sums.shape[1]):
                    whole = bits[output, d]
                    result[n, output, d] = (
                        whole + np.uint32(0x7FFF) + ((whole >> np.uint32(16)) & np.uint32(1))
                    ) >> np.uint32(16)


@compiled
def _backward(tokens, values, gradient, uses, outputs, taps, readings, rows, factors, to_table, to_bias):
    back = np.empty((values.shape[1], values.shape[2]), dtype=np.float32)
    bits = back.view(np.uint32)
    for n in range(len(tokens)):
        for output in range(back.shape[0]):
            for d in range(back.shape[1]):
                if values.itemsize == 4:
                    back[output, d] = gradient[n, output, d]
                else:
                    bits[output, d] = np.uint32(gradient[n, output, d]) << UPPER
                if values[n, output, d] == 0:  # where the relu was closed
                    back[output, d] = 0
                to_bias[d] += back[output, d]
        for t in range(tokens.shape[1]):
            place = tokens[n, t, 0]
            if place == PADDING:
                continue
            code = np.int64(tokens[n, t, 1]) * BYTES + np.int64(tokens[n, t, 2])
            for use in range(uses[place]):
                total, tap = back[outputs[place, use]], taps[place, use]
                for reading in range(readings[code]):
                    row, factor = to_table[rows[code, reading], tap], factors[code, reading]
                    for d in range(len(total)):
                        row[d] += factor * total[d]
