"""MI-LSTM, with multiplicative integration (Wu et al. 2016), in Table 1, there as ML-LSTM.

    i, f, o, g: p = α ⊙ (W x_t) ⊙ (U h_{t−1}) + β₁ ⊙ (U h_{t−1}) + β₂ ⊙ (W x_t) + b
    c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(c_t)

The row's number of units and how α and β begin are [uncertain]. [ours] 1936 units, which make the
row's 17.0 million parameters; α = 1, β₁ = β₂ = ½, forget bias 1, W and U uniform within ±1/√M.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator


class MILSTM(SteppedComparator):
    """MI-LSTM; the state is h and c.

    Args:
        input_size: features of the input.
        channels: M, units.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.sizes = {"h": channels, "c": channels}
        rows = 4 * channels

        def constant(value: float) -> nn.Parameter:
            return nn.Parameter(torch.full((rows,), value, device=device, dtype=dtype))

        self.input = nn.Linear(input_size, rows, bias=False, device=device, dtype=dtype)
        self.hidden = nn.Linear(channels, rows, bias=False, device=device, dtype=dtype)
        self.alpha, self.beta_hidden, self.beta_input = map(constant, (1.0, 0.5, 0.5))
        self.bias = constant(0.0)
        for linear in (self.input, self.hidden):
            nn.init.uniform_(linear.weight, -(channels**-0.5), channels**-0.5)
        nn.init.ones_(self.bias[channels : 2 * channels])

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return W x_t."""
        return zip(self.input(steps))

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        (wx,), (hidden, memory) = read, parts
        uh = self.hidden(hidden)
        i, f, o, g = (
            self.alpha * wx * uh + self.beta_hidden * uh + self.beta_input * wx + self.bias
        ).chunk(4, dim=-1)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(memory)
        return hidden, (hidden, memory)
