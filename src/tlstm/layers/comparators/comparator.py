"""The common part of the comparators: one tensor of state, and the loop over time.

Dimension letters of this file:
    T       timesteps
    B       examples
    I       features of the input
    M       channels of the output
    S       numbers of an example's state
"""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tlstm.layers.cudnn import Kernel, LayerWeights, run_stack
from tlstm.layers.recurrent import RecurrentLayer, padding_mask

Device = torch.device | str | None
Dtype = torch.dtype | None
Parts = tuple[Tensor, ...]


class Comparator(RecurrentLayer):
    """A model of another paper, whose state is one tensor and whose output has no delay.

    The state is [B, S]: its parts lie side by side, in the order of `sizes`. How the weights begin
    belongs to the model, so each draws its own.

    Every constructor takes `input_size`, the number of units, its model's own settings, and
    `batch_first`, `device` and `dtype` as torch.nn.LSTM does.

    Attributes:
        depth: layers, or cells that follow one another within a timestep.
        sizes: numbers of an example in each part of the state, by name.
    """

    state_names = ("state",)
    depth: int = 1
    sizes: dict[str, int]

    def state_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return [B, S]."""
        return batch_size, sum(self.sizes.values())

    def forward_step(self, step: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep on [B, I]: a sequence of one."""
        output, state = self.forward_sequence(step.unsqueeze(0), state, True, None)
        return output.squeeze(0), state

    def split(self, state: Tensor) -> Parts:
        """Split a state [B, S] into its parts, [B, n] each."""
        return state.split(list(self.sizes.values()), dim=-1)


class SteppedComparator(Comparator):
    """A comparator that is defined by one timestep: `advance`, looped over time here."""

    @abstractmethod
    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return what each timestep of [T, B, I] reads: products of the input, masks, weights."""

    @abstractmethod
    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep; return its output [B, ..] and the next parts of the state."""

    def begin(self, parts: Parts) -> Parts:
        """Return the parts that the first timestep reads: here those given."""
        return parts

    def readout(self, outputs: Tensor) -> Tensor:
        """Return the layer's output [T, B, M] from those of the timesteps: here the same."""
        return outputs

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence, timestep by timestep."""
        parts = self.begin(self.split(state[0]))
        outputs = []
        for t, read in enumerate(self.timesteps(steps, parts)):
            output, after = self.advance(read, parts)
            parts = after if lengths is None else _hold(t < lengths, after, parts)
            outputs.append(output)
        output = self.readout(torch.stack(outputs))
        return mask_output(output, lengths), (torch.cat(parts, dim=-1),)


class KernelComparator(Comparator):
    """A comparator of one layer that torch has a kernel for, cuDNN's on a GPU.

    Attributes:
        input: of weight [G·M, I] and bias [G·M], in the kernel's order of the G gates.
        hidden: of weight [G·M, M]; there is no second bias.
    """

    kernel: Kernel
    gates: int
    names: tuple[str, ...]

    def __init__(
        self,
        input_size: int,
        channels: int,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.sizes = dict.fromkeys(self.names, channels)
        rows = self.gates * channels
        self.input = nn.Linear(input_size, rows, device=device, dtype=dtype)
        self.hidden = nn.Linear(channels, rows, bias=False, device=device, dtype=dtype)
        self.reset_parameters()

    @abstractmethod
    def reset_parameters(self) -> None:
        """Draw new weights."""

    def forward_sequence(
        self, steps: Tensor, state: Parts, stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, Parts]:
        """Run over a sequence through torch's kernel."""
        parts = [part.contiguous().unsqueeze(0) for part in self.split(state[0])]
        weights = LayerWeights(self.input.weight, self.hidden.weight, self.input.bias)
        output, after = run_stack(self.kernel, steps, parts, [weights], lengths)
        return output, (torch.cat(after, dim=-1).squeeze(0),)


def mask_output(output: Tensor, lengths: Tensor | None) -> Tensor:
    """Return [T, B, M] with zeros beyond an example's length."""
    return output if lengths is None else output.masked_fill(padding_mask(lengths, len(output)), 0)


def newest(history: Tensor, count: int, lengths: Tensor | None) -> Tensor:
    """Return the last vectors of [count + T, B, n] at the end of each example: [count, B, n].

    Args:
        history: `count` vectors from before the sequence, then one for each timestep.
        count: how many.
        lengths: [B], the timesteps of each example that count; None: all.
    """
    if lengths is None:
        return history[-count:]
    places = lengths + torch.arange(count, device=lengths.device).unsqueeze(1)
    return history.gather(0, places.unsqueeze(-1).expand(-1, -1, history.shape[-1]))


def _hold(is_counted: Tensor, after: Parts, before: Parts) -> Parts:
    """Return the new parts of the examples whose timestep counts, else the old ones."""
    rows = is_counted.unsqueeze(-1)
    return tuple(torch.where(rows, new, old) for new, old in zip(after, before, strict=True))
