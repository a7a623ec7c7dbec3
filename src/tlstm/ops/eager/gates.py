"""The gates of a timestep, from activations to states, and their gradients.

Dimension letters of this file:
    n       timesteps that are kept
    B       examples
    P..     the location axes
    K^S     taps
    M       channels
    O       channels that the hidden convolution makes
"""

import torch
from torch import Tensor

from tlstm.ops.eager.memory_conv import Mixing, softmax
from tlstm.ops.eager.normalization import Normalizer
from tlstm.ops.eager.saved_tensors import History
from tlstm.ops.shapes import Sizes, interior

aten = torch.ops.aten

# Numbers from which five passes over them take less time than one of torch.tanh
MANY = 2**13


class Views:
    """The parts of a timestep's activations or of their gradient, for each of [n, B, P.., O].

    Attributes:
        g, i, f, o: the gates, [B, P.., M].
        sigmoids: I, F and O together, [B, P.., 3M].
        kernels: of the memory convolution, [B, P.., K^S]; empty without one.
    """

    def __init__(self, activations: Tensor, channels: int) -> None:
        gates = activations[..., : 4 * channels]
        self.g, self.i, self.f, self.o = (gate.unbind(0) for gate in gates.chunk(4, dim=-1))
        self.sigmoids = gates[..., channels:].unbind(0)
        self.kernels = activations[..., 4 * channels :].unbind(0)


class GatesForward:
    """From A_t and C_{t−1} to C_t and H_t, in place in the history."""

    def __init__(self, sizes: Sizes, history: History, normalizer: Normalizer) -> None:
        self.hidden = interior(history.hidden, sizes).unbind(0)
        self.cell, self.squashed = history.cell.unbind(0), history.squashed.unbind(0)
        self.views = Views(history.activations, sizes.channels)
        self.normalizer = normalizer
        self.mixing = Mixing(sizes, history.activations) if sizes.logits else None

    def __call__(self, now: int, after: int, slot: int) -> None:
        """Write timestep `slot` and the state `after` it from the state `now`."""
        views, cell = self.views, self.cell[after]
        tanh(views.g[slot], out=views.g[slot])
        views.sigmoids[slot].sigmoid_()
        if self.mixing is None:
            torch.mul(self.cell[now], views.f[slot], out=cell)
        else:
            kernels = views.kernels[slot]
            kernels.copy_(softmax(kernels))
            self.mixing.convolve(kernels, self.cell[now], out=cell)
            cell.mul_(views.f[slot])
        cell.addcmul_(views.g[slot], views.i[slot])
        squashed = tanh(self.normalizer.apply(cell), out=self.squashed[slot])
        _multiply(squashed, views.o[slot], out=self.hidden[after])


class GatesBackward:
    """From the gradients of H_t and C_t to those of A_t and C_{t−1}.

    Args:
        sizes: the call's.
        history: what the forward pass wrote.
        normalizer: the memory cell's.
        grads: of the activations of some timesteps, to be written, [n, B, P.., O].

    Attributes:
        hidden: the gradient of H_t, [B, P.., M]; the caller sets it.
        cell: that of C_t, which becomes that of C_{t−1}.
    """

    def __init__(
        self, sizes: Sizes, history: History, normalizer: Normalizer, grads: Tensor
    ) -> None:
        self.history, self.normalizer = history, normalizer
        self.views = Views(history.activations, sizes.channels)
        self.grads = Views(grads, sizes.channels)
        self.mixing = Mixing(sizes, history.activations) if sizes.logits else None
        self.hidden = torch.zeros_like(history.cell[0])
        self.cell, self.work = torch.zeros_like(self.hidden), torch.empty_like(self.hidden)

    def __call__(self, t: int, slot: int) -> None:
        """Go back over timestep t, the gradient of whose activations is of `slot`."""
        self._output(t, slot)
        self._input(t, slot)
        forget, work = self.views.f[t], self.work
        self._forget(t, slot)
        if self.mixing is None:
            self.cell.mul_(forget)
            return
        torch.mul(self.cell, forget, out=work)
        self.grads.kernels[slot].copy_(
            self.mixing.backward(self.views.kernels[t], self.history.cell[t], work, out=self.cell)
        )

    def _output(self, t: int, slot: int) -> None:
        """H = tanh(Norm(C)) ⊙ O."""
        squashed, output, work = self.history.squashed[t], self.views.o[t], self.work
        torch.mul(self.hidden, squashed, out=work)
        aten.sigmoid_backward.grad_input(work, output, grad_input=self.grads.o[slot])
        torch.mul(self.hidden, output, out=work)
        aten.tanh_backward.grad_input(work, squashed, grad_input=self.hidden)
        self.cell += self.normalizer.backward(self.history.cell[t + 1], self.hidden)

    def _input(self, t: int, slot: int) -> None:
        """G ⊙ I."""
        content, input, work = self.views.g[t], self.views.i[t], self.work
        torch.mul(self.cell, input, out=work)
        aten.tanh_backward.grad_input(work, content, grad_input=self.grads.g[slot])
        torch.mul(self.cell, content, out=work)
        aten.sigmoid_backward.grad_input(work, input, grad_input=self.grads.i[slot])

    def _forget(self, t: int, slot: int) -> None:
        """C^conv ⊙ F, which is C − G ⊙ I."""
        work, views = self.work, self.views
        torch.addcmul(self.history.cell[t + 1], views.g[t], views.i[t], value=-1, out=work)
        work.mul_(self.cell)
        torch.addcmul(work, work, views.f[t], value=-1, out=self.grads.f[slot])


class RnnForward:
    """H_t = tanh(A_t) in place in the history."""

    def __init__(self, sizes: Sizes, history: History) -> None:
        self.hidden = interior(history.hidden, sizes).unbind(0)
        self.activations = history.activations.unbind(0)

    def __call__(self, now: int, after: int, slot: int) -> None:
        """Write timestep `slot` and the state `after` it."""
        self.hidden[after].copy_(self.activations[slot].tanh_())


class RnnBackward:
    """From the gradient of H_t to that of A_t; see `GatesBackward`, but that there is no cell."""

    cell: None = None

    def __init__(self, history: History, grads: Tensor) -> None:
        self.activations, self.grads = history.activations.unbind(0), grads.unbind(0)
        self.hidden = torch.zeros_like(history.activations[0])

    def __call__(self, t: int, slot: int) -> None:
        """Go back over timestep t, the gradient of whose activations is of `slot`."""
        aten.tanh_backward.grad_input(self.hidden, self.activations[t], grad_input=self.grads[slot])


def tanh(input: Tensor, out: Tensor) -> Tensor:
    """The tanh; of many float32 numbers on a CPU as E / (E + 2) with E = exp(2x) − 1.

    That is as exact, and takes PyTorch half of the time; beyond x = 15 it is 1.
    """
    if input.device.type != "cpu" or input.dtype != torch.float32 or input.numel() < MANY:
        return torch.tanh(input, out=out)
    torch.mul(input, 2, out=out).clamp_(max=30).expm1_()
    return out.div_(out + 2)


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Left ⊙ right, rounded where `out` is of a smaller type."""
    if out.dtype == left.dtype:
        torch.mul(left, right, out=out)
    else:
        out.copy_(left * right)
