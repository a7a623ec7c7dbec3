"""mLSTM, the multiplicative LSTM (Krause et al. 2016), in Table 1.

    m = (W_mx x_t) ⊙ (W_mh h_{t−1})
    i, f, o, ĥ: a = W_x x_t + W_m m                  without squashing of ĥ
    c_t = σ(f + b_f) ⊙ c_{t−1} + σ(i + b_i) ⊙ ĥ
    h_t = tanh(c_t ⊙ σ(o + b_o) + b_h)               the output gate is within the tanh

At first W_x, W_mx ~ N(0, 0.1²), W_m, W_mh ~ N(0, 0.02²), b_f = 3, other biases 0 [code]. The row's
softmax has no bias; here it has one. [ours] it is trained as conf/published/table1/mlstm.yaml says.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator


class MLSTM(SteppedComparator):
    """mLSTM; the state is h and c.

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

        def linear(inputs: int, outputs: int, std: float) -> nn.Linear:
            made = nn.Linear(inputs, outputs, bias=False, device=device, dtype=dtype)
            nn.init.normal_(made.weight, std=std)
            return made

        self.input = linear(input_size, 5 * channels, 0.1)  # of m, then of i, f, o, ĥ
        self.hidden = linear(channels, channels, 0.02)
        self.intermediate = linear(channels, 4 * channels, 0.02)
        self.bias = nn.Parameter(torch.zeros(4 * channels, device=device, dtype=dtype))
        nn.init.constant_(self.bias[channels : 2 * channels], 3.0)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return W_mx x_t and W_x x_t."""
        products = self.input(steps)
        return zip(products[..., : self.channels], products[..., self.channels :], strict=True)

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        (of_m, of_gates), (hidden, memory) = read, parts
        i, f, o, candidate = (of_gates + self.intermediate(of_m * self.hidden(hidden))).chunk(4, -1)
        b_i, b_f, b_o, b_h = self.bias.chunk(4)
        memory = torch.sigmoid(f + b_f) * memory + torch.sigmoid(i + b_i) * candidate
        hidden = torch.tanh(memory * torch.sigmoid(o + b_o) + b_h)
        return hidden, (hidden, memory)
