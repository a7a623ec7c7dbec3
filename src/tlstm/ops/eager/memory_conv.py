"""The memory convolution and its gradients, as one matrix for each example.

Dimension letters of this file:
    B       examples
    P..     the location axes; L = P^S locations
    K^S     taps
    M       channels
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.ops.shapes import Sizes, sources


class MemoryConv:
    """The memory convolution as a matrix [B, L, L] whose rows sum to 1."""

    def __init__(self, sizes: Sizes, like: Tensor) -> None:
        locations = sizes.locations
        table = sources(sizes.tensor_size, sizes.axes, sizes.kernel_size, like.device)
        self.sources = table.expand(sizes.batch_size, -1, -1)  # [B, L, K^S]
        # On a GPU scatter_add_ sums in an order that differs from call to call
        self.scatters = like.device.type == "cpu"
        if self.scatters:
            self.matrix = like.new_zeros([sizes.batch_size, locations, locations])
        else:
            self.selection = F.one_hot(table, locations).to(like.dtype)  # [L, K^S, L]
            self.matrix = like.new_zeros([locations, sizes.batch_size, locations]).transpose(0, 1)

    def convolve(self, kernels: Tensor, cell: Tensor, out: Tensor) -> None:
        """Write C^conv [B, P.., M] of C [B, P.., M], with kernels [B, P.., K^S]."""
        self._set(kernels)
        torch.bmm(self.matrix, _flat(cell), out=_flat(out))

    def backward(self, kernels: Tensor, cell: Tensor, grad: Tensor, out: Tensor) -> Tensor:
        """Write the gradient of the cell, and return that of the kernels' logits, [B, P.., K^S]."""
        self._set(kernels)
        of_matrix = torch.bmm(_flat(grad), _flat(cell).mT)
        of_kernels = of_matrix.gather(2, self.sources).view(kernels.shape)
        torch.bmm(self.matrix.mT, _flat(grad), out=_flat(out))
        return softmax_backward(of_kernels, kernels)

    def _set(self, kernels: Tensor) -> None:
        if self.scatters:
            self.matrix.zero_().scatter_add_(2, self.sources, _flat(kernels))
        else:
            by_location = _flat(kernels).transpose(0, 1)  # [L, B, K^S]
            torch.bmm(by_location, self.selection, out=self.matrix.transpose(0, 1))


def softmax(logits: Tensor) -> Tensor:
    """Return the softmax over a short last axis; moved first, a CPU takes a tenth of the time."""
    return torch.softmax(logits.movedim(-1, 0), 0).movedim(0, -1)


def softmax_backward(grad: Tensor, result: Tensor) -> Tensor:
    """Return the gradient of the logits from that of their softmax, over the last axis."""
    grad, result = grad.movedim(-1, 0), result.movedim(-1, 0)
    computed: Tensor = torch.ops.aten._softmax_backward_data(grad, result, 0, result.dtype)
    return computed.movedim(0, -1)


def _flat(tensor: Tensor) -> Tensor:
    """Join the location axes: [B, P.., C] → [B, L, C]."""
    return tensor.flatten(1, -2)
