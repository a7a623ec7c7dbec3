"""The part of the hidden convolution that reads the projected input.

The projected input stands before the first location of every axis: only the r locations of each
axis that are nearest read it, each by one tap. It needs no state, so the product is that of many
timesteps at once.

Dimension letters of this file:
    n       timesteps
    B       examples
    N..     the locations that read the input: the first min(r, P) of each location axis
    P..     the location axes
    K..     the kernel's axes
    M, O    channels before and after the convolution
"""

import torch
from torch import Tensor

from tlstm.ops.geometry import radius
from tlstm.ops.matmul import accumulate, product
from tlstm.ops.shapes import Sizes


class Entrance:
    """The product with the projected input, and its gradients.

    Attributes:
        weight: its taps of Wʰ, [M, N..·O].
        sum: their gradient, summed over the timesteps, [M, N..·O].
    """

    def __init__(self, sizes: Sizes, weight: Tensor, operands: torch.dtype) -> None:
        self.sizes, self.operands = sizes, operands
        self.computed = torch.promote_types(operands, torch.float32)
        self.near = [min(radius(sizes.kernel_size), sizes.tensor_size)] * sizes.axes
        self.axes = list(range(2, 2 + sizes.axes))
        taps = self._taps(weight).flip(self.axes)  # [O, M, N..]
        self.weight = taps.movedim((1, 0), (0, -1)).flatten(1).to(operands)
        self.sum = torch.zeros_like(self.weight, dtype=self.computed)

    def locations(self, tensor: Tensor) -> Tensor:
        """The locations that read the input, of [.., P.., O]: a view [.., N.., O]."""
        for axis, near in zip(range(-1 - len(self.near), -1), self.near, strict=True):
            tensor = tensor.narrow(axis, 0, near)
        return tensor

    def forward(self, projected: Tensor) -> Tensor:
        """What projected inputs [n, B, M] add to the activations there, [n, B, N.., O]."""
        added = product(self._operand(projected), self.weight, None, self.computed)
        return added.view(*projected.shape[:2], *self.near, -1)

    def backward(self, projected: Tensor, of_activations: Tensor) -> Tensor:
        """The gradient of projected inputs [n, B, M] from that of the activations [n, B, P.., O].

        The gradient of the taps is added to what there is.
        """
        grad = self.locations(of_activations).reshape(-1, self.weight.shape[1])  # [n·B, N..·O]
        accumulate(self.sum, self._operand(projected).T, grad)
        return product(grad, self.weight.T, None, self.computed).view(projected.shape)

    def add_gradient(self, of_weight: Tensor) -> None:
        """Add the gradient of the taps to that of Wʰ, [O, M, K..]."""
        summed = self.sum.view(self.sizes.channels, *self.near, -1).movedim((0, -1), (1, 0))
        self._taps(of_weight).add_(summed.flip(self.axes))

    def _taps(self, weight: Tensor) -> Tensor:
        """Of Wʰ [O, M, K..], the taps that read the input: a view [O, M, N..], the last first."""
        for axis, near in zip(self.axes, self.near, strict=True):
            weight = weight.narrow(axis, radius(self.sizes.kernel_size) - near, near)
        return weight

    def _operand(self, projected: Tensor) -> Tensor:
        return projected.flatten(0, 1).to(self.operands)
