"""The interface of torch.nn.LSTM: every form of a recurrent layer's input and state.

Dimension letters of this file:
    T       timesteps
    B       examples
    I       features of the input
    M       channels of the output
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tlstm.layers.serialization import read_layer, write_layer
from tlstm.utils import (
    at_least,
)

State = Tensor | tuple[Tensor, ...]


class RecurrentLayer(nn.Module, ABC):
    """A recurrent layer for whole sequences, streams and single timesteps.

    A subclass computes time-major batches. This class accepts every form of input of
    torch.nn.LSTM, checks it, and returns the result in the same form.

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
        self.batch_first = batch_first

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
                nothing, and their outputs are zero.

        Returns:
            The output, [T, B, M] in the form of the input, and the state just after the last
            input (of each example's own length). A later call continues from it: `layer(a)` and
            then `layer(b, state)` give for b the outputs of `layer(cat(a, b))`.

        Raises:
            ValueError: an argument's shape, type or value is none of these.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError(
                    "lengths must not be given with a PackedSequence, which has its own"
                )
            steps, own_lengths = pad_packed_sequence(input)
            output, state = self._run_batch(steps, state, stream, own_lengths)
            return _pack_like(output, input), state

        self._check_input(input, dimensions=(2, 3))
        if input.dim() == 2:
            if lengths is not None:
                raise ValueError("lengths must not be given for one example [T, input_size]")
            output, state = self._run_batch(
                input.unsqueeze(1), self._batch_of_one(state), stream, None
            )
            return output.squeeze(1), self._only_one(state)
        steps = input.transpose(0, 1) if self.batch_first else input
        output, state = self._run_batch(steps, state, stream, lengths)
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
        self._check_input(input, dimensions=(1, 2))
        if input.dim() == 1:
            output, state = self.step(input.unsqueeze(0), self._batch_of_one(state))
            return output.squeeze(0), self._only_one(state)
        output, parts = self.forward_step(input, self._read_state(state, input.shape[0]))
        return output, self._public(parts)

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
            ValueError: JSON cannot hold about.
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
        options = found.arguments | {"device": device, "dtype": dtype or found.dtype}
        try:
            layer = cls(**options)
            layer.load_state_dict(found.weights)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} does not make a {cls.__name__}: {error}") from error
        return layer

    def any_parameter(self) -> Tensor:
        """Return one of the weights; all have one dtype and device."""
        return next(self.parameters())

    def _run_batch(
        self,
        steps: Tensor,
        state: State | None,
        stream: bool,
        lengths: Tensor | Sequence[int] | None,
    ) -> tuple[Tensor, State]:
        self._check_input(steps, dimensions=(3,))
        time, batch_size = steps.shape[:2]
        if time == 0:
            raise ValueError("input must have at least one timestep, got none")
        if lengths is not None:
            lengths = _read_lengths(lengths, time, batch_size, steps.device)
            # Before any computation, so that not even NaN can reach a gradient
            steps = steps.masked_fill(padding_mask(lengths, time), 0)
        output, parts = self.forward_sequence(
            steps, self._read_state(state, batch_size), stream, lengths
        )
        return output, self._public(parts)

    def _check_input(self, input: Tensor, dimensions: tuple[int, ...]) -> None:
        forms = " or ".join(str(number) for number in dimensions)
        if input.dim() not in dimensions:
            raise ValueError(f"input must have {forms} dimensions, got shape {list(input.shape)}")
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have {self.input_size} features (input_size) on its last axis, "
                f"got shape {list(input.shape)}"
            )
        self._check_dtype("input", input)

    def _check_dtype(self, name: str, tensor: Tensor) -> None:
        dtype = self.any_parameter().dtype
        if tensor.dtype != dtype and not (
            tensor.is_floating_point() and torch.is_autocast_enabled(tensor.device.type)
        ):
            raise ValueError(f"{name} must be of the layer's dtype {dtype}, got {tensor.dtype}")

    def _read_state(self, state: State | None, batch_size: int) -> tuple[Tensor, ...]:
        if state is None:
            state = self.initial_state(batch_size)
        parts = (state,) if isinstance(state, Tensor) else tuple(state)
        if len(parts) != len(self.state_names):
            names = ", ".join(self.state_names)
            raise ValueError(f"state must be ({names}), got {len(parts)} tensor(s)")
        expected = self.state_shape(batch_size)
        for name, part in zip(self.state_names, parts, strict=True):
            if not isinstance(part, Tensor) or part.shape != expected:
                got = list(part.shape) if isinstance(part, Tensor) else part
                raise ValueError(f"state {name} must have shape {list(expected)}, got {got}")
            self._check_dtype(f"state {name}", part)
        return parts

    def _public(self, parts: tuple[Tensor, ...]) -> State:
        return parts if len(self.state_names) > 1 else parts[0]

    def _batch_of_one(self, state: State | None) -> State | None:
        if state is None:
            return None
        parts = (state,) if isinstance(state, Tensor) else state
        return tuple(part.unsqueeze(self.state_batch_axis) for part in parts)

    def _only_one(self, state: State) -> State:
        parts = (state,) if isinstance(state, Tensor) else state
        return self._public(tuple(part.squeeze(self.state_batch_axis) for part in parts))


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
    if read.shape != (batch_size,) or read.is_floating_point() or read.dtype == torch.bool:
        raise ValueError(f"{message}, got shape {list(read.shape)} of {read.dtype}")
    # Tracing does not know the values of later calls
    if not torch.compiler.is_compiling() and (read.min() < 1 or read.max() > time):
        raise ValueError(f"lengths must be between 1 and {time} timesteps, got {read.tolist()}")
    return read


def _pack_like(output: Tensor, packed: PackedSequence) -> PackedSequence:
    """Pack the output [T, B, M] in the order and with the lengths of the packed input."""
    if packed.sorted_indices is not None:
        output = output.index_select(1, packed.sorted_indices)
    rows = [output[t, :size] for t, size in enumerate(packed.batch_sizes.tolist())]
    return PackedSequence(
        torch.cat(rows), packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
    )
