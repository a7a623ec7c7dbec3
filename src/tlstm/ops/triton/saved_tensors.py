"""What the kernels' forward pass leaves for the backward pass.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    L       locations, P^S
    K^S     taps
    M       channels, and W the same padded to a multiple of eight
    N       what a step's product sums over: K^S·W numbers, a one and seven zeros
    R       columns of that in memory, with room to a whole cache line
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tlstm.ops.shapes import Sizes
from tlstm.ops.triton.layout import Layout


class History(NamedTuple):
    """What the backward pass reads; of two timesteps only, and some of it, where none follows.

    Attributes:
        read: what every step's kernel reads and then a one, [T, B·L, R], in the
            operands' type.
        cell: C_t, [T+1, B·L, W], float32.
        activations: A_t, [T, B·L, A], in the operands' type.
        partial: for LN, every location's mean and sum of squared deviations, [T, B·L, 2].
        weight: Wʰ and bʰ as a matrix, [N, A], in the operands' type; empty where none follows.
    """

    read: Tensor
    cell: Tensor
    activations: Tensor
    partial: Tensor
    weight: Tensor


def empty_history(sizes: Sizes, operands: torch.dtype, keep: bool, like: Tensor) -> History:
    """A History to be written, on the device of `like`."""
    layout, rows = Layout.of(sizes), sizes.rows
    kept, held = (sizes.steps, sizes.steps + 1) if keep else (1, 2)
    cells = held if sizes.gates == 4 else 0
    return History(
        like.new_empty([max(kept, 2), rows, layout.read], dtype=operands),
        like.new_empty([cells, rows, layout.width], dtype=torch.float32),
        like.new_empty([kept, rows, layout.activations], dtype=operands),
        like.new_empty([kept, rows, 2], dtype=torch.float32),
        like.new_empty([layout.summed, layout.activations] if keep else [0], dtype=operands),
    )
