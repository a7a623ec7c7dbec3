"""sRNN and sLSTM: stacks of L layers of M units, the baselines of the paper.

The paper's baseline shares its parameters across all layers and projects the input to M
channels first.

Dimension letters of this file:
    T       timesteps
    B       examples
    L       layers
    M       channels
    G       gates: 4 for the LSTM (PyTorch's order i, f, g, o), 1 for the RNN
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.layers.cudnn import Kernel, LayerWeights, lstm, run_stack
from tlstm.layers.recurrent import RecurrentLayer, parameter_maker
from tlstm.utils import at_least, finite, true_or_false


class Stack(RecurrentLayer):
    """The common part of sRNN, sLSTM and Grid LSTM: the input's projection and the weights.

    There is no delay: a stream equals a whole sequence.

    Attributes:
        depth: L.
        shared: True if all layers have the same parameters.
        forget_bias: the initial bias of the forget gates; None for an RNN, which has none.
        weight_input: [M, input_size]; bias_input: [M].
        weight_ih: [n, G·M, M], of a layer's input; n is 1 if shared, else L.
        weight_hh: [n, G·M, M], of its hidden state.
        bias: [n, G·M].
    """

    gates: int = 4
    dimensions: tuple[int, ...] = ()  # axes of the weights after that of the layers
    projections: int = 1  # of the input, each to M channels
    state_batch_axis = 1

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        shared: bool,
        forget_bias: float | None,
        batch_first: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.depth = at_least("depth", depth, 1)
        self.shared = true_or_false("shared", shared)
        self.forget_bias = forget_bias
        parameter = parameter_maker(device, dtype)
        lead = (1 if shared else self.depth, *self.dimensions, self.gates * self.channels)
        self.weight_input = parameter(self.projections * self.channels, self.input_size)
        self.bias_input = parameter(self.projections * self.channels)
        self.weight_ih = parameter(*lead, self.channels)
        self.weight_hh = parameter(*lead, self.channels)
        self.bias = parameter(*lead)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, uniform within ±1/√fan-in, the Torch7 default [ours].

        The fan-in of a layer is 2M: its input and its hidden state are one vector. The forget
        gates' bias is `forget_bias`.
        """
        projection, layer = self.input_size**-0.5, (2 * self.channels) ** -0.5
        for parameter in (self.weight_input, self.bias_input):
            parameter.uniform_(-projection, projection)
        for parameter in (self.weight_ih, self.weight_hh, self.bias):
            parameter.uniform_(-layer, layer)
        self.reset_forget_bias()

    @torch.no_grad()
    def reset_forget_bias(self) -> None:
        """Set the biases of the forget gates to `forget_bias`."""
        if self.forget_bias is not None:
            self.bias[..., self.channels : 2 * self.channels].fill_(self.forget_bias)

    def state_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return [L, B, M], as in torch.nn.LSTM."""
        return (self.depth, batch_size, self.channels)

    def _project(self, inputs: Tensor) -> Tensor:
        """Return the projected input, [.., M]."""
        return F.linear(inputs, self.weight_input, self.bias_input)

    def _layers(self, state: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        """Split the state by layer, each part [B, M]."""
        return list(zip(*(part.unbind(0) for part in state), strict=True))

    def _weights(self, *place: int) -> LayerWeights:
        """Return the weights of a layer, and of one of the dimensions if there are such."""
        index = place[0] % len(self.bias), *place[1:]
        return LayerWeights(self.weight_ih[index], self.weight_hh[index], self.bias[index])

    def _activation(self, below: Tensor, hidden: Tensor, *place: int) -> Tensor:
        """Return the activations of one layer, [.., B, G·M]."""
        weights = self._weights(*place)
        return F.linear(below, weights.input, weights.bias) + F.linear(hidden, weights.hidden)

    def extra_repr(self) -> str:
        """Return the options that shape the layer, for printing."""
        return f"{self.input_size}, {self.channels}, depth={self.depth}, shared={self.shared}"


class KernelStack(Stack):
    """A stack whose whole sequences run through torch's own kernels, cuDNN's on a GPU.

    Single timesteps are written out; they are the kernels' oracle.
    """

    kernel: Kernel

    def forward_sequence(
        self, steps: Tensor, state: tuple[Tensor, ...], stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a sequence through torch's kernels."""
        distinct = [self._weights(index) for index in range(len(self.bias))]
        layers = [distinct[index % len(distinct)] for index in range(self.depth)]
        return run_stack(self.kernel, self._project(steps), state, layers, lengths)

    def forward_step(
        self, step: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one timestep on [B, input_size], layer by layer."""
        below = self._project(step)
        layers = []
        for index, parts in enumerate(self._layers(state)):
            layers.append(self._next_state(self._activation(below, parts[0], index), parts))
            below = layers[-1][0]
        return below, tuple(torch.stack(parts) for parts in zip(*layers, strict=True))

    @abstractmethod
    def _next_state(self, activation: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the next state of one layer, each part [B, M], from its activations [B, G·M]."""


class StackedRNN(KernelStack):
    """sRNN: h_t^l = tanh(h_t^{l−1} Wⁱʰ + h_{t−1}^l Wʰʰ + b) with h_t^0 the projected input.

    See `StackedLSTM` for the arguments; the state is the one tensor h, [L, B, M].
    """

    state_names = ("h",)
    gates = 1
    kernel = staticmethod(torch.rnn_tanh)

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        shared: bool = True,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, channels, depth, shared, None, batch_first, device, dtype)

    def _next_state(self, activation: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.tanh(activation),)


class StackedLSTM(KernelStack):
    """sLSTM: a stack of LSTM layers, by default with one set of weights in all of them.

    Args:
        input_size: features of the input.
        channels: M, units of every layer.
        depth: L, the number of layers.
        shared: True if all layers share their parameters (the paper's baseline).
        forget_bias: the initial bias of the forget gates.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.

    Raises:
        ValueError: an argument is out of range; the message names it and its range.
    """

    kernel = staticmethod(torch.lstm)

    def __init__(
        self,
        input_size: int,
        channels: int,
        depth: int,
        shared: bool = True,
        forget_bias: float = 1.0,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        bias = finite("forget_bias", forget_bias)
        super().__init__(input_size, channels, depth, shared, bias, batch_first, device, dtype)

    def _next_state(self, activation: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return lstm(activation, state[1])
