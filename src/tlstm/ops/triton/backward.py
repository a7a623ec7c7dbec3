"""The whole sequence backward on an NVIDIA GPU, kernel by kernel.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K^S     taps
    M       channels, and W the same padded to a multiple of eight
    N       the summed axis of a step's product: K^S·W numbers, a one and seven zeros
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.ops.matmul import product
from tlstm.ops.shapes import Gradients, Sizes, Weights
from tlstm.ops.triton.kernels.memory_conv_backward import memory_conv_bwd_kernel
from tlstm.ops.triton.kernels.step_backward import init_bwd_kernel, step_bwd_kernel
from tlstm.ops.triton.launch import Launch
from tlstm.ops.triton.layout import Layout, SavedTensors, affine, block_taps, unpack
from tlstm.ops.triton.matmul import matrix_product
from tlstm.ops.triton.options import (
    constants,
    memory_conv_options,
    passes,
    registers_backward,
    separate_memory_conv,
    step_options,
    warps_backward,
)

# Numbers in the gradients of A_t for which one product computes the gradient of the weights
GRADIENT_NUMBERS = 2**28


class OutputGrads(NamedTuple):
    """The gradients of the operator's results, None where the loss does not use a result.

    Attributes:
        output: [T, B, M], of the steps that give an output.
        hidden: of H after the last input, [B, P.., M].
        cell: of C after it.
    """

    output: Tensor | None
    hidden: Tensor | None
    cell: Tensor | None

    def flags(self) -> dict[str, bool]:
        """Return the kernels' constants that tell which gradients exist."""
        return {f"HAS_{name.upper()}": grad is not None for name, grad in self._asdict().items()}


class Buffers(NamedTuple):
    """The tensors that a step leaves for the step before it, and the results of all steps.

    `of_x` is the gradient of the loss by x.

    Attributes:
        of_activations: of A_t of a chunk of timesteps, [slots, B·L, A].
        of_read: of the step's kernel input, [B·L, K^S·W].
        of_conv_cell: of C^conv, [2, B·L, W], in two slots that alternate.
        conv_kernels: the memory convolution's kernels, in two slots that alternate.
        of_cells: of C if the memory convolution has its own kernel, else `of_conv_cell`.
        sums: for LN, the rows' parts of their example's sums, [B·L, 2].
        of_affine: of gain and bias by example, [2, B, P.., M].
        of_projected: of the projected input, [T, B, M].
    """

    of_activations: Tensor
    of_read: Tensor
    of_conv_cell: Tensor
    conv_kernels: Tensor
    of_cells: Tensor
    sums: Tensor
    of_affine: Tensor
    of_projected: Tensor

    @classmethod
    def of(
        cls, sizes: Sizes, saved: SavedTensors, projected: Tensor, normalized: bool
    ) -> "Buffers":
        """Allocate the buffers of a call."""
        layout, rows, new = Layout.of(sizes), sizes.rows, saved.cell.new_empty
        of_conv_cell = new([2, rows, layout.width])
        examples = sizes.batch_size if normalized else 0
        return cls(
            saved.activations.new_empty([num_slots(sizes), rows, layout.activations]),
            saved.read.new_empty([rows, layout.taken]),
            of_conv_cell,
            new([2, rows, block_taps(sizes)]),
            torch.empty_like(of_conv_cell[0]) if separate_memory_conv(sizes) else of_conv_cell,
            torch.empty_like(saved.partial[0]),
            saved.cell.new_zeros([2, examples, *sizes.grid, sizes.channels]),
            torch.empty_like(projected),
        )


class BackwardStep:
    """One timestep backward: from the gradients of H_t and C_t to those of its inputs."""

    def __init__(
        self,
        sizes: Sizes,
        saved: SavedTensors,
        buffers: Buffers,
        weights: Weights,
        output_grads: OutputGrads,
        lengths: Tensor | None,
        normalization: str,
    ) -> None:
        self.sizes, self.saved, self.buffers = sizes, saved, buffers
        self.affine = affine(weights, instead=saved.partial)
        self.of_affine = buffers.of_affine.unbind(0)
        self.separate = separate_memory_conv(sizes)
        self.output_grads, self.lengths = output_grads, lengths
        compute_dtype = saved.read.dtype
        options: dict[str, Any] = {
            **constants(sizes),
            **step_options(sizes, normalization, lengths, compute_dtype),
            **output_grads.flags(),
            "SEPARATE_MEMORY_CONV": self.separate,
            "BLOCK_TAPS": block_taps(sizes),
            "num_warps": warps_backward(sizes),
            "maxnreg": registers_backward(sizes),
        }
        self.launches = [
            Launch(step_bwd_kernel, (sizes.rows,), PASS=each, **options)
            for each in passes(normalization)
        ]
        self.memory_conv_bwd = Launch(
            memory_conv_bwd_kernel, (sizes.batch_size,), **memory_conv_options(sizes, compute_dtype)
        )
        weight = saved.weight[: Layout.of(sizes).taken]
        self.multiply = matrix_product(buffers.of_activations, weight.T)

    def __call__(self, t: int, slot: int) -> None:
        """Go back over timestep t, and write the gradient of its A to a slot."""
        sizes, saved, buffers = self.sizes, self.saved, self.buffers
        for launch in self.launches:
            launch(
                saved.cell,
                saved.activations,
                *self.affine,
                saved.partial,
                buffers.sums,
                buffers.of_read,
                buffers.of_conv_cell,
                buffers.conv_kernels,
                buffers.of_cells,
                buffers.of_activations,
                buffers.of_projected,
                *self.of_affine,
                *self.output_grads,
                self.lengths,
                slot,
                t,
                sizes.steps,
                sizes.time,
                sizes.rows,
            )
        if self.separate:
            self.memory_conv_bwd(
                saved.cell,
                saved.activations,
                buffers.of_conv_cell[t % 2],
                buffers.of_cells,
                buffers.of_activations,
                slot,
                t,
                sizes.rows,
            )
        self.multiply(slot, buffers.of_read)


def backward_sequence(
    grad_output: Tensor | None,
    grad_hidden: Tensor | None,
    grad_cell: Tensor | None,
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weights: Weights,
    lengths: Tensor | None,
    time: int,
    normalization: str,
    saved: SavedTensors,
) -> Gradients:
    """Return the gradients of the operator's arguments."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    buffers = Buffers.of(sizes, saved, projected, weights.norm_gain is not None)
    output_grads = OutputGrads(grad_output, grad_hidden, grad_cell)
    step = BackwardStep(sizes, saved, buffers, weights, output_grads, lengths, normalization)
    of_matrix: Tensor | None = None
    for begin, end in time_chunks(sizes):
        for t in reversed(range(begin, end)):
            step(t, t - begin)
        from_chunk = _gradient_of_weights(saved.read[begin:end], buffers.of_activations, sizes)
        of_matrix = from_chunk if of_matrix is None else of_matrix.add_(from_chunk)
    assert of_matrix is not None
    of_hidden, of_cell = _gradients_of_state(hidden, cell, sizes, buffers)
    over = (1,) if normalization == "channel" else tuple(range(1, sizes.axes + 2))
    of_gain, of_bias = buffers.of_affine.sum(over)
    return Gradients(
        buffers.of_projected,
        of_hidden,
        of_cell,
        *unpack(of_matrix, weights, sizes),
        None if weights.norm_gain is None else of_gain.to(weights.norm_gain.dtype, copy=True),
        None if weights.norm_bias is None else of_bias.to(weights.norm_bias.dtype, copy=True),
    )


def num_slots(sizes: Sizes) -> int:
    """Return the number of timesteps whose gradients of A are kept at a time."""
    numbers = sizes.steps * sizes.rows * Layout.of(sizes).activations
    return triton.cdiv(sizes.steps, min(sizes.steps, triton.cdiv(numbers, GRADIENT_NUMBERS)))


def time_chunks(sizes: Sizes) -> Iterator[tuple[int, int]]:
    """Yield the timesteps from last to first, in chunks of as many as there are slots."""
    size = num_slots(sizes)
    for end in range(sizes.steps, 0, -size):
        yield max(0, end - size), end


def _gradient_of_weights(read: Tensor, of_activations: Tensor, sizes: Sizes) -> Tensor:
    """Return the gradient of Wʰ and bʰ as a matrix, [N, A], from a chunk of timesteps."""
    rows = read.flatten(0, 1)[:, : Layout.of(sizes).summed]
    return product(rows.T, of_activations[: len(read)].flatten(0, 1), None, torch.float32)


def _gradients_of_state(
    hidden: Tensor, cell: Tensor | None, sizes: Sizes, buffers: Buffers
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of H_0 and C_0, and write that of the first projected input."""
    of_hidden, of_cell = torch.empty_like(hidden), None if cell is None else torch.empty_like(cell)
    init_bwd_kernel[(sizes.rows,)](
        buffers.of_read,
        buffers.of_conv_cell,
        buffers.conv_kernels,
        buffers.of_cells,
        buffers.of_projected,
        of_hidden,
        of_cell,
        SEPARATE_MEMORY_CONV=separate_memory_conv(sizes),
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        LOGITS=sizes.logits,
        BLOCK_TAPS=block_taps(sizes),
        **constants(sizes),
    )
    return of_hidden, of_cell
