"""The normalization of the memory cell and its gradients.

Dimension letters of this file:
    B       examples
    P..     the location axes
    M       channels
"""

import torch
from torch import Tensor

from tlstm.ops.reference import NORMALIZATION_EPSILON
from tlstm.ops.shapes import Sizes

Statistics = tuple[Tensor, Tensor, Tensor]


class Normalizer:
    """Norm(C_t) and its gradients, those of gain and bias summed over the timesteps.

    Args:
        sizes: the call's.
        gain: Γ, [P.., M] for "channel", [M] for "layer"; None for no normalization.
        shift: B, of the same shape.
        kind: "channel", "layer" or "".
        computed: the type to compute in.

    Attributes:
        gain_grad: the gradient of Γ.
        shift_grad: the gradient of B.
    """

    def __init__(
        self,
        sizes: Sizes,
        gain: Tensor | None,
        shift: Tensor | None,
        kind: str,
        computed: torch.dtype,
    ) -> None:
        self.gain = None if gain is None else gain.to(computed)
        self.shift = None if shift is None else shift.to(computed)
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
        if self.gain is None or self.gain_grad is None or self.shift_grad is None:
            return grad
        standardized, mean, scale = self._standardized(cell)
        over = tuple(range(grad.dim() - self.gain_grad.dim()))
        self.gain_grad += standardized.mul_(grad).sum(over)
        self.shift_grad += grad.sum(over)
        of_standardized = grad * self.gain
        of_cell: Tensor = torch.ops.aten.native_layer_norm_backward(
            of_standardized, cell, self.shape, mean, scale, None, None, [True, False, False]
        )[0]
        return of_cell

    def _standardized(self, cell: Tensor) -> Statistics:
        return torch.native_layer_norm(cell, self.shape, None, None, NORMALIZATION_EPSILON)
