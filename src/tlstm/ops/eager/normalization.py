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
    """Norm(C_t) and its gradients; those of gain and bias are summed over the timesteps.

    Args:
        sizes: of the call.
        gain: Γ, [P.., M] for "channel", [M] for "layer"; None for no normalization.
        bias: B, of the same shape.
        kind: "channel", "layer" or "".
        accum_dtype: the type to compute in.

    Attributes:
        gain_grad: the gradient of Γ.
        bias_grad: the gradient of B.
    """

    def __init__(
        self,
        sizes: Sizes,
        gain: Tensor | None,
        bias: Tensor | None,
        kind: str,
        accum_dtype: torch.dtype,
    ) -> None:
        self.gain = None if gain is None else gain.to(accum_dtype)
        self.bias = None if bias is None else bias.to(accum_dtype)
        self.shape = [sizes.channels] if kind == "channel" else [*sizes.grid, sizes.channels]
        self.gain_grad = None if self.gain is None else torch.zeros_like(self.gain)
        self.bias_grad = None if self.bias is None else torch.zeros_like(self.bias)

    def apply(self, cell: Tensor) -> Tensor:
        """Return Norm(C_t), [B, P.., M]."""
        if self.gain is None or self.bias is None:
            return cell
        return torch.addcmul(self.bias, self._standardized(cell)[0], self.gain)

    def backward(self, cell: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of C_t, and add up those of gain and bias."""
        if self.gain is None or self.gain_grad is None or self.bias_grad is None:
            return grad
        standardized, mean, scale = self._standardized(cell)
        over = tuple(range(grad.dim() - self.gain_grad.dim()))
        self.gain_grad += standardized.mul_(grad).sum(over)
        self.bias_grad += grad.sum(over)
        of_standardized = grad * self.gain
        of_cell: Tensor = torch.ops.aten.native_layer_norm_backward(
            of_standardized, cell, self.shape, mean, scale, None, None, [True, False, False]
        )[0]
        return of_cell

    def _standardized(self, cell: Tensor) -> Statistics:
        return torch.native_layer_norm(cell, self.shape, None, None, NORMALIZATION_EPSILON)
