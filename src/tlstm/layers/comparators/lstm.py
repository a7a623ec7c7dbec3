"""LSTM of one layer (Hochreiter and Schmidhuber 1997), in Table 3.

    i, f, g, o: a = W x_t + U h_{t−1} + b
    c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(c_t)

The row's own recipe is not published. [ours] as in Wisdom et al. (2016), with one bias and logistic
gates: forget bias 1, W Glorot uniform and U orthogonal, gate by gate.
"""

import torch
from torch import nn

from tlstm.layers.comparators.comparator import KernelComparator


class LSTM(KernelComparator):
    """LSTM; the state is h and c, and `channels` the number of units."""

    gates = 4
    names = ("h", "c")
    kernel = staticmethod(torch.lstm)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights."""
        for weight in self.input.weight.chunk(4):
            nn.init.xavier_uniform_(weight)
        for weight in self.hidden.weight.chunk(4):
            nn.init.orthogonal_(weight)
        nn.init.zeros_(self.input.bias)
        nn.init.ones_(self.input.bias.chunk(4)[1])
