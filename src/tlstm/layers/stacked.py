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
from torch import Tensor, nn

from tlstm.layers.cudnn import Kernel, LayerWeights, lstm, run_stack
from tlstm.layers.recurrent import RecurrentLayer
from tlstm.utils import (
    at_least,
    true_or_false,
)


class Stack(RecurrentLayer):
    """The common part of sRNN and sLSTM: the input's projection and the layers' weights.

    Whole sequences run through torch's own kernels, cuDNN's on a GPU. Single timesteps are written
    out; they are the kernels' oracle. There is no delay: a stream equals a whole sequence.

    Attributes:
        depth: L.
        shared: True if all layers have the same parameters.
        weight_input: [M, input_size]; bias_input: [M].
        weight_ih: [n, G·M, M], of a layer's input; n is 1 if shared, else L.
        weight_hh: [n, G·M, M], of its hidden state.
        bias: [n, G·M].
    """

    gates: int
    kernel: Kernel
    state_batch_axis = 1

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
        super().__init__(input_size, channels, batch_first)
        self.depth = at_least("depth", depth, 1)
        self.shared = true_or_false("shared", shared)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        distinct = 1 if shared else depth
        self.weight_input = parameter(channels, input_size)
        self.bias_input = parameter(channels)
        self.weight_ih = parameter(distinct, self.gates * channels, channels)
        self.weight_hh = parameter(distinct, self.gates * channels, channels)
        self.bias = parameter(distinct, self.gates * channels)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, uniform within ±1/√fan-in, the Torch7 default [ours].

        The fan-in of a layer is 2M: its input and its hidden state are one vector.
        """
        projection, layer = self.input_size**-0.5, (2 * self.channels) ** -0.5
        for parameter in (self.weight_input, self.bias_input):
            parameter.uniform_(-projection, projection)
        for parameter in (self.weight_ih, self.weight_hh, self.bias):
            parameter.uniform_(-layer, layer)

    def state_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return [L, B, M], as in torch.nn.LSTM."""
        return (self.depth, batch_size, self.channels)

    def forward_sequence(
        self, steps: Tensor, state: tuple[Tensor, ...], stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a sequence through torch's kernels."""
        projected = F.linear(steps, self.weight_input, self.bias_input)
        distinct = [
            LayerWeights(*weights)
            for weights in zip(self.weight_ih, self.weight_hh, self.bias, strict=True)
        ]
        layers = [distinct[index % len(distinct)] for index in range(self.depth)]
        return run_stack(self.kernel, projected, state, layers, lengths)

    def forward_step(
        self, step: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one timestep on [B, input_size], layer by layer."""
        below = F.linear(step, self.weight_input, self.bias_input)
        layers = []
        for index, parts in enumerate(zip(*(part.unbind(0) for part in state), strict=True)):
            layers.append(self._layer_step(below, parts, index % len(self.bias)))
            below = layers[-1][0]
        return below, tuple(torch.stack(parts) for parts in zip(*layers, strict=True))

    @abstractmethod
    def _layer_step(
        self, below: Tensor, state: tuple[Tensor, ...], index: int
    ) -> tuple[Tensor, ...]:
        """Return the next state of one layer: [B, M] from below, each part of its state [B, M]."""

    def _activation(self, below: Tensor, hidden: Tensor, index: int) -> Tensor:
        """Return the activations of one layer, [B, G·M]."""
        from_below = F.linear(below, self.weight_ih[index], self.bias[index])
        return from_below + F.linear(hidden, self.weight_hh[index])

    def extra_repr(self) -> str:
        """Return the options that shape the layer, for printing."""
        return f"{self.input_size}, {self.channels}, depth={self.depth}, shared={self.shared}"


class StackedRNN(Stack):
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
        super().__init__(input_size, channels, depth, shared, batch_first, device, dtype)
        self.reset_parameters()

    def _layer_step(
        self, below: Tensor, state: tuple[Tensor, ...], index: int
    ) -> tuple[Tensor, ...]:
        return (torch.tanh(self._activation(below, state[0], index)),)


class StackedLSTM(Stack):
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
        ValueError: a size is out of range; the message names it and its range.
    """

    gates = 4
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
        super().__init__(input_size, channels, depth, shared, batch_first, device, dtype)
        self.forget_bias = forget_bias
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights; the forget gates' bias is `forget_bias`."""
        super().reset_parameters()
        self.reset_forget_bias()

    @torch.no_grad()
    def reset_forget_bias(self) -> None:
        """Set the biases of the forget gates to `forget_bias`."""
        self.bias[:, self.channels : 2 * self.channels].fill_(self.forget_bias)

    def _layer_step(
        self, below: Tensor, state: tuple[Tensor, ...], index: int
    ) -> tuple[Tensor, ...]:
        hidden, cell = state
        return lstm(self._activation(below, hidden, index), cell)
