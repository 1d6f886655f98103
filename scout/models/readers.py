"""What a token's bytes mean to a layer, as tables: what first_layer.py reads them by."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scout.observation import NO_CELL

BYTES = 256


class Reader:
    """What each byte of a token means to a layer.

    A token of place p adds to outputs[p], through taps[p]: int64 [256, P], -1 where there are fewer. Its feature and
    value stand for rows[feature * 256 + value], each times its factor: [65536, R], rows -1 where there are fewer.
    """

    def __init__(self, outputs: Tensor, taps: Tensor, rows: Tensor, factors: Tensor) -> None:
        self.outputs = int(outputs.max()) + 1
        self.tables: tuple[Any, ...] = tuple(
            table.numpy()
            for table in (
                (outputs >= 0).sum(dim=1).int(),
                outputs.int(),
                taps.int(),
                (rows >= 0).sum(dim=1).int(),
                rows.int(),
                factors.float(),
            )
        )


def convolution_taps(height: int, width: int, kernel_size: int, stride: int, corner: bool) -> tuple[Tensor, Tensor]:
    """Outputs and taps, for `Reader`, of a convolution over a window of cells, padded by kernel_size // 2.

    Places beyond the window are clamped into it; tokens of no cell fall into its last corner, or nowhere without
    `corner`.
    """
    padding = kernel_size // 2
    out_height, out_width = ((side + 2 * padding - kernel_size) // stride + 1 for side in (height, width))

    def uses(place: int, side: int, out_side: int) -> list[tuple[int, int]]:
        taps = ((out, min(place, side - 1) + padding - out * stride) for out in range(out_side))
        return [(out, tap) for out, tap in taps if 0 <= tap < kernel_size]

    found = [
        [
            (y * out_width + x, tap_y * kernel_size + tap_x)
            for y, tap_y in uses(place >> 4, height, out_height)
            for x, tap_x in uses(place & 0x0F, width, out_width)
            if corner or place < NO_CELL
        ]
        for place in range(BYTES)
    ]
    outputs, taps = ([[pair[part] for pair in pairs] for pairs in found] for part in (0, 1))
    return _padded(outputs), _padded(taps)


def places(tap_of: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Outputs and taps, for `Reader`, of a layer with one output: it reads each place through a tap of its own."""
    outputs, taps = torch.full((BYTES, 1), -1), torch.zeros(BYTES, 1, dtype=torch.int64)
    for place, tap in tap_of.items():
        outputs[place], taps[place] = 0, tap
    return outputs, taps


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of different lengths as one int64 tensor, filled with -1."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])
