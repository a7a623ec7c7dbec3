"""The interface of torch.nn.LSTM: every form of a recurrent layer's input and state.

Dimension letters of this file:
    T       timesteps
    B       examples
    I       features of the input
    M       channels of the output
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tlstm.layers.serialization import read_layer, write_layer
from tlstm.utils import at_least, true_or_false

State = Tensor | tuple[Tensor, ...]


class RecurrentLayer(nn.Module, ABC):
    """A recurrent layer for whole sequences, streams and single timesteps.

    A subclass computes time-major batches. This class accepts every form of input of
    torch.nn.LSTM, checks it, and returns the result in the same form. The state has the weights'
    dtype, under autocast too.

    Attributes:
        input_size: features of the input, I.
        channels: channels of the output, M.
        batch_first: True for batches [B, T, I] instead of [T, B, I].
        delay: timesteps from an input to its output.
        state_names: the parts of the state, in order.
        state_batch_axis: the axis of the examples in each part of the state.
    """

    delay: int = 0
    state_names: tuple[str, ...] = ("h", "c")
    state_batch_axis: int = 0

    def __init__(self, input_size: int, channels: int, batch_first: bool) -> None:
        super().__init__()
        self.input_size = at_least("input_size", input_size, 1)
        self.channels = at_least("channels", channels, 1)
        self.batch_first = true_or_false("batch_first", batch_first)

    @abstractmethod
    def state_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return the shape of each part of the state of `batch_size` examples."""

    @abstractmethod
    def forward_sequence(
        self, steps: Tensor, state: tuple[Tensor, ...], stream: bool, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over [T, B, I]; return (output [T, B, M], state)."""

    @abstractmethod
    def forward_step(
        self, step: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one timestep on [B, I]; return (output [B, M], state)."""

    def forward(
        self,
        input: Tensor | PackedSequence,
        state: State | None = None,
        *,
        stream: bool = False,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """Run over a sequence, or over the next part of a stream.

        Args:
            input: [T, B, I]; [B, T, I] with batch_first; [T, I] for one example; or a
                PackedSequence.
            state: as returned by an earlier call; None for zeros.
            stream: False: the output at t belongs to the input at t, and `delay` further timesteps
                without input bring out the last ones. True: exactly T timesteps; the output at
                t belongs to the input at t − delay, which may be of an earlier call.
            lengths: [B], the number of timesteps of each example that count; later ones change
                nothing, and their outputs are zero. A compiled, exported or traced program cannot
                refuse lengths outside 1..T, and takes the nearest of these.

        Returns:
            The output, [T, B, M] in the form of the input, and the state just after the last
            input (of each example's own length). A later call continues from it: `layer(a)` and
            then `layer(b, state)` give for b the outputs of `layer(cat(a, b))`.

        Raises:
            ValueError: an argument's shape, type or value is none of these.
        """
        true_or_false("stream", stream)
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(
                    "lengths must not be given with a PackedSequence, which has its own"
                )
            return self._run_packed(input, state, stream)

        self._check_input(input, axes=2)
        batched = input.dim() == 3
        if lengths is not None and not batched:
            raise ValueError("lengths must not be given for one example [T, input_size]")
        if not batched:
            output, state = self._run(input.unsqueeze(1), state, False, stream, None)
            return output.squeeze(1), state
        steps = input.transpose(0, 1) if self.batch_first else input
        output, state = self._run(steps, state, True, stream, lengths)
        return (output.transpose(0, 1) if self.batch_first else output), state

    def step(self, input: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run one timestep, for real-time use; the same as a stream of one.

        Args:
            input: [B, I], or [I] for one example.
            state: as returned by an earlier call; None for zeros.

        Returns:
            The output for the input `delay` timesteps ago, [B, M] or [M], and the state.

        Raises:
            ValueError: an argument's shape or type is none of these.
        """
        self._check_input(input, axes=1)
        if input.dim() == 1:
            output, state = self._run(input.unsqueeze(0), state, False)
            return output.squeeze(0), state
        return self._run(input, state, True)

    def reset_forget_bias(self) -> None:
        """Set the biases of the forget gates to their initial value; an RNN has none."""

    def initial_state(self, batch_size: int) -> State:
        """Return the zero state of `batch_size` examples, of the weights' dtype and device."""
        weight = self.any_parameter()
        shape = self.state_shape(batch_size)
        return self._public(tuple(weight.new_zeros(shape) for _ in self.state_names))

    def to_file(
        self,
        path: str | Path,
        head: nn.Linear | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the layer to a safetensors file: its weights and its constructor's arguments.

        Args:
            path: the file; an existing one is replaced.
            head: stored with the layer; `tlstm.layers.serialization.read_head` reads it.
            about: further facts, in JSON's types; `read_about` reads them.

        Raises:
            OSError: the file cannot be written.
            ValueError: the file could not be read again: the layer is not what its constructor
                makes of its arguments, head is no linear layer, or JSON cannot hold about.
        """
        write_layer(Path(path), self, head, about)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load a layer from a file; nothing in the file is executed.

        Args:
            path: of a file that `to_file` or `python -m tlstm.export` wrote.
            device: of the weights.
            dtype: of the weights; None for the file's.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or holds no layer or one of another class.
        """
        found = read_layer(Path(path))
        if found.layer != cls.__name__:
            raise ValueError(
                f"{path} holds a {found.layer}, not a {cls.__name__}: "
                f"{found.layer}.from_file reads it"
            )
        dtype = dtype or found.dtype
        try:
            # Memory comes with the weights, whatever sizes the arguments say
            layer = cls(**found.arguments | {"device": "meta", "dtype": dtype})
            weights = {
                name: each.to(device, dtype if each.is_floating_point() else None)
                for name, each in found.weights.items()
            }
            layer.load_state_dict(weights, assign=True)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} does not make a {cls.__name__}: {error}") from error
        return layer

    def any_parameter(self) -> Tensor:
        """Return one of the weights; all have one dtype and device."""
        return next(self.parameters())

    # torch.compile leaves this to Python, as it does for torch.nn.LSTM
    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _run_packed(
        self, input: PackedSequence, state: State | None, stream: bool
    ) -> tuple[PackedSequence, State]:
        self._check_input(input.data, axes=1)
        steps, lengths = pad_packed_sequence(input)
        output, state = self._run(steps, state, True, stream, lengths)
        if input.sorted_indices is not None:
            output = output.index_select(1, input.sorted_indices)
        rows = [output[t, :size] for t, size in enumerate(input.batch_sizes.tolist())]
        return input._replace(data=torch.cat(rows)), state

    def _run(
        self,
        inputs: Tensor,
        state: State | None,
        batched: bool,
        stream: bool | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, State]:
        """Run over sequences [T, B, I], or over one timestep [B, I] if stream is None."""
        time, batch_size = inputs.shape[0], inputs.shape[-2]
        axis = self.state_batch_axis
        parts = self._read_state(state, batch_size, batched)
        if stream is not None and time == 0:
            raise ValueError("input must have at least one timestep, got none")
        if lengths is not None:
            lengths = _read_lengths(lengths, time, batch_size, inputs.device)
        empty = batch_size == 0
        if empty:  # one example of zeros takes part, and is left out of the result
            inputs, lengths = F.pad(inputs, (0, 0, 0, 1)), None
            more = parts[0].new_zeros(self.state_shape(1))
            parts = tuple(torch.cat([part, more], axis) for part in parts)
        if stream is None:
            output, parts = self.forward_step(inputs, parts)
        else:
            if lengths is not None:
                # Before any computation, so that not even NaN can reach a gradient
                inputs = inputs.masked_fill(padding_mask(lengths, time), 0)
            output, parts = self.forward_sequence(inputs, parts, stream, lengths)
        if empty:
            output = output.narrow(-2, 0, 0)
            parts = tuple(part.narrow(axis, 0, 0) for part in parts)
        dtype = self.any_parameter().dtype
        parts = tuple(part.to(dtype) for part in parts)
        return output, self._public(parts if batched else [part.squeeze(axis) for part in parts])

    def _check_input(self, input: Tensor, axes: int) -> None:
        """Refuse an input that has not these axes, and perhaps one of the examples."""
        if isinstance(input, torch.fx.Proxy):
            raise TypeError(
                f"torch.fx cannot trace a {type(self).__name__}; make it a leaf: trace with a "
                "torch.fx.Tracer whose is_leaf_module returns True for it"
            )
        self._check_tensor("input", input)
        if input.dim() not in (axes, axes + 1):
            raise ValueError(
                f"input must have {axes} or {axes + 1} dimensions, got shape {list(input.shape)}"
            )
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have {self.input_size} features (input_size) on its last axis, "
                f"got shape {list(input.shape)}"
            )

    def _check_tensor(self, name: str, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor, got {tensor!r}")
        weight = self.any_parameter()
        own, given = weight.dtype, tensor.dtype
        if given != own and not (
            torch.is_autocast_enabled(tensor.device.type)
            and given.is_floating_point
            and torch.float64 not in (own, given)  # autocast leaves these alone
        ):
            raise ValueError(f"{name} must be of the layer's dtype {own}, got {given}")
        if tensor.device != weight.device:
            raise ValueError(
                f"{name} must be on the layer's device {weight.device}, got {tensor.device}"
            )

    def _read_state(
        self, state: State | None, batch_size: int, batched: bool
    ) -> tuple[Tensor, ...]:
        """Return the parts of a state with an axis of the examples, in the weights' dtype."""
        if state is None:
            state = self.initial_state(batch_size)
            batched = True
        parts = (state,) if isinstance(state, Tensor) else state
        if not isinstance(parts, tuple | list) or len(parts) != len(self.state_names):
            names = ", ".join(self.state_names)
            got = f"{len(parts)} parts" if isinstance(parts, tuple | list) else repr(state)
            raise ValueError(f"state must be ({names}), got {got}")
        expected = list(self.state_shape(batch_size))
        if not batched:
            del expected[self.state_batch_axis]
        for name, part in zip(self.state_names, parts, strict=True):
            self._check_tensor(f"state {name}", part)
            if list(part.shape) != expected:
                raise ValueError(f"state {name} must have shape {expected}, got {list(part.shape)}")
        dtype = self.any_parameter().dtype
        parts = tuple(part.to(dtype) for part in parts)
        return parts if batched else tuple(part.unsqueeze(self.state_batch_axis) for part in parts)

    def _public(self, parts: Sequence[Tensor]) -> State:
        return tuple(parts) if len(self.state_names) > 1 else parts[0]

    def __prepare_scriptable__(self) -> None:
        """Refuse torch.jit.script, which asks for this."""
        raise NotImplementedError(
            f"torch.jit.script cannot compile a {type(self).__name__}; use torch.compile, "
            "torch.export or torch.jit.trace"
        )


def parameter_maker(
    device: torch.device | str | None, dtype: torch.dtype | None
) -> Callable[..., nn.Parameter]:
    """Return a function that allocates a parameter of a shape.

    Raises:
        ValueError: dtype is none for weights.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be one of floating-point numbers, got {dtype!r}")
    return lambda *shape: nn.Parameter(torch.empty(shape, device=device, dtype=dtype))


def padding_mask(lengths: Tensor, time: int) -> Tensor:
    """Return True where a timestep is beyond an example's length, [T, B, 1]."""
    return (torch.arange(time, device=lengths.device).unsqueeze(1) >= lengths).unsqueeze(-1)


def _read_lengths(
    lengths: Tensor | Sequence[int], time: int, batch_size: int, device: torch.device
) -> Tensor:
    message = f"lengths must be {batch_size} integers, one for each example"
    try:
        read = torch.as_tensor(lengths, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{message}, got {lengths!r}") from error
    if read.numel() == 0 and not isinstance(lengths, Tensor):
        read = read.long()  # of no numbers, torch makes floating-point ones
    whole = not (read.is_floating_point() or read.is_complex() or read.dtype == torch.bool)
    if read.shape != (batch_size,) or not whole:
        raise ValueError(f"{message}, got shape {list(read.shape)} of {read.dtype}")
    read = read.long()
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return read.clamp(1, time)  # a program knows no values of later calls
    if batch_size > 0 and (read.min() < 1 or read.max() > time):
        raise ValueError(f"lengths must be between 1 and {time} timesteps, got {read.tolist()}")
    return read
