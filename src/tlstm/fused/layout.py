"""How the kernels have the weights and A_t in memory.

Dimension letters of this file:
    M       channels, and W the same padded to a multiple of eight
    K..     the kernel's axes; K^S taps
    O       rows of Wʰ
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.fused.arguments import Weights
from tlstm.fused.kernels import packing
from tlstm.fused.sizes import Sizes

WEIGHT_BLOCK = 64  # of the tiles in which the weights are transposed


class Layout(NamedTuple):
    """How a call's tensors lie in memory.

    Attributes:
        width: W.
        logits: room for the logits in A_t.
        activations: A.
    """

    width: int
    logits: int
    activations: int

    @classmethod
    def of(cls, sizes: Sizes) -> "Layout":
        """Of a call's sizes."""
        width = -(-sizes.channels // 8) * 8
        logits = block_taps(sizes) if sizes.logits else 0
        return cls(width, logits, sizes.gates * width + logits)


def block_taps(sizes: Sizes) -> int:
    """Taps of a kernel in a program's registers, a power of two."""
    return max(8, triton.next_power_of_2(sizes.taps))


def pack(weights: Weights, sizes: Sizes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Wʰ [O, M, K..] as the matrix of a product with what is read, [K^S·W, A]; bʰ as [A]."""
    layout = Layout.of(sizes)
    wide = weights.hidden.new_empty([sizes.taps * layout.width, layout.activations], dtype=dtype)
    wide_bias = weights.bias.new_empty([layout.activations], dtype=torch.float32)
    packing.pack[_weight_grid(layout, sizes.taps)](
        weights.hidden.contiguous(), weights.bias.contiguous(), wide, wide_bias, **_packing(sizes)
    )
    return wide, wide_bias


def unpack(wide: list[Tensor], weights: Weights, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """The inverse of `pack`, in the shapes and types of Wʰ and bʰ."""
    layout = Layout.of(sizes)
    weight = torch.empty_like(weights.hidden, memory_format=torch.contiguous_format)
    bias = torch.empty_like(weights.bias)
    packing.unpack[_weight_grid(layout, sizes.taps)](*wide, weight, bias, **_packing(sizes))
    return weight, bias


def _weight_grid(layout: Layout, taps: int) -> tuple[int, int]:
    read = taps * layout.width
    return triton.cdiv(read, WEIGHT_BLOCK), triton.cdiv(layout.activations, WEIGHT_BLOCK)


def _packing(sizes: Sizes) -> dict[str, Any]:
    layout = Layout.of(sizes)
    return {
        "M": sizes.channels,
        "WIDTH": layout.width,
        "TAPS": sizes.taps,
        "GATES": sizes.gates,
        "LOGITS": sizes.logits,
        "ACTIVATIONS": layout.activations,
        "BLOCK": WEIGHT_BLOCK,
    }
