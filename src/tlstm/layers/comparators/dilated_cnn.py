"""Dilated CNN, causal convolutions like WaveNet's (as run by Chang et al. 2017), in Table 3.

    x_t ← ReLU(W₀ x_{t−s} + W₁ x_t + b)             s = 2^l in layer l = 0, 1, ..

x is 0 before the first timestep. Ten layers of 50 channels have the row's 46k parameters; gates and
residual paths, if any, are not known [uncertain]. [ours] plain layers of rectified linear units,
which begin as torch.nn.Conv1d does.
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


class DilatedCNN(Comparator):
    """Dilated CNN; the state is the last s inputs of every layer, the oldest first.

    Args:
        input_size: features of the input.
        channels: channels of a layer.
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
        self.sizes = {f"history_{layer}": 2**layer * size for layer, size in enumerate(inputs)}
        self.layers = nn.ModuleList(
            nn.Conv1d(size, channels, 2, dilation=2**layer, device=device, dtype=dtype)
            for layer, size in enumerate(inputs)
        )

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence, layer by layer."""
        x, ends = steps, []
        for number, (layer, part) in enumerate(zip(self.layers, self.split(state[0]), strict=True)):
            dilation = 2**number
            before = part.unflatten(-1, (dilation, -1)).transpose(0, 1)  # [s, B, n]
            xs = torch.cat([before, x])
            ends.append(newest(xs, dilation, lengths).transpose(0, 1).flatten(1))
            x = torch.relu(layer(xs.permute(1, 2, 0))).permute(2, 0, 1)
        return mask_output(x, lengths), (torch.cat(ends, dim=-1),)
