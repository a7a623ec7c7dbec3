"""QRNN, quasi-recurrent layers of kernel 2 with fo-pooling (Bradbury et al. 2017), of Figure 7e.

    z, f, o: a_t = W [x_{t−1}; x_t] + b             x = 0 before the first timestep
    c_t = σ(f) ⊙ c_{t−1} + (1 − σ(f)) ⊙ tanh(z)
    h_t = σ(o) ⊙ c_t                                 the next layer's x_t

Only c depends on an earlier c, unit by unit: a scan. W begins as torch.nn.Linear does. [ours]
without zoneout, three layers as in the figure, and as many units as the task's other models.
"""

import torch
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import (
    Comparator,
    Device,
    Dtype,
    Parts,
    mask_output,
    newest,
)
from tlstm.utils import at_least


class QRNN(Comparator):
    """QRNN; the state is c and the last input of every layer.

    Args:
        input_size: features of the input.
        channels: units of a layer.
        depth: layers.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.depth = at_least("depth", depth, 1)
        inputs = [input_size, *[channels] * (depth - 1)]
        self.sizes = {}
        for number, size in enumerate(inputs):
            self.sizes |= {f"c_{number}": channels, f"x_{number}": size}
        self.layers = nn.ModuleList(
            nn.Linear(2 * size, 3 * channels, device=device, dtype=dtype) for size in inputs
        )

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence, layer by layer."""
        parts = [part.unsqueeze(0) for part in self.split(state[0])]
        x, ends = steps, []
        for layer, c_before, x_before in zip(self.layers, parts[::2], parts[1::2], strict=True):
            xs = torch.cat([x_before, x])
            z, f, o = layer(torch.cat([xs[:-1], xs[1:]], dim=-1)).chunk(3, dim=-1)
            keep = torch.sigmoid(f)
            cs = torch.cat([c_before, scan(keep, (1 - keep) * torch.tanh(z), c_before)])
            x = torch.sigmoid(o) * cs[1:]
            ends += [newest(cs, 1, lengths), newest(xs, 1, lengths)]
        return mask_output(x, lengths), (torch.cat(ends, dim=-1).squeeze(0),)


def scan(factor: Tensor, term: Tensor, start: Tensor) -> Tensor:
    """Return c_t = factor_t ⊙ c_{t−1} + term_t for all t, [T, ..], in log₂ T passes.

    Each pass composes the step t with the step `reach` before it.

    Args:
        factor: [T, ..].
        term: [T, ..].
        start: c before the first, [1, ..].
    """
    term = torch.cat([factor[:1] * start + term[:1], term[1:]])
    reach = 1
    while reach < len(term):
        term = torch.cat([term[:reach], factor[reach:] * term[:-reach] + term[reach:]])
        factor = torch.cat([factor[:reach], factor[reach:] * factor[:-reach]])
        reach *= 2
    return term
