"""RHN, the recurrent highway network (Zilly et al. 2017), in Table 1 and of Figure 7d.

    s = y_{t−1}; for every level l = 1..D:
        a = [l = 1] (W_H x_t) + R_H s + b_H          x_t is embedded
        τ = σ([l = 1] (W_T x_t) + R_T s + b_T)       H and T are one product
        s ← tanh(a) ⊙ τ + s ⊙ (1 − τ)
    y_t = s

Variational dropout draws its masks once for a whole call: of symbols, of the embedding, of the s
that R multiplies (the same at every level and timestep), and of y_t in the output [code]. All begin
uniform within ±0.04, but b_T = −4 [code]. [ours] the softmax begins as in the other models here.
"""

from collections.abc import Iterable
from itertools import repeat

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.utils import at_least, share


class RHN(SteppedComparator):
    """RHN; the state is y.

    Args:
        input_size: features of the input.
        channels: M, units.
        depth: D, levels of a timestep.
        embedding_size: features that the input is embedded in.
        symbol_dropout: share of the input's features that are dropped.
        embedding_dropout: share of the embedding that is dropped.
        hidden_dropout: share of s that is dropped before its products.
        output_dropout: share of the output that is dropped.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        embedding_size: int,
        symbol_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        output_dropout: float = 0.0,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.depth = at_least("depth", depth, 1)
        self.embedding_size = at_least("embedding_size", embedding_size, 1)
        self.symbol_dropout = share("symbol_dropout", symbol_dropout)
        self.embedding_dropout = share("embedding_dropout", embedding_dropout)
        self.hidden_dropout = share("hidden_dropout", hidden_dropout)
        self.output_dropout = share("output_dropout", output_dropout)
        self.sizes = {"y": channels}

        def linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias, device=device, dtype=dtype)

        self.embedding = linear(input_size, embedding_size, False)
        self.input = linear(embedding_size, 2 * channels, False)
        levels = [linear(channels, 2 * channels, True) for _ in range(depth)]
        self.levels = nn.ModuleList(levels)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.04, 0.04)
        for level in levels:
            nn.init.constant_(level.bias[channels:], -4.0)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return the products of x_t, and the masks of s and of the output."""
        embedded = self.embedding(steps * self._mask(steps[0], self.symbol_dropout))
        products = self.input(embedded * self._mask(embedded[0], self.embedding_dropout))
        (state,) = parts
        masks = self._mask(state, self.hidden_dropout), self._mask(state, self.output_dropout)
        return zip(products, *map(repeat, masks), strict=False)

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep, level by level."""
        (product, hidden_mask, output_mask), (state,) = read, parts
        for number, level in enumerate(self.levels):
            products = level(state * hidden_mask)
            h, transform = (products + product if number == 0 else products).chunk(2, dim=-1)
            transform = torch.sigmoid(transform)
            state = torch.tanh(h) * transform + state * (1 - transform)
        return state * output_mask, (state,)

    def _mask(self, tensor: Tensor, share: float) -> Tensor:
        """Return a mask of the tensor's shape: 0, or what makes up for the zeros."""
        return F.dropout(torch.ones_like(tensor), share, self.training)
