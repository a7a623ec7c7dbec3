"""The hidden convolution of a timestep and its gradients: `blocks`, and the projected input.

Dimension letters of this file:
    n       timesteps
    B       examples
    P..     the location axes
    K..     the kernel's axes
    N..     the locations that read the input: the first min(r, P) of each location axis
    G.., R..  the locations and the taps of a block; G and R their numbers
    M, O    channels before and after the convolution
"""

import torch
from torch import Tensor

from tlstm.ops.eager.blocks import Block, moves
from tlstm.ops.geometry import radius
from tlstm.ops.matmul import accumulate, multiply, product
from tlstm.ops.shapes import Sizes


class ConvBlock:
    """A block of the hidden convolution, forward.

    Args:
        block: its locations and taps.
        sizes: of the call.
        weight: Wʰ, [O, M, K..].
        bias: bʰ, [O].
        padded: H with its padding, of the saved timesteps, [n, B, (P+K−1).., M].
        activations: A of the saved timesteps, [n, B, P.., O].
    """

    def __init__(
        self,
        block: Block,
        sizes: Sizes,
        weight: Tensor,
        bias: Tensor,
        padded: Tensor,
        activations: Tensor,
    ) -> None:
        self.weight = matrix(block.of_weight(weight)).to(padded.dtype).T  # [R·M, O]
        self.bias = bias
        self.sources = block.of_padded(padded, sizes).unbind(0)
        self.targets = block.of_locations(activations).unbind(0)
        self.read = padded.new_empty(self.sources[0].shape)  # [B, G.., R.., M]

    def __call__(self, now: int, slot: int) -> None:
        """Write the activations of a timestep from the state before it."""
        self.read.copy_(self.sources[now])
        read = self.read.view(-1, len(self.weight))  # [B·G, R·M]
        multiply(read, self.weight, self.bias, self.targets[slot])


class ConvBlockBackward:
    """A block of the hidden convolution, backward.

    Args:
        block: its locations and taps.
        sizes: of the call.
        weight: Wʰ, [O, M, K..].
        of_activations: the gradient of A of a chunk of timesteps, [n, B, P.., O].
        of_hidden: the gradient of H, to which this one is added, [B, P.., M].

    Attributes:
        sum: the gradient of its taps, summed over the timesteps, [O, R·M].
    """

    def __init__(
        self, block: Block, sizes: Sizes, weight: Tensor, of_activations: Tensor, of_hidden: Tensor
    ) -> None:
        self.block, self.sizes = block, sizes
        self.weight = matrix(block.of_weight(weight)).to(of_activations.dtype)  # [O, R·M]
        self.sum = torch.zeros_like(self.weight, dtype=of_hidden.dtype)
        self.grads = block.of_locations(of_activations)  # [n, B, G.., O]
        self.copies = not self.grads.is_contiguous()
        self.rows = self.grads.new_empty(self.grads.shape) if self.copies else self.grads
        self.columns = self.rows.new_empty([len(weight), self.rows[..., 0].numel()])  # [O, n·B·G]
        self.read = self.rows.new_empty([*self.rows.shape[:-1], self.weight.shape[1]])
        scattered = [len(each) for each in (*block.locations, *block.taps)]
        self.scattered_shape = [sizes.batch_size, *scattered, sizes.channels]
        self.moves = [
            (of_hidden[:, *read], (slice(None), *readers)) for read, readers in moves(block, sizes)
        ]

    def __call__(self, slot: int) -> None:
        """Add the gradient of H from the activations of one timestep of the chunk."""
        rows = self.rows[slot]
        if self.copies:
            rows.copy_(self.grads[slot])
        grads = rows.view(-1, len(self.weight))  # [B·G, O]
        scattered = product(grads, self.weight, None, self.sum.dtype)
        scattered = scattered.view(self.scattered_shape)  # [B, G.., R.., M]
        for target, readers in self.moves:
            target.add_(scattered[readers])

    def sum_up(self, padded: Tensor) -> None:
        """Add up the taps' gradients over the timesteps of H, [n, B, (P+K−1).., M]."""
        source = self.block.of_padded(padded, self.sizes)  # [n, B, G.., R.., M]
        read = self.read[: len(padded)]
        read.view(source.shape).copy_(source)
        rows = self.rows[: len(padded)].flatten(0, -2)  # [n·B·G, O]
        columns = self.columns.flatten()[: rows.numel()].view(-1, len(rows))
        accumulate(self.sum, columns.copy_(rows.T), read.flatten(0, -2))

    def add_gradient(self, of_weight: Tensor) -> None:
        """Add the gradient of the taps to that of Wʰ, [O, M, K..]."""
        taps = self.block.of_weight(of_weight)  # [O, M, R..]
        taps += self.sum.view(len(self.sum), *taps.shape[2:], -1).movedim(-1, 1)


class InputConv:
    """The part of the hidden convolution that reads the projected input, and its gradients.

    The projected input lies before the first location of every axis: only the nearest r locations
    of each axis read it, each by one tap. It needs no state, so one product takes many timesteps.

    Attributes:
        weight: its taps of Wʰ, [M, N..·O].
        sum: their gradient, summed over the timesteps, [M, N..·O].
    """

    def __init__(self, sizes: Sizes, weight: Tensor, compute_dtype: torch.dtype) -> None:
        self.sizes, self.compute_dtype = sizes, compute_dtype
        self.accum_dtype = torch.promote_types(compute_dtype, torch.float32)
        self.near = [min(radius(sizes.kernel_size), sizes.tensor_size)] * sizes.axes
        self.axes = list(range(2, 2 + sizes.axes))
        taps = self._taps(weight).flip(self.axes)  # [O, M, N..]
        self.weight = taps.movedim((1, 0), (0, -1)).flatten(1).to(compute_dtype)
        self.sum = torch.zeros_like(self.weight, dtype=self.accum_dtype)

    def locations(self, tensor: Tensor) -> Tensor:
        """View the locations that read the input: [.., P.., O] → [.., N.., O]."""
        for axis, near in zip(range(-1 - len(self.near), -1), self.near, strict=True):
            tensor = tensor.narrow(axis, 0, near)
        return tensor

    def forward(self, projected: Tensor) -> Tensor:
        """Return what projected inputs [n, B, M] add to the activations there, [n, B, N.., O]."""
        added = product(self._operand(projected), self.weight, None, self.accum_dtype)
        return added.view(*projected.shape[:2], *self.near, -1)

    def backward(self, projected: Tensor, of_activations: Tensor) -> Tensor:
        """Return the gradient of projected inputs [n, B, M] from that of A [n, B, P.., O].

        The gradient of the taps is added to `sum`.
        """
        grad = self.locations(of_activations).reshape(-1, self.weight.shape[1])  # [n·B, N..·O]
        accumulate(self.sum, self._operand(projected).T, grad)
        return product(grad, self.weight.T, None, self.accum_dtype).view(projected.shape)

    def add_gradient(self, of_weight: Tensor) -> None:
        """Add the gradient of the taps to that of Wʰ, [O, M, K..]."""
        summed = self.sum.view(self.sizes.channels, *self.near, -1).movedim((0, -1), (1, 0))
        self._taps(of_weight).add_(summed.flip(self.axes))

    def _taps(self, weight: Tensor) -> Tensor:
        """View the taps that read the input, last first: Wʰ [O, M, K..] → [O, M, N..]."""
        for axis, near in zip(self.axes, self.near, strict=True):
            weight = weight.narrow(axis, radius(self.sizes.kernel_size) - near, near)
        return weight

    def _operand(self, projected: Tensor) -> Tensor:
        return projected.flatten(0, 1).to(self.compute_dtype)


def matrix(weight: Tensor) -> Tensor:
    """Return taps of Wʰ, [O, M, R..], as the matrix of a product with their input, [O, R·M]."""
    return weight.movedim(1, -1).flatten(1)
