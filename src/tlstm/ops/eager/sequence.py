"""The whole sequence in PyTorch operations, forward and backward written by hand.

Every step writes into buffers of the whole sequence. The backward pass reads them, keeps no
autograd graph, and computes the gradient of the weights for many timesteps at once. Any device,
rank, kernel size and floating-point type.

The operands of matrix products have the type `compute_dtype`, such as float32 or bfloat16; gates,
memory cell and normalization are computed in float32 or better.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes
    K..     the kernel's axes
    M       channels
    O       channels that the hidden convolution makes: M (tRNN), 4M (−M) or 4M + K^S
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tlstm.ops.eager.blocks import partition
from tlstm.ops.eager.convolution import ConvBlock, ConvBlockBackward, InputConv
from tlstm.ops.eager.gates import GatesBackward, GatesForward, RnnBackward, RnnForward
from tlstm.ops.eager.normalization import Normalizer
from tlstm.ops.eager.saved_tensors import SavedTensors, empty_saved_tensors
from tlstm.ops.shapes import Gradients, Sizes, Weights, unpad

# Rows of the matrix product for the gradient of the weights: enough to keep its operands streaming,
# few enough to need little memory
GRADIENT_ROWS = 2048


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
    saved = _begin(empty_saved_tensors(sizes, compute_dtype, keep, hidden), sizes, hidden, cell)
    hiddens, cells = unpad(saved.hidden, sizes).unbind(0), saved.cell.unbind(0)
    corners = _opposite(unpad(saved.hidden, sizes), sizes).unbind(0)

    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=compute_dtype)
    # Complete even where no step is an example's last one: the state after no step is the first
    last_hidden, last_cell = hidden.clone(), None if cell is None else cell.clone()
    step = _Forward(sizes, weights, saved, normalization)
    chunk = _chunk(sizes)
    for t in range(sizes.steps):
        if t % chunk == 0:
            from_input = step.input_conv.forward(projected[t : t + chunk]).unbind(0)
        now, after, slot = (t, t + 1, t) if keep else (t % 2, (t + 1) % 2, 0)
        step(now, after, slot, from_input[t % chunk])
        if t >= sizes.steps - time:
            output[t - (sizes.steps - time)] = corners[after]
        _keep_last(last_hidden, hiddens[after], t + 1, time, lengths)
        if last_cell is not None:
            _keep_last(last_cell, cells[after], t + 1, time, lengths)
    return output, last_hidden, last_cell, saved


def _begin(saved: SavedTensors, sizes: Sizes, hidden: Tensor, cell: Tensor | None) -> SavedTensors:
    """Write the first state into the saved tensors."""
    saved.hidden.zero_()
    unpad(saved.hidden[0], sizes).copy_(hidden)
    if cell is not None:
        saved.cell[0].copy_(cell)
    return saved


class _Forward:
    """One timestep forward, with everything that is the same for all timesteps."""

    def __init__(
        self, sizes: Sizes, weights: Weights, saved: SavedTensors, normalization: str
    ) -> None:
        activations = saved.activations
        bias = weights.bias.to(activations.dtype)
        self.blocks = [
            ConvBlock(block, sizes, weights.hidden, bias, saved.hidden, activations)
            for block in partition(sizes, activations.device.type)
        ]
        self.input_conv = InputConv(sizes, weights.hidden, saved.hidden.dtype)
        self.input_targets = self.input_conv.locations(activations).unbind(0)
        self.gates: Callable[[int, int, int], None]
        if sizes.gates == 1:
            self.gates = RnnForward(sizes, saved)
        else:
            normalizer = Normalizer(
                sizes, weights.norm_gain, weights.norm_bias, normalization, activations.dtype
            )
            self.gates = GatesForward(sizes, saved, normalizer)

    def __call__(self, now: int, after: int, slot: int, from_input: Tensor) -> None:
        """Write the activations of timestep `slot` and the state `after` it, from the state `now`.

        `from_input` is added to the activations, [B, N.., O]; see `InputConv`.
        """
        for block in self.blocks:
            block(now, slot)
        self.input_targets[slot].add_(from_input)
        self.gates(now, after, slot)


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
    chunk = _chunk(sizes)
    step = _Backward(sizes, weights, normalization, saved, chunk)
    gates = step.gates
    of_projected, corner = torch.empty_like(projected), _opposite(gates.hidden, sizes)
    for end in range(sizes.steps, 0, -chunk):
        begin = max(0, end - chunk)
        for t in reversed(range(begin, end)):
            if grad_output is not None and t >= sizes.steps - time:
                corner.add_(grad_output[t - (sizes.steps - time)])
            for total, grad in ((gates.hidden, grad_hidden), (gates.cell, grad_cell)):
                if total is not None and grad is not None:
                    _add_last(total, grad, t + 1, time, lengths)
            step(t, t - begin)
        of_projected[begin:end] = step.sum_up(saved.hidden[begin:end], projected[begin:end])
    return Gradients(
        of_projected,
        gates.hidden.to(hidden.dtype),
        None if cell is None or gates.cell is None else gates.cell.to(cell.dtype),
        step.of_weight(weights.hidden),
        step.of_bias.to(weights.bias.dtype),
        *(
            None if grad is None or like is None else grad.to(like.dtype)
            for grad, like in (
                (step.normalizer.gain_grad, weights.norm_gain),
                (step.normalizer.bias_grad, weights.norm_bias),
            )
        ),
    )


class _Backward:
    """One timestep backward, with everything that is the same for all timesteps.

    Attributes:
        of_activations: the gradients of A of `chunk` timesteps, [chunk, B, P.., O], in the
            compute dtype.
        gates: has the gradients of H_t and C_t; after a step, of H_{t−1} and C_{t−1}.
        normalizer: has the gradients of its gain and bias.
        input_conv: the block that reads the projected input.
        of_bias: the gradient of bʰ, [O].
    """

    def __init__(
        self, sizes: Sizes, weights: Weights, normalization: str, saved: SavedTensors, chunk: int
    ) -> None:
        compute_dtype, accum_dtype = saved.hidden.dtype, saved.activations.dtype
        shape = [sizes.batch_size, *sizes.grid, sizes.convolved]
        self.of_activations = saved.hidden.new_empty([chunk, *shape])
        self.exact = compute_dtype == accum_dtype
        self.grads = self.of_activations if self.exact else saved.activations.new_empty([1, *shape])
        self.normalizer = Normalizer(
            sizes, weights.norm_gain, weights.norm_bias, normalization, accum_dtype
        )
        self.gates = (
            RnnBackward(saved, self.grads)
            if sizes.gates == 1
            else GatesBackward(sizes, saved, self.normalizer, self.grads)
        )
        self.blocks = [
            ConvBlockBackward(block, sizes, weights.hidden, self.of_activations, self.gates.hidden)
            for block in partition(sizes, saved.hidden.device.type)
        ]
        self.input_conv = InputConv(sizes, weights.hidden, compute_dtype)
        self.of_bias = torch.zeros_like(weights.bias, dtype=accum_dtype)

    def __call__(self, t: int, slot: int) -> None:
        """Write the gradient of A_t, at `slot` of the chunk, and go back to the state before."""
        self.gates(t, slot if self.exact else 0)
        if not self.exact:
            self.of_activations[slot].copy_(self.grads[0])
        self.gates.hidden.zero_()
        for block in self.blocks:
            block(slot)

    def sum_up(self, padded: Tensor, projected: Tensor) -> Tensor:
        """Add up the gradients of the weights over the timesteps of a chunk.

        Args:
            padded: H before them with its padding, [n, B, (P+K−1).., M].
            projected: their projected inputs, [n, B, M].

        Returns:
            The gradient of the projected inputs, [n, B, M].
        """
        of_activations = self.of_activations[: len(padded)]
        self.of_bias += of_activations.flatten(0, -2).sum(0, dtype=self.of_bias.dtype)
        for block in self.blocks:
            block.sum_up(padded)
        return self.input_conv.backward(projected, of_activations)

    def of_weight(self, weight: Tensor) -> Tensor:
        """Return the gradient of Wʰ, [O, M, K..]."""
        total = torch.zeros_like(weight, dtype=self.grads.dtype)
        for block in self.blocks:
            block.add_gradient(total)
        self.input_conv.add_gradient(total)
        return total.to(weight.dtype)


def _chunk(sizes: Sizes) -> int:
    """Return the number of timesteps whose inputs or gradients one matrix product takes."""
    return max(1, min(sizes.steps, GRADIENT_ROWS // sizes.rows))


def _opposite(tensor: Tensor, sizes: Sizes) -> Tensor:
    """View the location opposite to the input: [.., P.., M] → [.., M]."""
    for _ in range(sizes.axes):
        tensor = tensor.select(-2, -1)
    return tensor


def _keep_last(last: Tensor, state: Tensor, t: int, time: int, lengths: Tensor | None) -> None:
    """Keep the state of the examples that have read their last input at step t."""
    if lengths is not None:
        last.copy_(torch.where(_column(lengths == t, last), state, last))
    elif t == time:
        last.copy_(state)


def _add_last(total: Tensor, grad: Tensor, t: int, time: int, lengths: Tensor | None) -> None:
    """Add the gradient of the state after the last input, at the step that made it."""
    if lengths is not None:
        total.add_(torch.where(_column(lengths == t, grad), grad, 0))
    elif t == time:
        total.add_(grad)


def _column(condition: Tensor, like: Tensor) -> Tensor:
    """Append axes for broadcasting with [B, P.., M]: [B] → [B, 1..]."""
    return condition.reshape(-1, *[1] * (like.dim() - 1))
