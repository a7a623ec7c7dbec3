"""The LSTM with layer normalization that HyperLSTM, FS-LSTM and HM-LSTM are made of.

    i, g, f, o: y = LN(a)                            each gate over its own units
    c_t = σ(f + 1) ⊙ c_{t−1} + σ(i) ⊙ drop(tanh(g))
    h_t = σ(o) ⊙ tanh(LN(c_t))                       c itself stays as it is

LN(a) = γ ⊙ (a − mean) / √(variance + 10⁻³) + β over the units of an example; γ = 1, β = 0 at first
[code of HyperLSTM and FS-LSTM].
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype

EPSILON = 1e-3


class GateNorm(nn.Module):
    """Layer normalization of each of four gates, [.., 4M].

    Attributes:
        gain: [4, M].
        bias: [4, M].
    """

    def __init__(self, channels: int, device: Device, dtype: Dtype) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(4, channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(4, channels, device=device, dtype=dtype))

    def forward(self, activation: Tensor) -> tuple[Tensor, ...]:
        """Return the normalized gates, [.., M] each."""
        gates = activation.unflatten(-1, self.gain.shape)
        normalized = F.layer_norm(gates, gates.shape[-1:], eps=EPSILON) * self.gain + self.bias
        return normalized.unbind(-2)


class LNLSTM(nn.Module):
    """The transform of the activations into h and c.

    Args:
        channels: M, units.
        dropout: share of tanh(g) that is dropped in training.
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self, channels: int, dropout: float = 0.0, device: Device = None, dtype: Dtype = None
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_gates = GateNorm(channels, device, dtype)
        self.norm_memory = nn.LayerNorm(channels, EPSILON, device=device, dtype=dtype)

    def forward(self, activation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return h and c [B, M] from the activations [B, 4M] and the c before."""
        i, g, f, o = self.norm_gates(activation)
        new = F.dropout(torch.tanh(g), self.dropout, self.training)
        memory = torch.sigmoid(f + 1) * memory + torch.sigmoid(i) * new
        return torch.sigmoid(o) * torch.tanh(self.norm_memory(memory)), memory
