"""uRNN, the unitary evolution RNN (Arjovsky et al. 2016), in Table 3.

    W = D_3 R_2 F⁻¹ D_2 Π R_1 F D_1                  applied from right to left
    z = W h_{t−1} + V x_t                            complex, N units
    h_t = z ⊙ max(|z| + b, 0) / (|z| + 10⁻⁵)         modReLU
    y_t = [Re h_t; Im h_t]

D_k multiplies by e^{iθ_k}, F is the unitary Fourier transform, R_k h = h − 2 v̄ (vᵀ h) / ‖v‖² with
v = v_k is a reflection, Π is a fixed permutation of the units. h_0 is learnt. At first θ is uniform
within ±π, v and V are Glorot uniform, b within ±0.01 and h_0 within ±√(3/2N) [code]. The rate of
the row's RMSprop is [uncertain].

W is made once for a sequence, in the real form [[Re W, −Im W], [Im W, Re W]]. It is not computed in
bfloat16, and TensorFloat-32 (trainer.float32_matmul_precision) makes it less than unitary.

Dimension letters of this file:
    T       timesteps
    B       examples
    N       complex units
"""

from abc import abstractmethod
from collections.abc import Iterable
from itertools import repeat
from math import pi

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.utils import at_least

PERMUTATION_SEED = 0  # of Π, the same in every layer of N units


class UnitaryRNN(SteppedComparator):
    """The common part of both unitary RNNs; the state is [Re h; Im h] and the timesteps read.

    Attributes:
        units: N; the output has 2N channels.
        input: V, its real and its imaginary part.
        bias: of modReLU, [N].
        start: h_0, [2N].
    """

    def __init__(
        self, input_size: int, units: int, batch_first: bool, device: Device, dtype: Dtype
    ) -> None:
        super().__init__(input_size, 2 * at_least("units", units, 1), batch_first)
        self.units = units
        self.sizes = {"h": 2 * units, "t": 1}
        self.input = nn.Linear(input_size, 2 * units, bias=False, device=device, dtype=dtype)
        self.bias = nn.Parameter(torch.empty(units, device=device, dtype=dtype))
        self.start = nn.Parameter(torch.empty(2 * units, device=device, dtype=dtype))
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.uniform_(self.start, -((1.5 / units) ** 0.5), (1.5 / units) ** 0.5)

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return W, complex and unitary, [N, N]."""

    @abstractmethod
    def scale(self, z: Tensor) -> Tensor:
        """Return the factor of modReLU, [B, 1, N], of z [B, 2, N]."""

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence in the dtype of the weights."""
        steps, given = steps.to(self.bias.dtype), state[0].to(self.bias.dtype)
        with torch.autocast(steps.device.type, enabled=False):
            return super().forward_sequence(steps, (given,), stream, lengths)

    def begin(self, parts: Parts) -> Parts:
        """Return h_0 where no timestep has been read."""
        hidden, t = parts
        return torch.where(t < 0.5, self.start, hidden), t

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return V x_t, and W in its real form."""
        w = self.matrix()
        real_form = torch.cat(
            [torch.cat([w.real, -w.imag], dim=1), torch.cat([w.imag, w.real], dim=1)]
        )
        return zip(self.input(steps), repeat(real_form), strict=False)

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        (product, real_form), (hidden, t) = read, parts
        z = (F.linear(hidden, real_form) + product).unflatten(-1, (2, -1))
        hidden = (z * self.scale(z)).flatten(-2)
        return hidden, (hidden, t + 1)


class URNN(UnitaryRNN):
    """uRNN.

    Args:
        input_size: features of the input.
        units: N, complex units; the output has 2N channels.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.

    Attributes:
        phases: θ, [3, N].
        reflectors: v, real and imaginary parts, [2, 2N].
        order: of the units after Π, [N].
    """

    order: Tensor

    def __init__(
        self,
        input_size: int,
        units: int,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, units, batch_first, device, dtype)
        phases, reflectors = random_factors(units, device, dtype)
        self.phases, self.reflectors = nn.Parameter(phases), nn.Parameter(reflectors)
        self.register_buffer("order", fixed_order(units, device))
        nn.init.uniform_(self.bias, -0.01, 0.01)

    def matrix(self) -> Tensor:
        """Return W."""
        return product_of_factors(self.phases, self.reflectors, self.order)

    def scale(self, z: Tensor) -> Tensor:
        """Return the factor of modReLU."""
        modulus = torch.linalg.vector_norm(z, dim=1, keepdim=True)  # of gradient 0 at 0
        return torch.relu(modulus + self.bias) / (modulus + 1e-5)


def random_factors(units: int, device: Device, dtype: Dtype) -> tuple[Tensor, Tensor]:
    """Draw θ [3, N] and v [2, 2N]."""
    phases = torch.empty(3, units, device=device, dtype=dtype).uniform_(-pi, pi)
    reflectors = torch.empty(2, 2 * units, device=device, dtype=dtype)
    return phases, nn.init.xavier_uniform_(reflectors)


def fixed_order(units: int, device: Device) -> Tensor:
    """Return the order of the units after Π, [N]."""
    generator = torch.Generator().manual_seed(PERMUTATION_SEED)
    return torch.randperm(units, generator=generator, device="cpu").to(device)


def product_of_factors(phases: Tensor, reflectors: Tensor, order: Tensor) -> Tensor:
    """Return W = D_3 R_2 F⁻¹ D_2 Π R_1 F D_1, by applying it to I.

    Args:
        phases: θ, [3, N].
        reflectors: v, [2, 2N].
        order: [N].
    """
    d_1, d_2, d_3 = torch.polar(torch.ones_like(phases), phases)
    v_1, v_2 = torch.complex(*reflectors.chunk(2, dim=1))
    rows = torch.eye(len(order), device=phases.device, dtype=d_1.dtype)
    rows = _reflect(torch.fft.fft(rows * d_1, norm="ortho"), v_1)[:, order]
    rows = _reflect(torch.fft.ifft(rows * d_2, norm="ortho"), v_2) * d_3
    return rows.T


def _reflect(rows: Tensor, v: Tensor) -> Tensor:
    """Return h − 2 v̄ (vᵀ h) / ‖v‖² for each row h."""
    along = (rows @ v) * (2 / torch.linalg.vector_norm(v).square())
    return rows - along.unsqueeze(-1) * v.conj()
