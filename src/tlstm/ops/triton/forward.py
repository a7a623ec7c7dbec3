"""The whole sequence forward on an NVIDIA GPU, kernel by kernel.

Nothing here waits for the GPU, so that a call can be captured in a CUDA graph.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K..     the kernel's axes; K^S taps
    M       channels, and W the same padded to a multiple of eight
    N       what a step's product sums over: K^S·W numbers, a one and seven zeros
    R       columns of that in memory, with room to a whole cache line
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

import torch
from torch import Tensor

from tlstm.ops.arguments import Weights
from tlstm.ops.shapes import Sizes
from tlstm.ops.triton.kernels.step_forward import advance, enter
from tlstm.ops.triton.launch import Launch
from tlstm.ops.triton.layout import Layout, affine, pack
from tlstm.ops.triton.matmul import affine_product
from tlstm.ops.triton.options import constants, passes, step_options
from tlstm.ops.triton.saved_tensors import History, empty_history


def forward_sequence(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weights: Weights,
    lengths: Tensor | None,
    time: int,
    operands: torch.dtype,
    normalization: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None, History]:
    """The outputs, the state after the last input, and what the backward pass reads."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    layout = Layout.of(sizes)
    history = empty_history(sizes, operands, keep, hidden)
    projected = projected.contiguous()
    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=operands)
    last_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    last_cell = torch.empty_like(last_hidden, dtype=None if cell is None else cell.dtype)
    weight = pack(weights, sizes, operands)
    gain, shift = affine(weights, instead=history.partial)
    written = constants(sizes) | {"READ": layout.read}
    options = written | step_options(sizes, normalization, lengths, operands)
    multiply = affine_product(history.read[..., : layout.summed], weight, layout.taken)

    enter[(sizes.rows,)](
        history.read,
        history.cell,
        hidden.contiguous(),
        None if cell is None else cell.contiguous(),
        projected,
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        **written,
    )
    advances = [
        Launch(advance, (sizes.rows,), PASS=part, **options) for part in passes(normalization)
    ]
    for t in range(sizes.steps):
        now, after, slot = (t, t + 1, t) if keep else (t % 2, (t + 1) % 2, 0)
        multiply(now, history.activations[slot])
        for launch in advances:
            launch(
                history.read,
                history.cell,
                history.activations,
                gain,
                shift,
                history.partial,
                projected,
                output,
                last_hidden,
                last_cell,
                lengths,
                now,
                after,
                slot,
                t,
                sizes.steps,
                time,
                sizes.rows,
            )
    if keep:
        history = history._replace(weight=weight)
    return output, last_hidden, None if cell is None else last_cell, history
