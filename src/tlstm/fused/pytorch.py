"""The whole sequence in PyTorch operations, forward and backward written by hand.

Every step writes into buffers that stand for the whole sequence; the backward pass reads them,
keeps no autograd graph, and takes the gradient of the weights for many timesteps at once. Any
device, rank, kernel size and floating-point type.

Matrix products take operands of one type (`operands`, float32 or bfloat16 for example); gates,
memory cell and normalization are computed in float32 or better.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K..     the kernel's axes; K^S taps
    M       channels
    O       channels that the hidden convolution makes: M (tRNN), 4M (−M) or 4M + K^S
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tlstm.cell import NORMALIZATION_EPSILON
from tlstm.fused.sizes import Sizes, corner, interior, sources, taps, windows

# Rows of the matrix product that gives the gradient of the weights: enough to keep its operands
# streaming, few enough that they need little memory
GRADIENT_ROWS = 8192

aten = torch.ops.aten


class Weights(NamedTuple):
    """What is learnt.

    Attributes:
        hidden: Wʰ, [O, M, K..].
        bias: bʰ, [O].
        gain: Γ, [P.., M] or [M]; None without normalization.
        shift: B, of the same shape.
    """

    hidden: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None


class History(NamedTuple):
    """What the backward pass reads; of two timesteps only, and some of it, where none follows.

    Attributes:
        hidden: Hcat_t with its padding, [T+1, B, (P+K−1).., M], in the operands' type.
        cell: C_t, [T+1, B, P.., M].
        activations: G, I, F, O and the memory convolution's kernels, [T, B, P.., O]; H in an RNN.
        squashed: tanh(Norm(C_t)), [T, B, P.., M].
    """

    hidden: Tensor
    cell: Tensor
    activations: Tensor
    squashed: Tensor


class Gradients(NamedTuple):
    """Of the operator's arguments, None for those that are not there."""

    projected: Tensor
    hidden: Tensor
    cell: Tensor | None
    weight: Tensor
    bias: Tensor
    gain: Tensor | None
    shift: Tensor | None


def empty_history(sizes: Sizes, operands: torch.dtype, keep: bool, like: Tensor) -> History:
    """A History to be written, on the device of `like`."""
    lstm = sizes.gates == 4
    kept, held = (sizes.steps, sizes.steps + 1) if keep else (1, 2)
    cells, squashed = (held, kept) if lstm else (0, 0)
    lead = [sizes.batch_size, *sizes.grid]
    computed = torch.promote_types(operands, torch.float32)
    return History(
        like.new_empty(
            [held, sizes.batch_size, *sizes.padded_grid, sizes.channels], dtype=operands
        ),
        like.new_empty([cells, *lead, sizes.channels], dtype=computed),
        like.new_empty([kept, *lead, sizes.convolved], dtype=computed),
        like.new_empty([squashed, *lead, sizes.channels], dtype=computed),
    )


def forward(
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
    history = empty_history(sizes, operands, keep, hidden)
    history.hidden.zero_()
    interior(history.hidden[0], sizes).copy_(hidden)
    if cell is not None:
        history.cell[0].copy_(cell)

    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=operands)
    last_hidden, last_cell = torch.empty_like(hidden), None if cell is None else cell.clone()
    step = _Forward(sizes, weights, history, normalization)
    for t in range(sizes.steps):
        now, after = (t, t + 1) if keep else (t % 2, (t + 1) % 2)
        corner(history.hidden[now], sizes).copy_(projected[t])
        states = step(now, after, t if keep else 0)
        if t >= sizes.steps - time:
            output[t - (sizes.steps - time)] = states[0].flatten(1, -2)[:, -1]
        for last, state in zip((last_hidden, last_cell), states, strict=True):
            if last is not None and state is not None:
                _keep_last(last, state, t + 1, time, lengths)
    return output, last_hidden, last_cell, history


class _Forward:
    """One timestep, with what does not change from one to the next."""

    def __init__(
        self,
        sizes: Sizes,
        weights: Weights,
        history: History,
        normalization: str,
    ) -> None:
        self.sizes, self.history = sizes, history
        computed = history.activations.dtype
        self.weight = matrix(weights.hidden).to(history.hidden.dtype)  # [K^S·M, O]
        self.bias = weights.bias.to(computed)
        self.normalization = Normalizer(sizes, weights, computed, normalization)
        self.mixing = Mixing(sizes, self.bias)
        self.read = self.weight.new_empty([sizes.rows, len(self.weight)])

    def __call__(self, now: int, after: int, slot: int) -> tuple[Tensor, Tensor | None]:
        """Write step `slot` and the state `after` it from the state `now`."""
        sizes, channels, history = self.sizes, self.sizes.channels, self.history
        activations = history.activations[slot]  # [B, P.., O]
        read = windows(history.hidden[now], sizes)
        self.read.view(read.shape).copy_(read)
        multiply(self.read, self.weight, self.bias, activations.view(sizes.rows, -1))
        hidden = interior(history.hidden[after], sizes)
        if sizes.gates == 1:
            hidden.copy_(activations.tanh_())
            return hidden, None

        activations[..., :channels].tanh_()
        activations[..., channels : 4 * channels].sigmoid_()
        g, i, f, o = activations[..., : 4 * channels].chunk(4, dim=-1)
        before, cell = history.cell[now], history.cell[after]
        if sizes.logits:
            kernels = activations[..., 4 * channels :]
            kernels.copy_(torch.softmax(kernels, dim=-1))
            self.mixing.convolve(kernels, before, out=cell)
            cell.mul_(f)
        else:
            torch.mul(before, f, out=cell)
        cell.addcmul_(g, i)
        squashed = torch.tanh(self.normalization.apply(cell), out=history.squashed[slot])
        if hidden.dtype == squashed.dtype:
            torch.mul(squashed, o, out=hidden)
        else:
            hidden.copy_(squashed * o)
        return hidden, cell


class Mixing:
    """The memory convolution as one matrix for each example, [B, L, L], rows of sum 1."""

    def __init__(self, sizes: Sizes, like: Tensor) -> None:
        self.sizes = sizes
        self.matrix = like.new_zeros([sizes.batch_size, sizes.locations, sizes.locations])
        self.sources = sources(sizes, like.device).expand(sizes.batch_size, -1, -1)

    def set(self, kernels: Tensor) -> None:
        """Take the kernels [B, P.., K^S]."""
        self.matrix.zero_().scatter_add_(2, self.sources, self._flat(kernels))

    def convolve(self, kernels: Tensor, cell: Tensor, out: Tensor) -> None:
        """C^conv [B, P.., M] of C [B, P.., M]."""
        self.set(kernels)
        torch.bmm(self.matrix, self._flat(cell), out=self._flat(out))

    def backward(self, kernels: Tensor, cell: Tensor, grad: Tensor, out: Tensor) -> Tensor:
        """The gradients of the cell, into `out`, and of the kernels' logits, [B, P.., K^S]."""
        self.set(kernels)
        of_matrix = torch.bmm(self._flat(grad), self._flat(cell).mT)
        of_kernels = of_matrix.gather(2, self.sources).view(kernels.shape)
        torch.bmm(self.matrix.mT, self._flat(grad), out=self._flat(out))
        return aten._softmax_backward_data(of_kernels, kernels, -1, kernels.dtype)

    def _flat(self, tensor: Tensor) -> Tensor:
        return tensor.flatten(1, -2)


class Normalizer:
    """Norm(C_t) and its gradients, summed over the timesteps."""

    def __init__(self, sizes: Sizes, weights: Weights, computed: torch.dtype, kind: str) -> None:
        self.kind = kind
        self.gain = None if weights.gain is None else weights.gain.to(computed)
        self.shift = None if weights.shift is None else weights.shift.to(computed)
        self.shape = [sizes.channels] if kind == "channel" else [*sizes.grid, sizes.channels]
        self.gain_grad = None if self.gain is None else torch.zeros_like(self.gain)
        self.shift_grad = None if self.shift is None else torch.zeros_like(self.shift)

    def apply(self, cell: Tensor) -> Tensor:
        """Norm(C_t), [B, P.., M]."""
        if self.gain is None or self.shift is None:
            return cell
        return torch.addcmul(self.shift, self._standardized(cell)[0], self.gain)

    def backward(self, cell: Tensor, grad: Tensor) -> Tensor:
        """The gradient of C_t; that of gain and bias is added to what there is."""
        if self.gain_grad is None or self.shift_grad is None:
            return grad
        standardized, mean, scale = self._standardized(cell)
        over = tuple(range(grad.dim() - self.gain_grad.dim()))
        self.gain_grad += (grad * standardized).sum(over)
        self.shift_grad += grad.sum(over)
        of_standardized = grad * self.gain
        return aten.native_layer_norm_backward(
            of_standardized, cell, self.shape, mean, scale, None, None, [True, False, False]
        )[0]

    def _standardized(self, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(cell, self.shape, None, None, NORMALIZATION_EPSILON)


def backward(
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
    step = _Backward(sizes, weights, normalization, history)
    of_projected = torch.empty_like(projected)
    chunk = max(1, min(sizes.steps, GRADIENT_ROWS // sizes.rows))
    of_activations = step.weight.new_empty([chunk, sizes.batch_size, *sizes.grid, sizes.convolved])
    sums = WeightGradients(sizes, history.activations)
    for end in range(sizes.steps, 0, -chunk):
        begin = max(0, end - chunk)
        for t in reversed(range(begin, end)):
            if grad_output is not None and t >= sizes.steps - time:
                step.hidden.flatten(1, -2)[:, -1] += grad_output[t - (sizes.steps - time)]
            for total, grad in ((step.hidden, grad_hidden), (step.cell, grad_cell)):
                if grad is not None:
                    _add_last(total, grad, t + 1, time, lengths)
            step(t, of_activations[t - begin])
            of_projected[t] = corner(step.padded, sizes)
        sums.add(history.hidden[begin:end], of_activations[: end - begin])
    return Gradients(
        of_projected,
        step.hidden.to(hidden.dtype),
        None if cell is None else step.cell.to(cell.dtype),
        sums.weight_like(weights.hidden),
        sums.bias.to(weights.bias.dtype),
        *(
            None if grad is None or like is None else grad.to(like.dtype)
            for grad, like in (
                (step.normalization.gain_grad, weights.gain),
                (step.normalization.shift_grad, weights.shift),
            )
        ),
    )


class _Backward:
    """One timestep backwards.

    Attributes:
        hidden: the gradient of H_t, [B, P.., M]; at the end of a step, of H_{t−1}.
        cell: the same of C_t.
        padded: the gradient of Hcat_{t−1} with its padding, [B, (P+K−1).., M].
    """

    def __init__(
        self,
        sizes: Sizes,
        weights: Weights,
        normalization: str,
        history: History,
    ) -> None:
        self.sizes, self.history = sizes, history
        computed = history.activations.dtype
        self.weight = matrix(weights.hidden).to(history.hidden.dtype).T.contiguous()  # [O, K^S·M]
        self.normalization = Normalizer(sizes, weights, computed, normalization)
        self.mixing = Mixing(sizes, history.activations)
        new = history.activations.new_zeros
        self.hidden = new([sizes.batch_size, *sizes.grid, sizes.channels])
        self.cell, self.work = torch.zeros_like(self.hidden), torch.empty_like(self.hidden)
        self.padded = new([sizes.batch_size, *sizes.padded_grid, sizes.channels])
        self.read = self.weight.new_empty([sizes.rows, self.weight.shape[1]])

    def __call__(self, t: int, of_activations: Tensor) -> None:
        """Write the gradient of A_t, [B, P.., O], and go back to the state before it."""
        sizes = self.sizes
        activations = self.history.activations[t]
        exact = of_activations.dtype == activations.dtype
        grad = of_activations if exact else torch.empty_like(activations)
        if sizes.gates == 1:
            aten.tanh_backward.grad_input(self.hidden, activations, grad_input=grad)
        else:
            self._gates(t, activations, grad)
        if not exact:
            of_activations.copy_(grad)

        multiply(of_activations.view(sizes.rows, -1), self.weight, None, self.read)
        self.padded.zero_()
        read = self.read.view(*self.hidden.shape[:-1], sizes.taps, sizes.channels)
        for tap, view in enumerate(taps(self.padded, sizes)):
            view.add_(read[..., tap, :])
        self.hidden.copy_(interior(self.padded, sizes))

    def _gates(self, t: int, activations: Tensor, grad: Tensor) -> None:
        """The gradient of A_t, of the LSTM; that of C_t becomes that of C_{t−1}."""
        channels = self.sizes.channels
        g, i, f, o = activations[..., : 4 * channels].chunk(4, dim=-1)
        of_g, of_i, of_f, of_o = grad[..., : 4 * channels].chunk(4, dim=-1)
        squashed, work = self.history.squashed[t], self.work
        before, cell = self.history.cell[t], self.history.cell[t + 1]

        aten.sigmoid_backward.grad_input(
            torch.mul(self.hidden, squashed, out=work), o, grad_input=of_o
        )
        aten.tanh_backward.grad_input(
            torch.mul(self.hidden, o, out=work), squashed, grad_input=self.hidden
        )
        self.cell += self.normalization.backward(cell, self.hidden)

        aten.tanh_backward.grad_input(torch.mul(self.cell, i, out=work), g, grad_input=of_g)
        aten.sigmoid_backward.grad_input(torch.mul(self.cell, g, out=work), i, grad_input=of_i)
        torch.addcmul(cell, g, i, value=-1, out=work)  # C^conv ⊙ F
        work.mul_(self.cell)
        torch.addcmul(work, work, f, value=-1, out=of_f)
        if self.sizes.logits:
            torch.mul(self.cell, f, out=work)
            grad[..., 4 * channels :] = self.mixing.backward(
                activations[..., 4 * channels :], before, work, out=self.cell
            )
        else:
            self.cell.mul_(f)


class WeightGradients:
    """The gradients of Wʰ and bʰ, summed over the timesteps, in float32 or better."""

    def __init__(self, sizes: Sizes, like: Tensor) -> None:
        self.sizes = sizes
        self.matrix = like.new_zeros([sizes.taps * sizes.channels, sizes.convolved])
        self.bias = like.new_zeros([sizes.convolved])

    def add(self, hidden: Tensor, of_activations: Tensor) -> None:
        """Take in timesteps: Hcat [n, B, (P+K−1).., M] and the gradient of A [n, B, P.., O]."""
        grad = of_activations.flatten(0, -2)  # [n·B·L, O]
        read = windows(hidden, self.sizes).reshape(len(grad), -1)  # [n·B·L, K^S·M]
        self.bias += grad.sum(0, dtype=self.bias.dtype)
        if read.dtype == self.matrix.dtype:
            self.matrix.addmm_(read.T, grad)
        elif read.is_cuda:
            self.matrix = torch.addmm(self.matrix, read.T, grad, out_dtype=self.matrix.dtype)
        else:
            self.matrix += read.T @ grad

    def weight_like(self, weight: Tensor) -> Tensor:
        """The gradient of Wʰ [O, M, K..]."""
        kernel, channels = list(weight.shape[2:]), self.sizes.channels
        return self.matrix.view(*kernel, channels, -1).movedim((-1, -2), (0, 1)).to(weight.dtype)


def matrix(weight: Tensor) -> Tensor:
    """Wʰ [O, M, K..] as the matrix of a product with what the kernel reads, [K^S·M, O]."""
    return weight.movedim((0, 1), (-1, -2)).flatten(0, -2)


def multiply(left: Tensor, right: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Left · right + bias, summed in float32 or better whatever the operands' type."""
    if left.dtype == out.dtype:
        if bias is None:
            torch.mm(left, right, out=out)
        else:
            torch.addmm(bias, left, right, out=out)
        return
    product = torch.mm(left, right, out_dtype=out.dtype) if left.is_cuda else left @ right
    torch.add(product, 0 if bias is None else bias, out=out)


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
