"""The 2-dimensional Grid LSTM (Kalchbrenner, Danihelka and Graves 2015), Table 2's baseline.

A grid of blocks, with timesteps along one dimension and layers along the other. A block reads the
hidden states of its predecessors along both, and has an LSTM for each dimension: both read the same
hidden states, and each updates the memory cell of its dimension.

Our choices where the paper leaves them open [ours]: at the bottom the projected input is the depth
dimension's hidden state, with zero memory; the output is the depth dimension's hidden state at the
top; no dimension has priority, so both LSTMs of a block read the block's inputs.

Dimension letters of this file:
    T       timesteps
    B       examples
    L       layers
    M       channels of each hidden state and memory cell
"""

import torch
from torch import Tensor

from tlstm.layers.cudnn import lstm, run_stack
from tlstm.layers.recurrent import padding_mask
from tlstm.layers.stacked import Stack
from tlstm.utils import finite

TIME, DEPTH = 0, 1  # the dimensions of the grid, as the weights are numbered


class GridLSTM(Stack):
    """A Grid LSTM of time and depth, with separate weights for every layer or one set for all.

    The depth dimension's memory starts at zero at every timestep, so that the state is the time
    dimension's alone: h and c, each [L, B, M], as in torch.nn.LSTM.

    Along time a layer is an LSTM layer that reads the hidden states from below. torch's kernel
    computes it for the whole sequence; the depth dimension then needs no loop over time. Single
    timesteps are written out.

    Args:
        input_size: features of the input.
        channels: M, units of each LSTM of a block.
        depth: L, the number of layers.
        shared: True if all layers share their parameters (the tied form).
        forget_bias: the initial bias of the forget gates.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.

    Attributes:
        weight_input: [M, input_size]; bias_input: [M].
        weight_ih: [n, 2, 4M, M], of the hidden state from below, for the LSTM along time and the
            one along depth; gates in PyTorch's order i, f, g, o; n is 1 if shared, else L.
        weight_hh: [n, 2, 4M, M], of the hidden state of the timestep before.
        bias: [n, 2, 4M].

    Raises:
        ValueError: an argument is out of range; the message names it and its range.
    """

    dimensions = (2,)

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        shared: bool = False,
        forget_bias: float = 1.0,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        bias = finite("forget_bias", forget_bias)
        super().__init__(input_size, channels, depth, shared, bias, batch_first, device, dtype)

    def forward_sequence(
        self, steps: Tensor, state: tuple[Tensor, ...], stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a sequence, layer by layer."""
        upwards = self._bottom(steps)
        ends = []
        for index, parts in enumerate(self._layers(state)):
            upwards, end = self._run_layer(upwards, parts, index, lengths)
            ends.append(end)
        output = upwards[0]
        if lengths is not None:
            output = output.masked_fill(padding_mask(lengths, len(steps)), 0)
        return output, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def forward_step(
        self, step: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one timestep on [B, input_size], block by block."""
        upwards = self._bottom(step)
        onwards = []
        for index, (before, memory) in enumerate(self._layers(state)):
            below = upwards[0]
            onwards.append(lstm(self._activation(below, before, index, TIME), memory))
            upwards = lstm(self._activation(below, before, index, DEPTH), upwards[1])
        return upwards[0], tuple(torch.stack(parts) for parts in zip(*onwards, strict=True))

    def _bottom(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first layer's input: the projected input and zero memory [.., B, M]."""
        projected = self._project(inputs)
        return projected, torch.zeros_like(projected)

    def _run_layer(
        self,
        upwards: tuple[Tensor, Tensor],
        state: tuple[Tensor, ...],
        index: int,
        lengths: Tensor | None,
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """Run one layer over [T, B, M]; return its depth states and its last state [1, B, M]."""
        below, memory = upwards
        parts = [part.unsqueeze(0) for part in state]
        along_time = self._weights(index, TIME)
        hidden, end = run_stack(torch.lstm, below, parts, [along_time], lengths)
        before = torch.cat([parts[0].to(hidden.dtype), hidden[:-1]])
        return lstm(self._activation(below, before, index, DEPTH), memory), end
