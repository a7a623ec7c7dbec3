"""FS-LSTM, fast and slow cells (Mujika et al. 2017), in Table 1.

    F ← Fast_1(d(x_t), F)                            x_t is embedded; F, S are pairs of h and c
    S ← Slow(d(h_F), S)
    F ← Fast_2(d(h_S), F)
    F ← Fast_k(F)                                    k = 3, .., depth
    y_t = d(h_F)                                     d is dropout

A cell is an LN-LSTM (ln_lstm.py) with zoneout: it keeps each number of the h and c that entered it
with some probability; evaluation takes the mean. Every matrix begins orthogonal as a whole, biases
at 0 [code]. [ours] the softmax begins as in the other models here. The authors' Fast_3 and Fast_4
read a zero, whose 9,600 weights do nothing and are left out.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.layers.comparators.ln_lstm import LNLSTM
from tlstm.utils import at_least, share


class FSLSTM(SteppedComparator):
    """FS-LSTM; the state is h and c of the fast cells, and h and c of the slow one.

    Args:
        input_size: features of the input.
        channels: units of the fast cells.
        depth: fast cells, 2 at the least.
        slow_channels: units of the slow cell.
        embedding_size: features that the input is embedded in.
        dropout: share that d drops in training.
        zoneout_hidden: share of h that a cell keeps.
        zoneout_memory: share of c that a cell keeps.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        slow_channels: int,
        embedding_size: int,
        dropout: float = 0.0,
        zoneout_hidden: float = 0.0,
        zoneout_memory: float = 0.0,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.depth = at_least("depth", depth, 2)
        self.slow_channels = at_least("slow_channels", slow_channels, 1)
        self.embedding_size = at_least("embedding_size", embedding_size, 1)
        self.dropout = share("dropout", dropout)
        self.zoneout_hidden = share("zoneout_hidden", zoneout_hidden)
        self.zoneout_memory = share("zoneout_memory", zoneout_memory)
        self.sizes = {
            "h_fast": channels,
            "c_fast": channels,
            "h_slow": slow_channels,
            "c_slow": slow_channels,
        }

        def linear(inputs: int, outputs: int) -> nn.Linear:
            made = nn.Linear(inputs, outputs, bias=False, device=device, dtype=dtype)
            nn.init.orthogonal_(made.weight)
            return made

        def cell(units: int) -> Cell:
            return Cell(units, (zoneout_hidden, zoneout_memory), device, dtype)

        self.embedding = linear(input_size, embedding_size)
        self.input = linear(embedding_size, 4 * channels)
        self.fast_to_slow = linear(channels, 4 * slow_channels)
        self.slow_to_fast = linear(slow_channels, 4 * channels)
        self.fast = nn.ModuleList(cell(channels) for _ in range(depth))
        self.slow = cell(slow_channels)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return the product of d(x_t) for the first fast cell."""
        return zip(self.input(self._drop(self.embedding(steps))))

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep, cell by cell."""
        fast, slow = parts[:2], parts[2:]
        first, second, *others = self.fast
        fast = first(*fast, read[0])
        slow = self.slow(*slow, self.fast_to_slow(self._drop(fast[0])))
        fast = second(*fast, self.slow_to_fast(self._drop(slow[0])))
        for cell in others:
            fast = cell(*fast)
        return self._drop(fast[0]), (*fast, *slow)

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)


class Cell(nn.Module):
    """LN-LSTM with zoneout of h and c; `hidden` has the bias of the gates."""

    def __init__(
        self, channels: int, zoneout: tuple[float, float], device: Device, dtype: Dtype
    ) -> None:
        super().__init__()
        self.zoneout = zoneout
        self.hidden = nn.Linear(channels, 4 * channels, device=device, dtype=dtype)
        self.lstm = LNLSTM(channels, device=device, dtype=dtype)
        nn.init.orthogonal_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)

    def forward(
        self, hidden: Tensor, memory: Tensor, product: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return h and c [B, M] from those before and the product of the input [B, 4M]."""
        activation = self.hidden(hidden)
        if product is not None:
            activation = activation + product
        new_hidden, new_memory = self.lstm(activation, memory)
        of_hidden, of_memory = self.zoneout
        return (
            self._zone_out(new_hidden, hidden, of_hidden),
            self._zone_out(new_memory, memory, of_memory),
        )

    def _zone_out(self, new: Tensor, old: Tensor, share: float) -> Tensor:
        """Return old numbers with probability `share`, else new ones; their mean in evaluation."""
        if not self.training:
            return torch.lerp(new, old.to(new.dtype), share)
        return torch.where(torch.rand_like(new) < share, old, new)
