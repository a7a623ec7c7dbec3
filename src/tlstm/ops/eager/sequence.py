"""The whole sequence in PyTorch operations, forward and backward written by hand.

Every step writes into buffers that stand for the whole sequence; the backward pass reads them,
keeps no autograd graph, and takes the gradient of the weights for many timesteps at once. Any
device, rank, kernel size and floating-point type.

Matrix products take operands of one type (`operands`, float32 or bfloat16 for example); gates,
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

from tlstm.ops.arguments import Gradients, Weights
from tlstm.ops.eager.blocks import partition
from tlstm.ops.eager.convolution import Reading, ReadingBackward
from tlstm.ops.eager.gates import GatesBackward, GatesForward, RnnBackward, RnnForward
from tlstm.ops.eager.input_conv import Entrance
from tlstm.ops.eager.normalization import Normalizer
from tlstm.ops.eager.saved_tensors import History, empty_history
from tlstm.ops.shapes import Sizes, interior

# Rows of the matrix product that gives the gradient of the weights: enough to keep its operands
# streaming, few enough that they need little memory
GRADIENT_ROWS = 2048


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
    history = _begin(empty_history(sizes, operands, keep, hidden), sizes, hidden, cell)
    hiddens, cells = interior(history.hidden, sizes).unbind(0), history.cell.unbind(0)
    corners = _opposite(interior(history.hidden, sizes), sizes).unbind(0)

    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=operands)
    last_hidden, last_cell = torch.empty_like(hidden), None if cell is None else cell.clone()
    step = _Forward(sizes, weights, history, normalization)
    chunk = _chunk(sizes)
    for t in range(sizes.steps):
        if t % chunk == 0:
            entering = step.entrance.forward(projected[t : t + chunk]).unbind(0)
        now, after, slot = (t, t + 1, t) if keep else (t % 2, (t + 1) % 2, 0)
        step(now, after, slot, entering[t % chunk])
        if t >= sizes.steps - time:
            output[t - (sizes.steps - time)] = corners[after]
        _keep_last(last_hidden, hiddens[after], t + 1, time, lengths)
        if last_cell is not None:
            _keep_last(last_cell, cells[after], t + 1, time, lengths)
    return output, last_hidden, last_cell, history


def _begin(history: History, sizes: Sizes, hidden: Tensor, cell: Tensor | None) -> History:
    """The history with the first state in it."""
    history.hidden.zero_()
    interior(history.hidden[0], sizes).copy_(hidden)
    if cell is not None:
        history.cell[0].copy_(cell)
    return history


class _Forward:
    """One timestep, with what does not change from one to the next."""

    def __init__(
        self, sizes: Sizes, weights: Weights, history: History, normalization: str
    ) -> None:
        activations = history.activations
        bias = weights.bias.to(activations.dtype)
        self.readings = [
            Reading(part, sizes, weights.hidden, bias, history.hidden, activations)
            for part in partition(sizes, activations.device.type)
        ]
        self.entrance = Entrance(sizes, weights.hidden, history.hidden.dtype)
        self.entered = self.entrance.locations(activations).unbind(0)
        self.gates: Callable[[int, int, int], None]
        if sizes.gates == 1:
            self.gates = RnnForward(sizes, history)
        else:
            normalizer = Normalizer(
                sizes, weights.gain, weights.shift, normalization, activations.dtype
            )
            self.gates = GatesForward(sizes, history, normalizer)

    def __call__(self, now: int, after: int, slot: int, entering: Tensor) -> None:
        """Write timestep `slot` and the state `after` it from the state `now`.

        `entering` is what the input adds to the activations, [B, N.., O]; see `Entrance`.
        """
        for reading in self.readings:
            reading(now, slot)
        self.entered[slot].add_(entering)
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
    history: History,
) -> Gradients:
    """The gradients of the operator's arguments."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    chunk = _chunk(sizes)
    step = _Backward(sizes, weights, normalization, history, chunk)
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
        of_projected[begin:end] = step.sum_up(history.hidden[begin:end], projected[begin:end])
    return Gradients(
        of_projected,
        gates.hidden.to(hidden.dtype),
        None if cell is None or gates.cell is None else gates.cell.to(cell.dtype),
        step.of_weight(weights.hidden),
        step.of_bias.to(weights.bias.dtype),
        *(
            None if grad is None or like is None else grad.to(like.dtype)
            for grad, like in (
                (step.normalizer.gain_grad, weights.gain),
                (step.normalizer.shift_grad, weights.shift),
            )
        ),
    )


class _Backward:
    """One timestep backwards, with what does not change from one to the next.

    Attributes:
        of_activations: the gradients of A of `chunk` timesteps, [chunk, B, P.., O], in the
            operands' type.
        gates: with the gradients of H_t and C_t; at the end of a step, of H_{t−1} and C_{t−1}.
        normalizer: with the gradients of its gain and bias.
        entrance: the product with the projected input.
        of_bias: the gradient of bʰ, [O].
    """

    def __init__(
        self, sizes: Sizes, weights: Weights, normalization: str, history: History, chunk: int
    ) -> None:
        operands, computed = history.hidden.dtype, history.activations.dtype
        shape = [sizes.batch_size, *sizes.grid, sizes.convolved]
        self.of_activations = history.hidden.new_empty([chunk, *shape])
        self.exact = operands == computed
        self.grads = (
            self.of_activations if self.exact else history.activations.new_empty([1, *shape])
        )
        self.normalizer = Normalizer(sizes, weights.gain, weights.shift, normalization, computed)
        self.gates = (
            RnnBackward(history, self.grads)
            if sizes.gates == 1
            else GatesBackward(sizes, history, self.normalizer, self.grads)
        )
        self.readings = [
            ReadingBackward(part, sizes, weights.hidden, self.of_activations, self.gates.hidden)
            for part in partition(sizes, history.hidden.device.type)
        ]
        self.entrance = Entrance(sizes, weights.hidden, operands)
        self.of_bias = torch.zeros_like(weights.bias, dtype=computed)

    def __call__(self, t: int, slot: int) -> None:
        """Write the gradient of A_t, at `slot` of the chunk, and go back to the state before."""
        self.gates(t, slot if self.exact else 0)
        if not self.exact:
            self.of_activations[slot].copy_(self.grads[0])
        self.gates.hidden.zero_()
        for reading in self.readings:
            reading(slot)

    def sum_up(self, padded: Tensor, projected: Tensor) -> Tensor:
        """Take in the gradients of the weights of timesteps whose A_t have theirs.

        Args:
            padded: H before them with its padding, [n, B, (P+K−1).., M].
            projected: their projected inputs, [n, B, M].

        Returns:
            The gradient of the projected inputs, [n, B, M].
        """
        of_activations = self.of_activations[: len(padded)]
        self.of_bias += of_activations.flatten(0, -2).sum(0, dtype=self.of_bias.dtype)
        for reading in self.readings:
            reading.sum_up(padded)
        return self.entrance.backward(projected, of_activations)

    def of_weight(self, weight: Tensor) -> Tensor:
        """The gradient of Wʰ, [O, M, K..]."""
        total = torch.zeros_like(weight, dtype=self.grads.dtype)
        for reading in self.readings:
            reading.add_gradient(total)
        self.entrance.add_gradient(total)
        return total.to(weight.dtype)


def _chunk(sizes: Sizes) -> int:
    """Timesteps whose gradients, or inputs, are taken in at once."""
    return max(1, min(sizes.steps, GRADIENT_ROWS // sizes.rows))


def _opposite(tensor: Tensor, sizes: Sizes) -> Tensor:
    """The location opposite to the input: [.., P.., M] → view [.., M]."""
    for _ in range(sizes.axes):
        tensor = tensor.select(-2, -1)
    return tensor


def _keep_last(last: Tensor, state: Tensor, t: int, time: int, lengths: Tensor | None) -> None:
    """The state after the last input: of the examples that have read theirs by step t."""
    if lengths is not None:
        last.copy_(torch.where(_column(lengths == t, last), state, last))
    elif t == time:
        last.copy_(state)


def _add_last(total: Tensor, grad: Tensor, t: int, time: int, lengths: Tensor | None) -> None:
    """The gradient of the state after the last input, at the step that made it."""
    if lengths is not None:
        total.add_(torch.where(_column(lengths == t, grad), grad, 0))
    elif t == time:
        total.add_(grad)


def _column(condition: Tensor, like: Tensor) -> Tensor:
    """[B] → [B, 1..] to go with [B, P.., M]."""
    return condition.reshape(-1, *[1] * (like.dim() - 1))
