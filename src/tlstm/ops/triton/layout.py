"""How the kernels have the weights and A_t in memory.

Dimension letters of this file:
    M       channels, and W the same padded to a multiple of eight
    K..     the kernel's axes; K^S taps
    O       rows of Wʰ
    N       what a step's product sums over: K^S·W numbers, a one and seven zeros
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.ops.arguments import Weights
from tlstm.ops.shapes import Sizes
from tlstm.ops.triton.kernels import packing

CACHE_LINE = 64  # numbers of two bytes
# Tiles in which the weights are reordered
PACKED_CHANNELS, PACKED_COLUMNS = 16, 64
UNPACKED = 64


class Layout(NamedTuple):
    """How a call's tensors lie in memory.

    Attributes:
        width: W.
        logits: room for the logits in A_t.
        activations: A.
        taken: columns of what the kernel reads, K^S·W.
        summed: N, that with a one, which takes up the bias, and seven zeros after it.
        read: columns of that in memory, with room to a whole cache line.
    """

    width: int
    logits: int
    activations: int
    taken: int
    summed: int
    read: int

    @classmethod
    def of(cls, sizes: Sizes) -> "Layout":
        """Of a call's sizes."""
        width = -(-sizes.channels // 8) * 8
        logits = block_taps(sizes) if sizes.logits else 0
        taken = sizes.taps * width
        summed = taken + 8
        read = -(-summed // CACHE_LINE) * CACHE_LINE
        return cls(width, logits, sizes.gates * width + logits, taken, summed, read)


def block_taps(sizes: Sizes) -> int:
    """Taps of a kernel in a program's registers, a power of two."""
    return max(8, triton.next_power_of_2(sizes.taps))


def pack(weights: Weights, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """Wʰ [O, M, K..] as the matrix of a product with what is read, with bʰ [O]: [N, A]."""
    layout = Layout.of(sizes)
    wide = weights.hidden.new_empty([layout.summed, layout.activations], dtype=dtype)
    grid = (
        triton.cdiv(layout.width, PACKED_CHANNELS),
        triton.cdiv(layout.activations, PACKED_COLUMNS),
    )
    packing.pack[grid](
        weights.hidden.contiguous(),
        weights.bias.contiguous(),
        wide,
        BLOCK_CHANNELS=PACKED_CHANNELS,
        BLOCK_COLUMNS=PACKED_COLUMNS,
        **_packing(sizes),
    )
    return wide


def unpack(wide: Tensor, weights: Weights, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """The inverse of `pack`, [N, A]."""
    weight = torch.empty_like(weights.hidden, memory_format=torch.contiguous_format)
    bias = torch.empty_like(weights.bias)
    layout = Layout.of(sizes)
    grid = tuple(triton.cdiv(size, UNPACKED) for size in (layout.taken, layout.activations))
    packing.unpack[grid](wide, weight, bias, BLOCK=UNPACKED, **_packing(sizes))
    return weight, bias


def _packing(sizes: Sizes) -> dict[str, Any]:
    layout = Layout.of(sizes)
    return {
        "M": sizes.channels,
        "WIDTH": layout.width,
        "TAPS": sizes.taps,
        "GATES": sizes.gates,
        "LOGITS": sizes.logits,
        "ACTIVATIONS": layout.activations,
    }


def affine(weights: Weights, instead: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and bias of the normalization in float32; something to point at where there is none."""
    if weights.gain is None or weights.shift is None:
        return instead, instead
    return weights.gain.float().contiguous(), weights.shift.float().contiguous()
