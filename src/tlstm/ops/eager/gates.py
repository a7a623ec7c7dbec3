"""The gates of a timestep and their gradients.

Dimension letters of this file:
    n       saved timesteps
    B       examples
    P..     the location axes
    K^S     taps
    M       channels
    O       channels that the hidden convolution makes
"""

import torch
from torch import Tensor

from tlstm.ops.eager.memory_conv import MemoryConv, softmax
from tlstm.ops.eager.normalization import Normalizer
from tlstm.ops.eager.saved_tensors import SavedTensors
from tlstm.ops.shapes import Sizes, unpad

aten = torch.ops.aten

# Numbers from which five passes over them are faster than one of torch.tanh
MANY = 2**13


class GateViews:
    """Views of the gates in the activations, or in their gradient, of each of [n, B, P.., O].

    Attributes:
        g, i, f, o: the gates, [B, P.., M].
        sigmoids: I, F and O in one, [B, P.., 3M].
        kernels: of the memory convolution, [B, P.., K^S]; K^S is 0 without one.
    """

    def __init__(self, activations: Tensor, channels: int) -> None:
        gates = activations[..., : 4 * channels]
        self.g, self.i, self.f, self.o = (gate.unbind(0) for gate in gates.chunk(4, dim=-1))
        self.sigmoids = gates[..., channels:].unbind(0)
        self.kernels = activations[..., 4 * channels :].unbind(0)


class GatesForward:
    """The step from A_t and C_{t−1} to C_t and H_t, in place in the saved tensors."""

    def __init__(self, sizes: Sizes, saved: SavedTensors, normalizer: Normalizer) -> None:
        self.hidden = unpad(saved.hidden, sizes).unbind(0)
        self.cell, self.squashed = saved.cell.unbind(0), saved.squashed.unbind(0)
        self.views = GateViews(saved.activations, sizes.channels)
        self.normalizer = normalizer
        self.memory_conv = MemoryConv(sizes, saved.activations) if sizes.logits else None

    def __call__(self, now: int, after: int, slot: int) -> None:
        """Write timestep `slot` and the state `after` it, from the state `now`."""
        views, cell = self.views, self.cell[after]
        tanh(views.g[slot], out=views.g[slot])
        views.sigmoids[slot].sigmoid_()
        if self.memory_conv is None:
            torch.mul(self.cell[now], views.f[slot], out=cell)
        else:
            kernels = views.kernels[slot]
            kernels.copy_(softmax(kernels))
            self.memory_conv.convolve(kernels, self.cell[now], out=cell)
            cell.mul_(views.f[slot])
        cell.addcmul_(views.g[slot], views.i[slot])
        squashed = tanh(self.normalizer.apply(cell), out=self.squashed[slot])
        _multiply(squashed, views.o[slot], out=self.hidden[after])


class GatesBackward:
    """The step from the gradients of H_t and C_t to those of A_t and C_{t−1}.

    Args:
        sizes: of the call.
        saved: the forward pass wrote them.
        normalizer: of the memory cell.
        grads: the gradients of A of a chunk of timesteps, to be written, [n, B, P.., O].

    Attributes:
        hidden: the gradient of H_t, [B, P.., M]; the caller sets it.
        cell: the gradient of C_t; a step makes it that of C_{t−1}.
    """

    def __init__(
        self, sizes: Sizes, saved: SavedTensors, normalizer: Normalizer, grads: Tensor
    ) -> None:
        self.saved, self.normalizer = saved, normalizer
        self.views = GateViews(saved.activations, sizes.channels)
        self.grads = GateViews(grads, sizes.channels)
        self.memory_conv = MemoryConv(sizes, saved.activations) if sizes.logits else None
        self.hidden = torch.zeros_like(saved.cell[0])
        self.cell, self.work = torch.zeros_like(self.hidden), torch.empty_like(self.hidden)

    def __call__(self, t: int, slot: int) -> None:
        """Go back over timestep t, and write the gradient of its activations to `slot`."""
        self._output(t, slot)
        self._input(t, slot)
        forget, work = self.views.f[t], self.work
        self._forget(t, slot)
        if self.memory_conv is None:
            self.cell.mul_(forget)
            return
        torch.mul(self.cell, forget, out=work)
        self.grads.kernels[slot].copy_(
            self.memory_conv.backward(
                self.views.kernels[t], self.saved.cell[t], work, out=self.cell
            )
        )

    def _output(self, t: int, slot: int) -> None:
        """Differentiate H = tanh(Norm(C)) ⊙ O."""
        squashed, output, work = self.saved.squashed[t], self.views.o[t], self.work
        torch.mul(self.hidden, squashed, out=work)
        aten.sigmoid_backward.grad_input(work, output, grad_input=self.grads.o[slot])
        torch.mul(self.hidden, output, out=work)
        aten.tanh_backward.grad_input(work, squashed, grad_input=self.hidden)
        self.cell += self.normalizer.backward(self.saved.cell[t + 1], self.hidden)

    def _input(self, t: int, slot: int) -> None:
        """Differentiate G ⊙ I."""
        content, input, work = self.views.g[t], self.views.i[t], self.work
        torch.mul(self.cell, input, out=work)
        aten.tanh_backward.grad_input(work, content, grad_input=self.grads.g[slot])
        torch.mul(self.cell, content, out=work)
        aten.sigmoid_backward.grad_input(work, input, grad_input=self.grads.i[slot])

    def _forget(self, t: int, slot: int) -> None:
        """Differentiate C^conv ⊙ F, which is C − G ⊙ I."""
        work, views = self.work, self.views
        torch.addcmul(self.saved.cell[t + 1], views.g[t], views.i[t], value=-1, out=work)
        work.mul_(self.cell)
        torch.addcmul(work, work, views.f[t], value=-1, out=self.grads.f[slot])


class RnnForward:
    """The step H_t = tanh(A_t), in place in the saved tensors."""

    def __init__(self, sizes: Sizes, saved: SavedTensors) -> None:
        self.hidden = unpad(saved.hidden, sizes).unbind(0)
        self.activations = saved.activations.unbind(0)

    def __call__(self, now: int, after: int, slot: int) -> None:
        """Write the activations of timestep `slot` and the state `after` it."""
        self.hidden[after].copy_(self.activations[slot].tanh_())


class RnnBackward:
    """The step from the gradient of H_t to that of A_t; as `GatesBackward`, without a cell."""

    cell: None = None

    def __init__(self, saved: SavedTensors, grads: Tensor) -> None:
        self.activations, self.grads = saved.activations.unbind(0), grads.unbind(0)
        self.hidden = torch.zeros_like(saved.activations[0])

    def __call__(self, t: int, slot: int) -> None:
        """Go back over timestep t, and write the gradient of its activations to `slot`."""
        aten.tanh_backward.grad_input(self.hidden, self.activations[t], grad_input=self.grads[slot])


def tanh(input: Tensor, out: Tensor) -> Tensor:
    """Return the tanh; of many float32 numbers on a CPU as E / (E + 2) with E = exp(2x) − 1.

    That is as exact as torch.tanh in half of the time; beyond x = 15 it is 1.
    """
    if input.device.type != "cpu" or input.dtype != torch.float32 or input.numel() < MANY:
        return torch.tanh(input, out=out)
    torch.mul(input, 2, out=out).clamp_(max=30).expm1_()
    return out.div_(out + 2)


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write left ⊙ right, rounded if `out` has a narrower type."""
    if out.dtype == left.dtype:
        torch.mul(left, right, out=out)
    else:
        out.copy_(left * right)
