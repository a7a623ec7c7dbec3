"""The memory layout of the kernels' tensors.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    L       locations, P^S
    M       channels, and W the same padded to a multiple of eight
    K..     the kernel's axes; K^S taps
    O       rows of Wʰ
    N       the summed axis of a step's product: K^S·W numbers, a one and seven zeros
    R       columns of N numbers in memory, with room to a whole cache line
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.ops.shapes import Sizes, Weights
from tlstm.ops.triton.kernels import packing

CACHE_LINE = 64  # numbers of two bytes
# Tiles in which the weights are reordered
PACKED_CHANNELS, PACKED_COLUMNS = 16, 64
UNPACKED = 64


class Layout(NamedTuple):
    """The widths of a call's tensors in memory.

    Attributes:
        width: W.
        logits: room for the logits in A_t.
        activations: A.
        taken: columns of the kernel's input, K^S·W.
        summed: N; after the kernel's input a one, for the bias, and seven zeros.
        read: columns of these in memory, with room to a whole cache line.
    """

    width: int
    logits: int
    activations: int
    taken: int
    summed: int
    read: int

    @classmethod
    def of(cls, sizes: Sizes) -> "Layout":
        """Return the layout for a call's sizes."""
        width = -(-sizes.channels // 8) * 8
        logits = block_taps(sizes) if sizes.logits else 0
        taken = sizes.taps * width
        summed = taken + 8
        read = -(-summed // CACHE_LINE) * CACHE_LINE
        return cls(width, logits, sizes.gates * width + logits, taken, summed, read)


class SavedTensors(NamedTuple):
    """The tensors that the backward pass reads; of one or two timesteps only if none follows.

    Attributes:
        read: every step's kernel input and then a one, [T, B·L, R], in the compute dtype.
        cell: C_t, [T+1, B·L, W], float32.
        activations: A_t, [T, B·L, A], in the compute dtype.
        partial: for LN, every location's mean and sum of squared deviations, [T, B·L, 2].
        weight: Wʰ and bʰ as a matrix, [N, A], in the compute dtype; empty if none follows.
    """

    read: Tensor
    cell: Tensor
    activations: Tensor
    partial: Tensor
    weight: Tensor


def empty_saved_tensors(
    sizes: Sizes, compute_dtype: torch.dtype, keep: bool, like: Tensor
) -> SavedTensors:
    """Allocate the tensors, on the device of `like`."""
    layout, rows = Layout.of(sizes), sizes.rows
    kept, held = (sizes.steps, sizes.steps + 1) if keep else (1, 2)
    cells = held if sizes.gates == 4 else 0
    return SavedTensors(
        like.new_empty([max(kept, 2), rows, layout.read], dtype=compute_dtype),
        like.new_empty([cells, rows, layout.width], dtype=torch.float32),
        like.new_empty([kept, rows, layout.activations], dtype=compute_dtype),
        like.new_empty([kept, rows, 2], dtype=torch.float32),
        like.new_empty([layout.summed, layout.activations] if keep else [0], dtype=compute_dtype),
    )


def block_taps(sizes: Sizes) -> int:
    """Return room for a kernel's taps in a program's registers, a power of two."""
    return max(8, triton.next_power_of_2(sizes.taps))


def pack(weights: Weights, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """Return Wʰ [O, M, K..] and bʰ [O] as the matrix of a step's product, [N, A]."""
    layout = Layout.of(sizes)
    wide = weights.hidden.new_empty([layout.summed, layout.activations], dtype=dtype)
    grid = (
        triton.cdiv(layout.width, PACKED_CHANNELS),
        triton.cdiv(layout.activations, PACKED_COLUMNS),
    )
    packing.pack_kernel[grid](
        weights.hidden,
        weights.bias,
        wide,
        BLOCK_CHANNELS=PACKED_CHANNELS,
        BLOCK_COLUMNS=PACKED_COLUMNS,
        **_packing(sizes),
    )
    return wide


def unpack(wide: Tensor, weights: Weights, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return Wʰ and bʰ of such a matrix [N, A]; the inverse of `pack`."""
    weight, bias = torch.empty_like(weights.hidden), torch.empty_like(weights.bias)
    layout = Layout.of(sizes)
    grid = tuple(triton.cdiv(size, UNPACKED) for size in (layout.taken, layout.activations))
    packing.unpack_kernel[grid](wide, weight, bias, BLOCK=UNPACKED, **_packing(sizes))
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
    """Return gain and bias of the normalization in float32; without one, `instead` as a pointer."""
    if weights.norm_gain is None or weights.norm_bias is None:
        return instead, instead
    return weights.norm_gain.float(), weights.norm_bias.float()
