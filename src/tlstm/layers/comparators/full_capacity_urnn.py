"""Full-capacity uRNN, with any unitary matrix (Wisdom et al. 2016), in Table 3.

    z = W h_{t−1} + V x_t                            complex, N units
    h_t = z ⊙ max(|z| + b, 0) / |z|                  |z| = √(10⁻⁵ + Re² z + Im² z)
    y_t = [Re h_t; Im h_t]

    W = (I + A/2)⁻¹ (I − A/2) W_0,  A = (X − X^H)/200      unitary for every X

At first X = 0, W_0 is a random product of the uRNN's factors, b = 0, and V and h_0 begin as in the
uRNN [code]. [ours] any optimizer may change X. The authors multiply W itself at every step by the
Cayley transform of A = G W^H − W G^H, where G is the gradient by W over its root mean square, at a
rate of 10⁻⁶, and train all else by RMSprop at 10⁻⁴. RMSprop of X at 10⁻⁴ makes the same first step
but for that division, which here is of the gradient by X.
"""

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype
from tlstm.layers.comparators.urnn import (
    UnitaryRNN,
    fixed_order,
    product_of_factors,
    random_factors,
)

SLOWNESS = 200  # of X beside other weights, so that one rate serves all


class FullCapacityURNN(UnitaryRNN):
    """Full-capacity uRNN.

    Args:
        input_size: features of the input.
        units: N, complex units; the output has 2N channels.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.

    Attributes:
        generator: X, real and imaginary part, [2, N, N].
        first: W_0, real and imaginary part, [2, N, N].
    """

    first: Tensor

    def __init__(
        self,
        input_size: int,
        units: int,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, units, batch_first, device, dtype)
        factors = random_factors(units, device, dtype)
        first = product_of_factors(*factors, fixed_order(units, device))
        self.register_buffer("first", torch.stack([first.real, first.imag]))
        self.generator = nn.Parameter(torch.zeros_like(self.first))
        nn.init.zeros_(self.bias)

    def matrix(self) -> Tensor:
        """Return W."""
        x, first = torch.complex(*self.generator), torch.complex(*self.first)
        half = (x - x.mH) / (2 * SLOWNESS)
        one = torch.eye(self.units, device=x.device, dtype=x.dtype)
        # I + A/2 is never singular; the check for it would wait for the GPU
        return torch.linalg.solve_ex(one + half, (one - half) @ first).result

    def scale(self, z: Tensor) -> Tensor:
        """Return the factor of modReLU."""
        modulus = (1e-5 + z.square().sum(dim=1, keepdim=True)).sqrt()
        return torch.relu(modulus + self.bias) / modulus
