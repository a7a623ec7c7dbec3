"""HyperLSTM with layer normalization (Ha et al. 2017), in Table 1.

    ĥ, ĉ = LN-LSTM(Ŵ [x_t; h_{t−1}; ĥ_{t−1}] + b̂, ĉ_{t−1})         the hyper cell
    z_h = W_hh ĥ + b_hh;  z_x = W_hx ĥ + b_hx;  z_b = W_hb ĥ          gate by gate
    d_h = W_hz z_h;  d_x = W_xz z_x;  d_b = W_bz z_b                  gate by gate
    a = d_h ⊙ (W_h h_{t−1}) + d_x ⊙ (W_x x_t) + d_b + b_0
    h_t, c_t = LN-LSTM(a, c_{t−1})                                    i, g, f, o; see ln_lstm.py

z reads the new ĥ [code]; the paper prints ĥ_{t−1}. At first W_hh = W_hx = 0, b_hh = b_hx = 1,
W_hz = W_xz = 0.1/Z, W_hb ~ N(0, 0.01²), W_bz = b_0 = 0; Ŵ, of [x; h] and of ĥ, and W_h are
orthogonal gate by gate, W_x is Glorot uniform [code].

Dimension letters of this file:
    T       timesteps
    B       examples
    I       features of the input
    M       units
    N       units of the hyper cell
    Z       numbers of an embedding
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.layers.comparators.ln_lstm import LNLSTM
from tlstm.utils import at_least, share


class HyperLSTM(SteppedComparator):
    """HyperLSTM; the state is h, c, ĥ and ĉ.

    Args:
        input_size: features of the input.
        channels: M, units.
        hyper_channels: N, units of the hyper cell.
        embedding_size: Z.
        dropout: share of tanh(g) of both cells that is dropped in training.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        hyper_channels: int,
        embedding_size: int,
        dropout: float = 0.0,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.hyper_channels = at_least("hyper_channels", hyper_channels, 1)
        self.embedding_size = at_least("embedding_size", embedding_size, 1)
        self.dropout = share("dropout", dropout)
        self.sizes = {
            "h": channels,
            "c": channels,
            "h_hyper": hyper_channels,
            "c_hyper": hyper_channels,
        }

        def linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias, device=device, dtype=dtype)

        self.hyper_input = linear(input_size, 4 * hyper_channels, True)
        self.hyper_hidden = linear(channels + hyper_channels, 4 * hyper_channels, False)
        self.hyper = LNLSTM(hyper_channels, dropout, device, dtype)
        self.embed_scales = linear(hyper_channels, 2 * 4 * embedding_size, True)  # z_h, z_x
        self.embed_bias = linear(hyper_channels, 4 * embedding_size, False)  # z_b
        # W_hz, W_xz and W_bz of every gate
        self.project = nn.Parameter(
            torch.empty(3, 4, channels, embedding_size, device=device, dtype=dtype)
        )
        self.input = linear(input_size, 4 * channels, False)
        self.hidden = linear(channels, 4 * channels, False)
        self.bias = nn.Parameter(torch.empty(4 * channels, device=device, dtype=dtype))
        self.main = LNLSTM(channels, dropout, device, dtype)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights."""
        of_input, of_hidden = self.hyper_input.weight, self.hyper_hidden.weight
        for from_x, rest in zip(of_input.chunk(4), of_hidden.chunk(4), strict=True):
            from_h, from_hyper = rest.split([self.channels, self.hyper_channels], dim=1)
            joined = nn.init.orthogonal_(torch.cat([from_x, from_h], dim=1))
            from_x.copy_(joined[:, : self.input_size])
            from_h.copy_(joined[:, self.input_size :])
            nn.init.orthogonal_(from_hyper)
        for gate in self.hidden.weight.chunk(4):
            nn.init.orthogonal_(gate)
        nn.init.xavier_uniform_(self.input.weight)
        nn.init.zeros_(self.embed_scales.weight)
        nn.init.ones_(self.embed_scales.bias)
        nn.init.normal_(self.embed_bias.weight, std=0.01)
        nn.init.constant_(self.project[:2], 0.1 / self.embedding_size)
        for zero in (self.project[2], self.bias, self.hyper_input.bias):
            nn.init.zeros_(zero)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return the products of x_t for both cells."""
        return zip(self.input(steps), self.hyper_input(steps), strict=True)

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        (of_main, of_hyper), (hidden, memory, hyper_hidden, hyper_memory) = read, parts
        from_both = self.hyper_hidden(torch.cat([hidden, hyper_hidden], dim=-1))
        hyper_hidden, hyper_memory = self.hyper(of_hyper + from_both, hyper_memory)
        scale_h, scale_x, bias = self._scales_and_bias(hyper_hidden)
        activation = scale_h * self.hidden(hidden) + scale_x * of_main + bias + self.bias
        hidden, memory = self.main(activation, memory)
        return hidden, (hidden, memory, hyper_hidden, hyper_memory)

    def _scales_and_bias(self, hyper_hidden: Tensor) -> Parts:
        """Return d_h, d_x and d_b of all gates, [B, 4M] each."""
        embedded = [self.embed_scales(hyper_hidden), self.embed_bias(hyper_hidden)]
        z = torch.cat(embedded, dim=-1).unflatten(-1, (3, 4, -1))
        return torch.einsum("bkgz,kgmz->kbgm", z, self.project).flatten(-2).unbind(0)
