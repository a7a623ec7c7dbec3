"""cLSTM, the convolutional LSTM of one spatial axis (Shi et al. 2015), of Figure 7a.

    i, f, g, o: A_t = conv_K(H_{t−1}; W^h, b) + conv_K'(X_t; W^x)      with zeros around
    C_t = σ(f) ⊙ C_{t−1} + σ(i) ⊙ tanh(g)            H, C: M channels at each of P locations
    H_t = σ(o) ⊙ tanh(C_t)

[ours] without peepholes, and K' = 1. Weights begin within ±1/√fan-in, but for the forget bias. On
a task the input enters at location 1 and the output leaves at location P, without a delay: it
depends on inputs of (P − 1)/⌊K/2⌋ timesteps ago and earlier.

Dimension letters of this file:
    T       timesteps
    B       examples
    n       features of a location's input
    P       locations
    M       channels
"""

from collections.abc import Iterable

import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn

from tlstm.layers.comparators.comparator import Device, Dtype, Parts, SteppedComparator
from tlstm.layers.cudnn import lstm
from tlstm.utils import at_least


class ConvLSTM(SteppedComparator):
    """cLSTM; the state is H and C, location after location.

    Args:
        input_size: features of the input, n.
        channels: M, of every location.
        tensor_size: P, locations.
        kernel_size: K, an odd number.
        forget_bias: the initial bias of the forget gates.
        batch_first: True for batches [B, T, input_size].
        device: of the weights.
        dtype: of the weights.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        tensor_size: int,
        kernel_size: int = 3,
        forget_bias: float = 1.0,
        batch_first: bool = False,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.tensor_size = at_least("tensor_size", tensor_size, 1)
        self.kernel_size = at_least("kernel_size", kernel_size, 1)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be an odd integer, got {kernel_size}")
        self.forget_bias = forget_bias
        self.sizes = {"h": tensor_size * channels, "c": tensor_size * channels}
        self.input = nn.Linear(input_size, 4 * channels, bias=False, device=device, dtype=dtype)
        self.hidden = nn.Conv1d(
            channels,
            4 * channels,
            kernel_size,
            padding=kernel_size // 2,
            device=device,
            dtype=dtype,
        )
        assert self.hidden.bias is not None
        nn.init.constant_(self.hidden.bias[channels : 2 * channels], forget_bias)

    def timesteps(self, steps: Tensor, parts: Parts) -> Iterable[Parts]:
        """Return conv(X_t) [B, P, 4M], whose only input is at the first location."""
        return zip(F.pad(self.input(steps).unsqueeze(2), (0, 0, 0, self.tensor_size - 1)))

    def advance(self, read: Parts, parts: Parts) -> tuple[Tensor, Parts]:
        """Run one timestep."""
        hidden, memory = (part.unflatten(-1, (self.tensor_size, -1)) for part in parts)
        activation = self.hidden(hidden.transpose(1, 2)).transpose(1, 2) + read[0]
        hidden, memory = lstm(activation, memory)
        return hidden[:, -1], (hidden.flatten(1), memory.flatten(1))
