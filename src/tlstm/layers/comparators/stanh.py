"""sTANH: a tanh RNN with one more connection over s timesteps (Zhang et al. 2016), in Table 3.

    h_t = tanh(W x_t + U h_{t−1} + S h_{t−s} + b)      h_t = 0 before the first timestep

s is 21 for sequential and 11 for permuted MNIST [paper]. The number of units, 95, and how the
weights begin are [uncertain]. [ours] U and S orthogonal times ½, W and b uniform within ±1/√fan-in.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.utils import at_least


class STanh(SteppedComparator):
    """RNN with a skip connection; the state is the last s hidden states, the oldest first.

    Args:
        input_size: features of the input.
        channels: units.
        skip: s.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        skip: int,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.skip = at_least("skip", skip, 1)
        self.sizes = {"history": skip * channels}
        self.input = nn.Linear(input_size, channels, device=device, dtype=dtype)
        self.hidden = nn.Linear(channels, channels, bias=False, device=device, dtype=dtype)
        self.skipped = nn.Linear(channels, channels, bias=False, device=device, dtype=dtype)
        for linear in (self.hidden, self.skipped):
            nn.init.orthogonal_(linear.weight, gain=0.5)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return W x_t + b."""
        return zip(self.input(steps))

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        (product,), (history,) = read, parts
        before, skipped = history[:, -self.channels :], history[:, : self.channels]
        hidden = torch.tanh(product + self.hidden(before) + self.skipped(skipped))
        return hidden, (torch.cat([history[:, self.channels :], hidden], dim=-1),)
