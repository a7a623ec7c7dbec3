"""HM-LSTM, hierarchical multiscale, with layer normalization (Chung et al. 2017), in Table 1.

Layers l = 1..L, from bottom to top; x_t is embedded, h^0_t = x_t, z^0 = 1, z^L = 0:

    f, i, o, g: s = U h^l_{t−1} + z^l_{t−1} V h^{l+1}_{t−1} + z^{l−1}_t W h^{l−1}_t + b
    z^l_t = [x > 0]                                  x is one more row of s; gradient of hardsigm(x)
    UPDATE, z^l_{t−1} = 0 and z^{l−1}_t = 1:         c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g)
    COPY,   z^l_{t−1} = 0 and z^{l−1}_t = 0:         c_t = c_{t−1}, h_t = h_{t−1}
    FLUSH,  z^l_{t−1} = 1:                           c_t = σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(c_t)                           but on COPY

    y_t = ReLU(Σ_l σ(w_l · [h¹; ..; h^L]) W_l h^l)

hardsigm(x) = max(0, min(1, (x + 1)/2)). Where the paper normalizes is [uncertain]. [ours] each gate
but not x, and c before its tanh, with ε = 10⁻³; weights begin as torch.nn.Linear's, the gain at 1,
and the normalized forget gate's bias at 1. Whether z is computed on COPY is [uncertain].

Dimension letters of this file:
    T       timesteps
    B       examples
    L       layers
    N       units of a layer
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.layers.comparators.ln_lstm import EPSILON, GateNorm
from tlstm.utils import at_least, true_or_false


class HMLSTM(SteppedComparator):
    """HM-LSTM; the state is h, c and z of every layer, the last of which has no z.

    Args:
        input_size: features of the input.
        channels: of the output y.
        units: N.
        depth: L.
        embedding_size: features that the input is embedded in.
        boundary_on_copy: True to compute z on COPY too, as known code does; False for 0.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        units: int,
        depth: int,
        embedding_size: int,
        boundary_on_copy: bool = True,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.units = at_least("units", units, 1)
        self.depth = at_least("depth", depth, 1)
        self.embedding_size = at_least("embedding_size", embedding_size, 1)
        self.boundary_on_copy = true_or_false("boundary_on_copy", boundary_on_copy)
        self.sizes = {}
        for number in range(depth):
            self.sizes |= {f"h_{number}": units, f"c_{number}": units, f"z_{number}": 1}
        del self.sizes[f"z_{depth - 1}"]

        def linear(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, False, device=device, dtype=dtype)

        self.embedding = linear(input_size, embedding_size)
        inputs = [embedding_size, *[units] * (depth - 1)]
        rows = [4 * units + 1] * (depth - 1) + [4 * units]  # the top layer has no z
        self.bottom_up = nn.ModuleList(map(linear, inputs, rows))
        self.top_down = nn.ModuleList(linear(units, each) for each in rows[:-1])
        self.layers = nn.ModuleList(
            Layer(units, each, boundary_on_copy, device, dtype) for each in rows
        )
        self.output_gates = linear(depth * units, depth)
        self.output = linear(depth * units, channels)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return the product of x_t for the first layer."""
        return zip(self.bottom_up[0](self.embedding(steps)))

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep, layer by layer."""
        none = torch.zeros_like(parts[0][:, :1])
        hidden, memory, boundary = parts[::3], parts[1::3], (*parts[2::3], none)
        given, z_below = read[0], none + 1  # the product of the layers around, z of that below
        after: list[Tensor] = []
        for number, (layer, z) in enumerate(zip(self.layers, boundary, strict=True)):
            if number:
                given = z_below * self.bottom_up[number](after[-3])
            if number + 1 < self.depth:
                given = given + z * self.top_down[number](hidden[number + 1])
            after += layer(hidden[number], memory[number], z, given, z_below)
            z_below = after[-1]
        return torch.cat(after[::3], dim=-1), tuple(after[:-1])

    def readout(self, outputs: Tensor) -> Tensor:
        """Return y from the hidden states of all layers, [T, B, L·N]."""
        gates = torch.sigmoid(self.output_gates(outputs)).unsqueeze(-1)
        gated = gates * outputs.unflatten(-1, (self.depth, self.units))
        return torch.relu(self.output(gated.flatten(-2)))


class Layer(nn.Module):
    """One layer of the hierarchy; `recurrent` is the product with U, and b.

    Args:
        units: N.
        rows: 4N, and one more where there is a z.
        boundary_on_copy: True to compute z on COPY too.
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self, units: int, rows: int, boundary_on_copy: bool, device: Device, dtype: Dtype
    ) -> None:
        super().__init__()
        self.boundary_on_copy = boundary_on_copy
        self.recurrent = nn.Linear(units, rows, device=device, dtype=dtype)
        self.norm_gates = GateNorm(units, device, dtype)
        self.norm_memory = nn.LayerNorm(units, EPSILON, device=device, dtype=dtype)
        nn.init.ones_(self.norm_gates.bias[0])

    def forward(
        self, hidden: Tensor, memory: Tensor, z: Tensor, given: Tensor, z_below: Tensor
    ) -> Parts:
        """Return h, c [B, N] and z [B, 1] of this timestep; the top layer's z is empty.

        Args:
            hidden: h before.
            memory: c before.
            z: before.
            given: gated product of the layers below and above, [B, rows].
            z_below: of the layer below.
        """
        gates, x = (self.recurrent(hidden) + given).tensor_split([4 * hidden.shape[-1]], dim=-1)
        f, i, o, g = self.norm_gates(gates)
        new = torch.sigmoid(i) * torch.tanh(g)
        updated = z_below * (torch.sigmoid(f) * memory + new) + (1 - z_below) * memory
        memory = z * new + (1 - z) * updated
        copies = (1 - z) * (1 - z_below)
        shown = torch.sigmoid(o) * torch.tanh(self.norm_memory(memory))
        boundary = boundary_of(x)
        if not self.boundary_on_copy:
            boundary = boundary * (1 - copies)
        return (1 - copies) * shown + copies * hidden, memory, boundary


def boundary_of(x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0, with the gradient of hardsigm."""
    soft = ((x + 1) / 2).clamp(0, 1)
    return (x > 0).to(x.dtype) + (soft - soft.detach())
