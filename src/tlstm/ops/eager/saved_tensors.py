"""The tensors that a forward pass over a sequence saves for the backward pass.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes
    K       the kernel's size
    M       channels
    O       channels that the hidden convolution makes: M (tRNN), 4M (−M) or 4M + K^S
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tlstm.ops.shapes import Sizes


class SavedTensors(NamedTuple):
    """The tensors that the backward pass reads; of one or two timesteps only if none follows.

    Attributes:
        hidden: H_t with zeros around it, [T+1, B, (P+K−1).., M], in the operands' type.
        cell: C_t, [T+1, B, P.., M].
        activations: G, I, F, O and the memory convolution's kernels, [T, B, P.., O]; H in an RNN.
        squashed: tanh(Norm(C_t)), [T, B, P.., M].
    """

    hidden: Tensor
    cell: Tensor
    activations: Tensor
    squashed: Tensor


def empty_saved_tensors(
    sizes: Sizes, compute_dtype: torch.dtype, keep: bool, like: Tensor
) -> SavedTensors:
    """Allocate the tensors, on the device of `like`."""
    lstm = sizes.gates == 4
    kept, held = (sizes.steps, sizes.steps + 1) if keep else (1, 2)
    cells, squashed = (held, kept) if lstm else (0, 0)
    lead = [sizes.batch_size, *sizes.grid]
    accum_dtype = torch.promote_types(compute_dtype, torch.float32)
    return SavedTensors(
        like.new_empty(
            [held, sizes.batch_size, *sizes.padded_grid, sizes.channels], dtype=compute_dtype
        ),
        like.new_empty([cells, *lead, sizes.channels], dtype=accum_dtype),
        like.new_empty([kept, *lead, sizes.convolved], dtype=accum_dtype),
        like.new_empty([squashed, *lead, sizes.channels], dtype=accum_dtype),
    )
