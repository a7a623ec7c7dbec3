"""iRNN (Le, Jaitly and Hinton 2015), in Table 3.

    h_t = ReLU(W h_{t−1} + V x_t + b)

At first W = I, b = 0 and V ~ N(0, 0.001²) [paper].
"""

import torch
from torch import nn

from tlstm.layers.comparators.comparator import KernelComparator


class IRNN(KernelComparator):
    """RNN of rectified linear units that begins as the identity; the state is h.

    `channels` is the number of units.
    """

    gates = 1
    names = ("h",)
    kernel = staticmethod(torch.rnn_relu)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.eye_(self.hidden.weight)
        nn.init.zeros_(self.input.bias)
        nn.init.normal_(self.input.weight, std=0.001)
