"""Dilated GRU: layers of GRUs with dilations 1, 2, 4, .. (Chang et al. 2017), in Table 3.

    r, u = σ(W x_t + U c_{t−s} + b)                  s = 2^l in layer l = 0, 1, ..
    c̃ = tanh(V x_t + R (r ⊙ c_{t−s}) + d)            r acts before the product
    c_t = u ⊙ c_{t−s} + (1 − u) ⊙ c̃                  the next layer's x_t

A layer is s GRUs that read every s-th timestep, so they run side by side. At first W, U and V, R
are Glorot uniform, each pair as one matrix, and the biases of r and u are 1 [code]. [uncertain]
that the row was trained with just this.
"""

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
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


class DilatedGRU(Comparator):
    """Dilated GRU; the state is the last s hidden states of every layer, the oldest first.

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
        self.sizes = {f"history_{layer}": 2**layer * channels for layer in range(depth)}
        self.layers = nn.ModuleList(
            GRU(input_size if layer == 0 else channels, channels, device, dtype)
            for layer in range(depth)
        )

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence, layer by layer."""
        x, ends = steps, []
        for number, (gru, part) in enumerate(zip(self.layers, self.split(state[0]), strict=True)):
            dilation = 2**number
            before = part.unflatten(-1, (dilation, -1)).transpose(0, 1)  # [s, B, M]
            x = run_dilated(gru, x, before)
            end = newest(torch.cat([before, x]), dilation, lengths)
            ends.append(end.transpose(0, 1).flatten(1))
        return mask_output(x, lengths), (torch.cat(ends, dim=-1),)


class GRU(nn.Module):
    """The GRU of TensorFlow 1, whose reset gate acts before the product."""

    def __init__(self, input_size: int, channels: int, device: Device, dtype: Dtype) -> None:
        super().__init__()
        self.input_size = input_size
        self.gates = nn.Linear(input_size + channels, 2 * channels, device=device, dtype=dtype)
        self.candidate = nn.Linear(input_size + channels, channels, device=device, dtype=dtype)
        for linear, bias in ((self.gates, 1.0), (self.candidate, 0.0)):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.constant_(linear.bias, bias)

    def forward(self, steps: Tensor, hidden: Tensor) -> Tensor:
        """Run over [T, B, input_size] from [B, M]; return all hidden states, [T, B, M]."""
        (w, u), (v, r_weight) = (
            linear.weight.tensor_split([self.input_size], dim=1)
            for linear in (self.gates, self.candidate)
        )
        of_gates = F.linear(steps, w, self.gates.bias)
        of_candidate = F.linear(steps, v, self.candidate.bias)
        outputs = []
        for a, b in zip(of_gates, of_candidate, strict=True):
            r, keep = torch.sigmoid(a + F.linear(hidden, u)).chunk(2, dim=-1)
            candidate = torch.tanh(b + F.linear(r * hidden, r_weight))
            hidden = keep * hidden + (1 - keep) * candidate
            outputs.append(hidden)
        return torch.stack(outputs)


def run_dilated(gru: nn.Module, steps: Tensor, before: Tensor) -> Tensor:
    """Run the layer of dilation s: fold every s timesteps into the batch, and unfold the result.

    Args:
        gru: the `GRU` of the layer.
        steps: [T, B, input_size].
        before: the s hidden states before, [s, B, M].
    """
    time, width = len(steps), min(len(before), len(steps))
    padded = F.pad(steps, (0, 0, 0, 0, 0, -time % width))
    folded = padded.unflatten(0, (-1, width)).flatten(1, 2)  # [T/s, s·B, input_size]
    hidden: Tensor = gru(folded, before[:width].flatten(0, 1))
    return hidden.unflatten(1, (width, -1)).flatten(0, 1)[:time]
