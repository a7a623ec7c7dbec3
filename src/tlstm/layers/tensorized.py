"""The tensorized RNN and LSTM over whole sequences, streams and single timesteps.

Dimension letters of this file:
    T       timesteps
    B       examples
    P..     the location axes, one for each of S = D − 1, each P long
    M       channels
    K..     the kernel's axes, one for each of S
"""

from abc import abstractmethod
from math import prod
from types import ModuleType
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor

from tlstm.layers.recurrent import RecurrentLayer, padding_mask, parameter_maker
from tlstm.ops import geometry, reference
from tlstm.ops.dispatch import (
    Implementation,
    compute_dtype,
    may_need_gradients,
    report,
    requested_implementation,
    resolve_implementation,
)
from tlstm.ops.eager import cpu_step
from tlstm.ops.operator import Kernels, sequence
from tlstm.ops.projection import is_worthwhile, project
from tlstm.ops.shapes import Weights
from tlstm.utils import at_least, finite, true_or_false

NormalizationKind = Literal["channel", "layer"]
MAX_RANK = 16  # K=2 has 65,536 taps of every hidden weight then


class TensorizedLayer(RecurrentLayer):
    """The common part of the tensorized RNN and LSTM: input, delay, shapes of the weights.

    Attributes:
        tensor_size: locations along each location axis, P.
        rank: rank of the hidden tensor, D.
        kernel_size: K.
        depth: L, timesteps from an input to the first output that it reaches.
        delay: L − 1.
        weight_input: Wˣ, [M, input_size].
        bias_input: bˣ, [M].
        weight_hidden: Wʰ, [O, M, K..].
        bias_hidden: bʰ, [O].
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        tensor_size: int,
        rank: int,
        kernel_size: int,
        batch_first: bool,
        implementation: Implementation | None,
    ) -> None:
        super().__init__(input_size, channels, batch_first)
        self.implementation = requested_implementation(implementation)
        self.tensor_size = at_least("tensor_size", tensor_size, 1)
        self.rank = at_least("rank", rank, 2)
        if self.rank > MAX_RANK:
            raise ValueError(f"rank must be an integer of at most {MAX_RANK}, got {rank!r}")
        self.kernel_size = at_least("kernel_size", kernel_size, 2)
        self.depth = geometry.depth(self.tensor_size, self.kernel_size)
        self.delay = self.depth - 1

    def _create_weights(
        self, convolved: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        """Create the weights; the hidden convolution makes `convolved` channels."""
        parameter = parameter_maker(device, dtype)
        kernel = [self.kernel_size] * (self.rank - 1)
        self.weight_input = parameter(self.channels, self.input_size)
        self.bias_input = parameter(self.channels)
        self.weight_hidden = parameter(convolved, self.channels, *kernel)
        self.bias_hidden = parameter(convolved)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights, uniform within ±1/√fan-in, the Torch7 default [ours]."""
        for weight, bias in (
            (self.weight_input, self.bias_input),
            (self.weight_hidden, self.bias_hidden),
        ):
            bound = prod(weight.shape[1:]) ** -0.5
            weight.uniform_(-bound, bound)
            bias.uniform_(-bound, bound)

    def any_parameter(self) -> Tensor:
        """Return one of the weights without a search, for the speed of single timesteps."""
        return self.weight_hidden

    def state_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return [B, P.., M]."""
        return (batch_size, *[self.tensor_size] * (self.rank - 1), self.channels)

    def forward_sequence(
        self, steps: Tensor, state: tuple[Tensor, ...], stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over a sequence.

        A whole sequence runs T + L − 1 timesteps, the last L − 1 with a zero projected input
        [ours]; a stream runs T.
        """
        chosen = self._resolve(steps)
        projected = self._project(steps, chosen)
        if lengths is not None:
            after = padding_mask(lengths, steps.shape[0])
            projected = projected.masked_fill(after, 0)
        delay = 0 if stream else self.delay
        projected = F.pad(projected, (0, 0, 0, 0, 0, delay))

        if chosen == "autograd":
            output, state = self._stepwise(projected, state, lengths, delay)
        else:
            output, state = self._fused(projected, state, lengths, delay, chosen)
        if lengths is not None:
            output = output.masked_fill(after, 0)
        return output, state

    def _fused(
        self,
        projected: Tensor,
        state: tuple[Tensor, ...],
        lengths: Tensor | None,
        delay: int,
        kernels: Kernels,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run all timesteps as one operation with its own backward pass."""
        normalization = self._normalization()
        kind, gain, bias = normalization or ("", None, None)
        return sequence(
            projected,
            state,
            Weights(self.weight_hidden, self.bias_hidden, gain, bias),
            lengths,
            delay,
            compute_dtype(projected.device, self.weight_hidden.dtype),
            kind,
            kernels,
        )

    def _stepwise(
        self, projected: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None, delay: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the reference's equations timestep by timestep, under autograd."""
        outputs = []
        last = state
        time = projected.shape[0] - delay
        for t, step in enumerate(projected.unbind(0), start=1):
            state = self._next_state(step, state, reference)
            outputs.append(self._read_out(state[0]))
            if lengths is not None:
                last = _where(lengths == t, state, last)
            elif t == time:
                last = state
        return torch.stack(outputs[-time:]), last

    def _resolve(self, steps: Tensor) -> Implementation:
        """Return the implementation for tensors on this one's device, and log it."""
        chosen = resolve_implementation(
            self.implementation,
            steps.device,
            compute_dtype(steps.device, self.weight_hidden.dtype),
            self.rank,
            self.kernel_size ** (self.rank - 1),
        )
        if not torch.compiler.is_compiling():
            report(type(self).__name__, steps.device, chosen)
        return chosen

    def _normalization(self) -> reference.Normalization | None:
        """Return the memory cell's normalization; an RNN has none."""
        return None

    def forward_step(
        self, step: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one timestep on [B, input_size]."""
        chosen = self._resolve(step)
        projected = self._project(step, chosen)
        dtype = self.weight_hidden.dtype
        narrow = compute_dtype(step.device, dtype) != dtype
        # The equations under autocast would round the memory cell
        if chosen == "triton" or (chosen == "pytorch" and narrow):
            output, state = self._fused(projected.unsqueeze(0), state, None, 0, chosen)
            return output.squeeze(0), state
        # `cpu_step` is the fastest on a CPU, and has no gradients
        without_gradients = (
            chosen == "pytorch"
            and projected.device.type == "cpu"
            and not may_need_gradients()
            and not torch.compiler.is_compiling()
        )
        state = self._next_state(projected, state, cpu_step if without_gradients else reference)
        return self._read_out(state[0]), state

    @abstractmethod
    def _next_state(
        self, projected: Tensor, state: tuple[Tensor, ...], equations: ModuleType
    ) -> tuple[Tensor, ...]:
        """Return the state after one timestep with the projected input [B, M].

        Args:
            projected: x_t Wˣ + bˣ, [B, M].
            state: H_{t−1} and, of an LSTM, C_{t−1}.
            equations: the module with `rnn_step` and `lstm_step`.
        """

    def _project(self, input: Tensor, chosen: Implementation) -> Tensor:
        """Return the projected input, x Wˣ + bˣ, [.., M].

        Autocast applies to "autograd" and to the kernels' large projections. Elsewhere the weights'
        own type saves copies and keeps the gradient of Wˣ exact.
        """
        dtype = self.weight_input.dtype
        inner = compute_dtype(input.device, dtype)
        if chosen == "triton" and is_worthwhile(self.weight_input):
            return project(input, self.weight_input, self.bias_input, inner)
        if chosen == "autograd" or inner == dtype:
            return F.linear(input, self.weight_input, self.bias_input)
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(dtype), self.weight_input, self.bias_input)

    def _read_out(self, hidden: Tensor) -> Tensor:
        """Return the corner opposite to the input, H[P,..,P], [B, M]."""
        return hidden.flatten(1, -2)[:, -1]

    def extra_repr(self) -> str:
        """Return the options that shape the layer and its implementation, for printing."""
        implementation = self.implementation or self._resolve(self.weight_hidden)
        return (
            f"{self.input_size}, {self.channels}, tensor_size={self.tensor_size}, "
            f"rank={self.rank}, kernel_size={self.kernel_size}, depth={self.depth}, "
            f"implementation={implementation!r}"
        )


class TensorizedRNN(TensorizedLayer):
    """A tensorized RNN (tRNN): H_t = tanh(Hcat_{t−1} ⊛ {Wʰ, bʰ}).

    See `TensorizedLSTM` for the arguments; the state is the one tensor h, [B, P.., M].
    """

    state_names = ("h",)

    def __init__(
        self,
        input_size: int,
        channels: int,
        tensor_size: int,
        rank: int = 2,
        kernel_size: int = 3,
        batch_first: bool = False,
        implementation: Implementation | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, channels, tensor_size, rank, kernel_size, batch_first, implementation
        )
        self._create_weights(self.channels, device, dtype)
        self.reset_parameters()

    def _next_state(
        self, projected: Tensor, state: tuple[Tensor, ...], equations: ModuleType
    ) -> tuple[Tensor, ...]:
        (hidden,) = state
        return (equations.rnn_step(projected, hidden, self.weight_hidden, self.bias_hidden),)


class TensorizedLSTM(TensorizedLayer):
    """A tensorized LSTM (tLSTM) with the interface of torch.nn.LSTM.

    Its hidden state is a tensor of P×..×P locations with M channels each. A larger tensor makes
    it wider with no more parameters, and deeper at hardly more runtime: the output is delayed
    by L − 1 timesteps, and the deep computation for a timestep is merged into the computation of
    the next ones (sections 2.1–2.3 of the paper).

        >>> layer = TensorizedLSTM(input_size=8, channels=16, tensor_size=4, rank=3)
        >>> output, (h, c) = layer(torch.randn(10, 2, 8))
        >>> list(output.shape), list(h.shape)
        ([10, 2, 16], [2, 4, 4, 16])

    Args:
        input_size: features of the input.
        channels: M.
        tensor_size: P, locations along each location axis.
        rank: D ≥ 2, rank of the hidden tensor: 2 gives P×M, 3 gives P×P×M, and so on.
        kernel_size: K ≥ 2. K = 3 has feedback, K = 2 has none ("−F").
        memory_convolution: True if every location convolves the memory cell with its own kernel
            (section 2.3); without it, "−M".
        normalization: of the memory cell on its way to the hidden state: "channel" (CN), every
            location over its own channels, with gain and bias of shape [P.., M]; "layer" (LN),
            over all locations and channels, with gain and bias of shape [M] [ours]; or None.
            LN is not causal at L > 1: its mean and variance include locations that have read
            later inputs, so that y_t depends on x up to x_{t+L−1}.
        forget_bias: the initial bias of the forget gate: 1, or 4 for MNIST [paper].
        batch_first: True for batches [B, T, input_size].
        implementation: "autograd" runs `tlstm.ops.reference` step by step under autograd;
            "pytorch" the whole sequence as one operation with its own backward pass; "triton" the
            same in kernels for NVIDIA GPUs. None: the one that the environment variable
            TLSTM_IMPLEMENTATION names, or else the fastest that the tensors allow.
            torch.onnx.export(dynamo=True) takes "autograd" alone, and makes a program for one
            number of timesteps.
        device: of the weights.
        dtype: of the weights.

    Memory: for the backward pass "triton" keeps, for every timestep, example and location, K^S·M
    numbers of the kernel's input and 4M + K^S of A_t in the compute dtype, and M of C_t in
    float32; "pytorch" about 8M numbers. Without gradients nothing is kept.

    Speed: on a GPU Python launches every kernel of every timestep. A CUDA graph of the training
    step, or `tlstm.ops.recording.set_recording`, off until measured, launches all at once.

    Attributes:
        depth: L = ⌈P / r⌉ with r = ⌊K / 2⌋.
        delay: L − 1.
        weight_input: Wˣ, [M, input_size]; bias_input: bˣ, [M].
        weight_hidden: Wʰ, [O, M, K..]; bias_hidden: bʰ, [O]. The rows are those of G, I, F, O
            and, with memory convolution, of the K^S entries of A^q, row-major over K...
        normalization_gain: Γ; normalization_bias: B.

    Raises:
        ValueError: an argument is out of range; the message names it and its range.
    """

    def __init__(
        self,
        input_size: int,
        channels: int,
        tensor_size: int,
        rank: int = 2,
        kernel_size: int = 3,
        memory_convolution: bool = True,
        normalization: NormalizationKind | None = None,
        forget_bias: float = 1.0,
        batch_first: bool = False,
        implementation: Implementation | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, channels, tensor_size, rank, kernel_size, batch_first, implementation
        )
        if normalization not in (None, "channel", "layer"):
            raise ValueError(
                f"normalization must be 'channel', 'layer' or None, got {normalization!r}"
            )
        self.memory_convolution = true_or_false("memory_convolution", memory_convolution)
        self.normalization = normalization
        self.forget_bias = finite("forget_bias", forget_bias)
        logits = self.kernel_size ** (self.rank - 1) if memory_convolution else 0
        self._create_weights(4 * self.channels + logits, device, dtype)
        if normalization is not None:
            shape = self.state_shape(1)[1:] if normalization == "channel" else (self.channels,)
            parameter = parameter_maker(device, dtype)
            self.normalization_gain, self.normalization_bias = parameter(*shape), parameter(*shape)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new weights; the forget gate's bias is `forget_bias`, the norm's gain 1."""
        super().reset_parameters()
        self.reset_forget_bias()
        if self.normalization is not None:
            self.normalization_gain.fill_(1)
            self.normalization_bias.fill_(0)

    @torch.no_grad()
    def reset_forget_bias(self) -> None:
        """Set the bias of the forget gate to `forget_bias`."""
        self.bias_hidden[2 * self.channels : 3 * self.channels].fill_(self.forget_bias)

    def _next_state(
        self, projected: Tensor, state: tuple[Tensor, ...], equations: ModuleType
    ) -> tuple[Tensor, ...]:
        hidden, memory = state
        return equations.lstm_step(
            projected,
            hidden,
            memory,
            self.weight_hidden,
            self.bias_hidden,
            self._normalization(),
        )

    def _normalization(self) -> reference.Normalization | None:
        if self.normalization is None:
            return None
        return reference.Normalization(
            self.normalization, self.normalization_gain, self.normalization_bias
        )

    def extra_repr(self) -> str:
        """Return the options that shape the layer and its implementation, for printing."""
        return (
            f"{super().extra_repr()}, memory_convolution={self.memory_convolution}, "
            f"normalization={self.normalization!r}, forget_bias={self.forget_bias}"
        )


def _where(
    condition: Tensor, first: tuple[Tensor, ...], second: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Choose by example [B] between the parts of two states."""
    return tuple(
        torch.where(condition.reshape(-1, *[1] * (a.dim() - 1)), a, b)
        for a, b in zip(first, second, strict=True)
    )
