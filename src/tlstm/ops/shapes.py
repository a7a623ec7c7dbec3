"""The sizes of one call, its weights and their gradients, and the windows that a kernel reads.

Dimension letters of this file:
    B       examples
    P..     the location axes, one for each of S = D − 1, each P long
    K..     the kernel's axes, one for each of S
    M       channels
    O       channels that the hidden convolution makes
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from tlstm.ops.geometry import padding


@dataclass(frozen=True)
class Sizes:
    """The sizes of one call.

    Attributes:
        steps: timesteps that are computed.
        time: timesteps of the input; the last of the steps, `time` of them, give an output.
        batch_size: B.
        tensor_size: P.
        axes: S.
        kernel_size: K.
        channels: M.
        gates: 4 in an LSTM, 1 in an RNN.
        logits: channels of A^q, K^S with memory convolution and 0 without.
    """

    steps: int
    time: int
    batch_size: int
    tensor_size: int
    axes: int
    kernel_size: int
    channels: int
    gates: int
    logits: int

    @classmethod
    def of(
        cls, projected: Tensor, hidden: Tensor, cell: Tensor | None, weight: Tensor, time: int
    ) -> "Sizes":
        """Read the sizes off [T, B, M], [B, P.., M] and Wʰ [O, M, K..]."""
        gates = 1 if cell is None else 4
        channels = hidden.shape[-1]
        return cls(
            steps=projected.shape[0],
            time=time,
            batch_size=hidden.shape[0],
            tensor_size=hidden.shape[1],
            axes=hidden.dim() - 2,
            kernel_size=weight.shape[-1],
            channels=channels,
            gates=gates,
            logits=weight.shape[0] - gates * channels,
        )

    @property
    def locations(self) -> int:
        """P^S."""
        return self.tensor_size**self.axes

    @property
    def taps(self) -> int:
        """K^S."""
        return self.kernel_size**self.axes

    @property
    def rows(self) -> int:
        """Rows of a step's matrix product, B·P^S."""
        return self.batch_size * self.locations

    @property
    def convolved(self) -> int:
        """Channels that the hidden convolution makes, O."""
        return self.gates * self.channels + self.logits

    @property
    def grid(self) -> list[int]:
        """The location axes, P.."""
        return [self.tensor_size] * self.axes

    @property
    def padded_grid(self) -> list[int]:
        """The location axes with their padding, (P+K−1).."""
        return [self.tensor_size + self.kernel_size - 1] * self.axes


class Weights(NamedTuple):
    """The weights of a call.

    Attributes:
        hidden: Wʰ, [O, M, K..].
        bias: bʰ, [O].
        norm_gain: Γ, [P.., M] or [M]; None without normalization.
        norm_bias: B, of the same shape.
    """

    hidden: Tensor
    bias: Tensor
    norm_gain: Tensor | None
    norm_bias: Tensor | None


class Gradients(NamedTuple):
    """The gradients of the operator's arguments, None for absent arguments."""

    projected: Tensor
    hidden: Tensor
    cell: Tensor | None
    weight: Tensor
    bias: Tensor
    norm_gain: Tensor | None
    norm_bias: Tensor | None


def unpad(padded: Tensor, sizes: Sizes) -> Tensor:
    """Select the locations inside their padding: [.., (P+K−1).., M] → [.., P.., M]."""
    before, _ = padding(sizes.kernel_size)
    for axis in range(-1 - sizes.axes, -1):
        padded = padded.narrow(axis, before, sizes.tensor_size)
    return padded


def windows(padded: Tensor, sizes: Sizes) -> Tensor:
    """View the kernel's input at every location: [.., (P+K−1).., M] → [.., P.., K.., M]."""
    axes = range(-1 - sizes.axes, -1)
    lead = padded.dim() - 1 - sizes.axes
    strides = [padded.stride(axis) for axis in axes]
    return padded.as_strided(
        [*padded.shape[:lead], *sizes.grid, *[sizes.kernel_size] * sizes.axes, padded.shape[-1]],
        [*padded.stride()[:lead], *strides, *strides, padded.stride(-1)],
    )


def sources(tensor_size: int, axes: int, kernel_size: int, device: torch.device) -> Tensor:
    """Return the location that each tap of the memory convolution reads, [P^S, K^S].

    A tap beyond the border reads the boundary.
    """
    before, _ = padding(kernel_size)
    location = torch.arange(tensor_size, device=device).unsqueeze(1)
    tap = torch.arange(kernel_size, device=device)
    line = (location - before + tap).clamp(0, tensor_size - 1)  # [P, K]
    table = line.new_zeros([1, 1])
    for _ in range(axes):
        table = table[:, None, :, None] * tensor_size + line[None, :, None, :]
        table = table.reshape(prod(table.shape[:2]), prod(table.shape[2:]))
    return table
