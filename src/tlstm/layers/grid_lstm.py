"""The 2-dimensional Grid LSTM (Kalchbrenner, Danihelka and Graves 2015), Table 2's baseline.

A grid of blocks, with timesteps along one dimension and layers along the other. A block reads the
hidden states of its predecessors along both, and has an LSTM for each dimension: both read the same
hidden states, and each updates the memory cell of its dimension.

Our form [ours]: an LSTM of today's equations, h' = o ⊙ tanh(m'). At the bottom the projected input
is the depth dimension's hidden state, with zero memory; no dimension has priority, so both LSTMs of
a block read the block's inputs. The form of the paper's own text, `as_published`, differs in three
places [paper]: h' = tanh(o ⊙ m'); depth has priority, so that its LSTM reads the hidden state that
the block has just computed along time; and the depth dimension's memory begins with a projection of
the input of its own. In both the output is the depth dimension's hidden state at the top.

Dimension letters of this file:
    T       timesteps
    B       examples
    L       layers
    A       layers of a diagonal: blocks that can be computed at once
    M       channels of each hidden state and memory cell
"""

import torch
from torch import Tensor

from tlstm.layers.cudnn import lstm, run_stack
from tlstm.layers.recurrent import padding_mask
from tlstm.layers.stacked import Stack
from tlstm.utils import finite, true_or_false

TIME, DEPTH = 0, 1  # the dimensions of the grid, as the weights are numbered


class GridLSTM(Stack):
    """A Grid LSTM of time and depth, with separate weights for every layer or one set for all.

    The depth dimension's memory starts at zero at every timestep, so that the state is the time
    dimension's alone: h and c, each [L, B, M], as in torch.nn.LSTM.

    Along time a layer is an LSTM layer that reads the hidden states from below. torch's kernel
    computes it for the whole sequence; the depth dimension then needs no loop over time. Single
    timesteps are written out. No such kernel computes the published form: it runs in L + T − 1
    diagonals, whose blocks depend on those of the diagonal before alone.

    Args:
        input_size: features of the input.
        channels: M, units of each LSTM of a block.
        depth: L, the number of layers.
        shared: True if all layers share their parameters (the tied form).
        forget_bias: the initial bias of the forget gates.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
        as_published: True for the form of the Grid LSTM's own text.

    Attributes:
        weight_input: [M, input_size]; bias_input: [M]; as published [2M, ..] and [2M], of the
            hidden state and then of the memory.
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
        as_published: bool = False,
    ) -> None:
        bias = finite("forget_bias", forget_bias)
        self.as_published = true_or_false("as_published", as_published)
        self.projections = 2 if as_published else 1
        super().__init__(input_size, channels, depth, shared, bias, batch_first, device, dtype)

    def forward_sequence(
        self, steps: Tensor, state: tuple[Tensor, ...], stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a sequence, layer by layer; diagonal by diagonal as published."""
        upwards = self._bottom(steps)
        if self.as_published:
            return self._run_diagonals(upwards, state, lengths)
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
        if self.as_published:
            output, state = self._run_diagonals(self._bottom(step.unsqueeze(0)), state, None)
            return output[0], state
        upwards = self._bottom(step)
        onwards = []
        for index, (before, memory) in enumerate(self._layers(state)):
            below = upwards[0]
            onwards.append(lstm(self._activation(below, before, index, TIME), memory))
            upwards = lstm(self._activation(below, before, index, DEPTH), upwards[1])
        return upwards[0], tuple(torch.stack(parts) for parts in zip(*onwards, strict=True))

    def _bottom(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first layer's input: the projected input and its memory [.., B, M]."""
        projected = self._project(inputs)
        if self.as_published:
            hidden, memory = projected.chunk(2, dim=-1)
            return hidden, memory
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

    def _run_diagonals(
        self,
        bottom: tuple[Tensor, Tensor],
        state: tuple[Tensor, ...],
        lengths: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the published form over [T, B, M]: at once all blocks whose l + t is the same."""
        time = len(bottom[0])
        onwards, upwards = state, tuple(part[:0] for part in bottom)
        outputs = []
        for diagonal in range(time + self.depth - 1):
            first, last = max(0, diagonal - time + 1), min(self.depth, diagonal + 1)
            below = tuple(
                torch.cat([entering[diagonal : diagonal + 1], rising])[: last - first]
                for entering, rising in zip(bottom, upwards, strict=True)
            )
            before = tuple(part[first:last] for part in onwards)
            after, upwards = self._run_blocks(below, before, slice(first, last))
            if lengths is not None:
                times = diagonal - torch.arange(first, last, device=lengths.device)
                counts = (times.unsqueeze(1) < lengths).unsqueeze(2)
                pairs = zip(after, before, strict=True)
                after = tuple(torch.where(counts, new, old) for new, old in pairs)
            onwards = tuple(
                torch.cat([part[:first], new, part[last:]])
                for part, new in zip(onwards, after, strict=True)
            )
            if last == self.depth:
                outputs.append(upwards[0][-1])
        output = torch.stack(outputs)
        if lengths is not None:
            output = output.masked_fill(padding_mask(lengths, time), 0)
        return output, onwards

    def _run_blocks(
        self, below: tuple[Tensor, ...], before: tuple[Tensor, ...], layers: slice
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Run a block of each layer on [A, B, M]; return its states along time and along depth."""
        after = published_lstm(self._activations(below[0], before[0], layers, TIME), before[1])
        # Depth has priority: it reads the new hidden state
        gates = self._activations(below[0], after[0], layers, DEPTH)
        return after, published_lstm(gates, below[1])

    def _activations(self, below: Tensor, hidden: Tensor, layers: slice, dimension: int) -> Tensor:
        """Return the activations of several layers [A, B, 4M]."""
        if self.shared:
            return self._activation(below, hidden, 0, dimension)
        of_input, of_hidden = (
            weight[layers, dimension].mT for weight in (self.weight_ih, self.weight_hh)
        )
        return below @ of_input + hidden @ of_hidden + self.bias[layers, dimension].unsqueeze(1)


def published_lstm(activation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden state tanh(o ⊙ m') and memory m' [.., M] from activations [.., 4M]."""
    a_i, a_f, a_g, a_o = activation.chunk(4, dim=-1)
    memory = torch.tanh(a_g) * torch.sigmoid(a_i) + memory * torch.sigmoid(a_f)
    return torch.tanh(memory * torch.sigmoid(a_o)), memory
