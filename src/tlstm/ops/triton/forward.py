"""The whole sequence forward on an NVIDIA GPU, kernel by kernel.

No call waits for the GPU, so that a sequence can be captured in a CUDA graph.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K..     the kernel's axes; K^S taps
    M       channels, and W the same padded to a multiple of eight
    N       the summed axis of a step's product: K^S·W numbers, a one and seven zeros
    R       columns of that in memory, with room to a whole cache line
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

import torch
from torch import Tensor

from tlstm.ops.shapes import Sizes, Weights
from tlstm.ops.triton.kernels.step_forward import init_fwd_kernel, step_fwd_kernel
from tlstm.ops.triton.launch import Launch
from tlstm.ops.triton.layout import Layout, SavedTensors, affine, empty_saved_tensors, pack
from tlstm.ops.triton.matmul import affine_product
from tlstm.ops.triton.options import constants, passes, step_options


def forward_sequence(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weights: Weights,
    lengths: Tensor | None,
    time: int,
    compute_dtype: torch.dtype,
    normalization: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None, SavedTensors]:
    """Return the outputs, the state after the last input, and the saved tensors."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    layout = Layout.of(sizes)
    saved = empty_saved_tensors(sizes, compute_dtype, keep, hidden)
    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=compute_dtype)
    # Complete even where no step is an example's last one: the state after no step is the first
    last_hidden, last_cell = hidden.clone(), None if cell is None else cell.clone()
    weight = pack(weights, sizes, compute_dtype)
    norm_gain, norm_bias = affine(weights, instead=saved.partial)
    written = constants(sizes) | {"READ": layout.read}
    options = written | step_options(sizes, normalization, lengths, compute_dtype)
    multiply = affine_product(saved.read[..., : layout.summed], weight, layout.taken)

    init_fwd_kernel[(sizes.rows,)](
        saved.read,
        saved.cell,
        hidden,
        cell,
        projected,
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        **written,
    )
    launches = [
        Launch(step_fwd_kernel, (sizes.rows,), PASS=each, **options)
        for each in passes(normalization)
    ]
    for t in range(sizes.steps):
        now, after, slot = (t, t + 1, t) if keep else (t % 2, (t + 1) % 2, 0)
        multiply(now, saved.activations[slot])
        for launch in launches:
            launch(
                saved.read,
                saved.cell,
                saved.activations,
                norm_gain,
                norm_bias,
                saved.partial,
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
        saved = saved._replace(weight=weight)
    return output, last_hidden, last_cell, saved
