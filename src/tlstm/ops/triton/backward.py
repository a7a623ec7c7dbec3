"""The whole sequence backward on an NVIDIA GPU, kernel by kernel.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K^S     taps
    M       channels, and W the same padded to a multiple of eight
    N       what a step's product sums over: K^S·W numbers, a one and seven zeros
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.ops.arguments import Gradients, Weights
from tlstm.ops.matmul import product
from tlstm.ops.shapes import Sizes
from tlstm.ops.triton.kernels.memory_conv_backward import unmix
from tlstm.ops.triton.kernels.step_backward import arrive, retreat
from tlstm.ops.triton.launch import Launch
from tlstm.ops.triton.layout import Layout, affine, block_taps, unpack
from tlstm.ops.triton.matmul import matrix_product
from tlstm.ops.triton.options import (
    constants,
    mixer_options,
    mixes_apart,
    passes,
    registers_backward,
    step_options,
    warps_backward,
)
from tlstm.ops.triton.saved_tensors import History

# Numbers in the gradients of A_t that wait to become, in one product, a gradient of the weights
GRADIENT_NUMBERS = 2**28


class Given(NamedTuple):
    """The gradients of the operator's results, None for those that are not asked for.

    Attributes:
        output: [T, B, M], of the steps that give an output.
        hidden: of H after the last input, [B, P.., M].
        cell: of C after it.
    """

    output: Tensor | None
    hidden: Tensor | None
    cell: Tensor | None

    def flags(self) -> dict[str, bool]:
        """Which are there, for the kernels."""
        return {f"HAS_{name.upper()}": grad is not None for name, grad in self._asdict().items()}


class Buffers(NamedTuple):
    """What a step leaves for the step before it, and what all of them write.

    Attributes:
        of_activations: the gradient of A_t of some timesteps, [slots, B·L, A].
        of_read: that of what the step's kernel read, [B·L, K^S·W].
        of_mixed: that of C^conv, [2, B·L, W], in two slots that alternate.
        mixing: the memory convolution's kernels, likewise.
        of_cells: that of C where the memory convolution is taken apart, else `of_mixed`.
        sums: for LN, what a row adds to its example's sums, [B·L, 2].
        of_affine: of gain and bias, example by example, [2, B, P.., M].
        of_projected: [T, B, M].
    """

    of_activations: Tensor
    of_read: Tensor
    of_mixed: Tensor
    mixing: Tensor
    of_cells: Tensor
    sums: Tensor
    of_affine: Tensor
    of_projected: Tensor

    @classmethod
    def of(cls, sizes: Sizes, history: History, projected: Tensor, normalized: bool) -> "Buffers":
        """For a call."""
        layout, rows, new = Layout.of(sizes), sizes.rows, history.cell.new_empty
        of_mixed = new([2, rows, layout.width])
        examples = sizes.batch_size if normalized else 0
        return cls(
            history.activations.new_empty([slots(sizes), rows, layout.activations]),
            history.read.new_empty([rows, layout.taken]),
            of_mixed,
            new([2, rows, block_taps(sizes)]),
            torch.empty_like(of_mixed[0]) if mixes_apart(sizes) else of_mixed,
            torch.empty_like(history.partial[0]),
            history.cell.new_zeros([2, examples, *sizes.grid, sizes.channels]),
            torch.empty_like(projected, memory_format=torch.contiguous_format),
        )


class Retreat:
    """A timestep backward: from the gradients of H_t and C_t to those of what it read."""

    def __init__(
        self,
        sizes: Sizes,
        history: History,
        buffers: Buffers,
        weights: Weights,
        given: Given,
        lengths: Tensor | None,
        normalization: str,
    ) -> None:
        self.sizes, self.history, self.buffers = sizes, history, buffers
        self.affine = affine(weights, instead=history.partial)
        self.of_affine = buffers.of_affine.unbind(0)
        self.apart = mixes_apart(sizes)
        self.given, self.lengths = given, lengths
        operands = history.read.dtype
        options: dict[str, Any] = {
            **constants(sizes),
            **step_options(sizes, normalization, lengths, operands),
            **given.flags(),
            "APART": self.apart,
            "BLOCK_TAPS": block_taps(sizes),
            "num_warps": warps_backward(sizes),
            "maxnreg": registers_backward(sizes),
        }
        self.launches = [
            Launch(retreat, (sizes.rows,), PASS=part, **options) for part in passes(normalization)
        ]
        self.unmix = Launch(unmix, (sizes.batch_size,), **mixer_options(sizes, operands))
        weight = history.weight[: Layout.of(sizes).taken]
        self.multiply = matrix_product(buffers.of_activations, weight.T)

    def __call__(self, t: int, slot: int) -> None:
        """Go back over timestep t, and leave the gradient of its A in a slot."""
        sizes, history, buffers = self.sizes, self.history, self.buffers
        for launch in self.launches:
            launch(
                history.cell,
                history.activations,
                *self.affine,
                history.partial,
                buffers.sums,
                buffers.of_read,
                buffers.of_mixed,
                buffers.mixing,
                buffers.of_cells,
                buffers.of_activations,
                buffers.of_projected,
                *self.of_affine,
                *self.given,
                self.lengths,
                slot,
                t,
                sizes.steps,
                sizes.time,
                sizes.rows,
            )
        if self.apart:
            self.unmix(
                history.cell,
                history.activations,
                buffers.of_mixed[t % 2],
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
    history: History,
) -> Gradients:
    """The gradients of the operator's arguments."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    buffers = Buffers.of(sizes, history, projected, weights.gain is not None)
    grads = (grad_output, grad_hidden, grad_cell)
    given = Given(*(None if grad is None else grad.contiguous() for grad in grads))
    step = Retreat(sizes, history, buffers, weights, given, lengths, normalization)
    of_weights: Tensor | None = None
    for begin, end in parts(sizes):
        for t in reversed(range(begin, end)):
            step(t, t - begin)
        part = _gradient_of_weights(history.read[begin:end], buffers.of_activations, sizes)
        of_weights = part if of_weights is None else of_weights.add_(part)
    assert of_weights is not None
    of_hidden, of_cell = _gradients_of_state(hidden, cell, sizes, buffers)
    over = (1,) if normalization == "channel" else tuple(range(1, sizes.axes + 2))
    of_gain, of_shift = buffers.of_affine.sum(over)
    return Gradients(
        buffers.of_projected,
        of_hidden,
        of_cell,
        *unpack(of_weights, weights, sizes),
        None if weights.gain is None else of_gain.to(weights.gain.dtype, copy=True),
        None if weights.shift is None else of_shift.to(weights.shift.dtype, copy=True),
    )


def slots(sizes: Sizes) -> int:
    """How many timesteps' gradients of A wait at a time."""
    numbers = sizes.steps * sizes.rows * Layout.of(sizes).activations
    return triton.cdiv(sizes.steps, min(sizes.steps, triton.cdiv(numbers, GRADIENT_NUMBERS)))


def parts(sizes: Sizes) -> Iterator[tuple[int, int]]:
    """The timesteps from the last to the first, as many at a time as there are slots for."""
    many = slots(sizes)
    for end in range(sizes.steps, 0, -many):
        yield max(0, end - many), end


def _gradient_of_weights(read: Tensor, of_activations: Tensor, sizes: Sizes) -> Tensor:
    """Of Wʰ and bʰ as a matrix, [N, A], from some timesteps."""
    rows = read.flatten(0, 1)[:, : Layout.of(sizes).summed]
    return product(rows.T, of_activations[: len(read)].flatten(0, 1), None, torch.float32)


def _gradients_of_state(
    hidden: Tensor, cell: Tensor | None, sizes: Sizes, buffers: Buffers
) -> tuple[Tensor, Tensor | None]:
    """Of H_0 and C_0, and of the first projected input, from what the first step left."""
    of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    of_cell = None
    if cell is not None:
        of_cell = torch.empty_like(cell, memory_format=torch.contiguous_format)
    arrive[(sizes.rows,)](
        buffers.of_read,
        buffers.of_mixed,
        buffers.mixing,
        buffers.of_cells,
        buffers.of_projected,
        of_hidden,
        of_cell,
        APART=mixes_apart(sizes),
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        LOGITS=sizes.logits,
        BLOCK_TAPS=block_taps(sizes),
        **constants(sizes),
    )
    return of_hidden, of_cell
