"""Layers of every kind with generic weights, the forms of calling them, and how to compare.

A forward is any function of (module, inputs [T, B, input_size], state) that returns outputs
[T, B, M] and a state; `outcome` gives its values and gradients by name.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import oracle
from tlstm import TensorizedLSTM, TensorizedRNN

CHANNELS, INPUT_SIZE, BATCH_SIZE, TIMESTEPS = 3, 2, 2, 4
VALUE_TOLERANCE, GRADIENT_TOLERANCE = 1e-12, 1e-10

torch.set_num_threads(1)  # the tensors are so small that a second thread only waits

Module = TypeVar("Module", bound=nn.Module)
Result = tuple[Tensor, Any]
Forward = Callable[[Any, Tensor, Any], Result]


# Layers, inputs and states


def variant_id(options: oracle.Options) -> str:
    """Such as tLSTM-2D-P3-K3-CN; without-M where the memory cell is not convolved."""
    size = f"{options.rank}D-P{options.tensor_size}-K{options.kernel_size}"
    if not options.gated:
        return f"tRNN-{size}"
    memory = "" if options.memory_convolution else "-without-M"
    return (
        f"tLSTM-{size}{memory}"
        + {None: "", "channel": "-CN", "layer": "-LN"}[options.normalization]
    )


def make_layer(options: oracle.Options, channels: int = CHANNELS, **others: Any) -> Any:
    """A float64 layer of these options whose parameters, gains too, are all generic."""
    arguments = {
        "input_size": INPUT_SIZE,
        "channels": channels,
        "tensor_size": options.tensor_size,
        "rank": options.rank,
        "kernel_size": options.kernel_size,
        "dtype": torch.float64,
        **others,
    }
    if not options.gated:
        return randomize(TensorizedRNN(**arguments))
    return randomize(
        TensorizedLSTM(
            **arguments,
            memory_convolution=options.memory_convolution,
            normalization=options.normalization,
        )
    )


def randomize(module: Module, seed: int = 0) -> Module:
    """Normal parameters, scaled so that no activation saturates."""
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            fan_in = max(parameter[0].numel(), 1)
            parameter.copy_(random_tensor(*parameter.shape, seed=seed + number) * fan_in**-0.5)
    return module


def random_tensor(*shape: int, seed: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def random_inputs(timesteps: int = TIMESTEPS, batch_size: int = BATCH_SIZE) -> Tensor:
    return random_tensor(timesteps, batch_size, INPUT_SIZE, seed=11)


def random_state(module: Any, batch_size: int = BATCH_SIZE) -> Any:
    """A state as the module takes it: (h, c), or h alone."""
    zeros = module.initial_state(batch_size)
    parts = (
        random_tensor(*part.shape, seed=12 + number) for number, part in enumerate(as_tuple(zeros))
    )
    return like(zeros, parts)


def as_tuple(state: Any) -> tuple[Tensor, ...]:
    """(h, c), or (h,) of a state that is h alone."""
    return state if isinstance(state, tuple) else (state,)


def like(state: Any, parts: Iterable[Tensor]) -> Any:
    """The tensors in the form of this state: (h, c), or h alone."""
    parts = tuple(parts)
    return parts if isinstance(state, tuple) else parts[0]


def change_state(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return like(state, map(change, as_tuple(state)))


# Comparison


def numpy_parameters(module: nn.Module) -> dict[str, oracle.Array]:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def trace(
    layer: Any, options: oracle.Options, inputs: Tensor, state: Any, flush: int
) -> oracle.Trace:
    """The oracle's answer for this layer's parameters."""
    hidden, *cell = [part.numpy() for part in as_tuple(state)]
    memory = cell[0] if cell else None
    return oracle.run(numpy_parameters(layer), inputs.numpy(), options, hidden, memory, flush)


def outcome(module: nn.Module, forward: Forward, inputs: Tensor, state: Any) -> dict[str, Tensor]:
    """Outputs, last state and, for one generic loss of both, every gradient."""
    inputs = inputs.clone().requires_grad_()
    state = change_state(state, lambda part: part.clone().requires_grad_())
    output, last = forward(module, inputs, state)
    values = {"output": output, **state_names("state", last)}
    sources = {
        "input": inputs,
        **state_names("initial state", state),
        **dict(module.named_parameters()),
    }
    gradients = torch.autograd.grad(
        generic_loss(values.values()), list(sources.values()), materialize_grads=True
    )
    named = {f"gradient of {name}": g for name, g in zip(sources, gradients, strict=True)}
    return {name: tensor.detach() for name, tensor in (values | named).items()}


def state_names(prefix: str, state: Any) -> dict[str, Tensor]:
    return {f"{prefix} {name}": part for name, part in zip("hc", as_tuple(state), strict=False)}


def generic_loss(tensors: Iterable[Tensor]) -> Tensor:
    """A sum with fixed random weights, so that no gradient cancels."""
    terms = [
        (tensor * random_tensor(*tensor.shape, seed=100 + number).to(tensor.device)).sum()
        for number, tensor in enumerate(tensors)
    ]
    return torch.stack(terms).sum()


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to rounding, name by name."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = GRADIENT_TOLERANCE if name.startswith("gradient") else VALUE_TOLERANCE
        assert_close(actual[name], value, name, tolerance)


def assert_close(
    actual: Tensor | oracle.Array,
    expected: Tensor | oracle.Array,
    name: str = "value",
    tolerance: float = VALUE_TOLERANCE,
) -> None:
    actual, expected = (torch.as_tensor(value).detach() for value in (actual, expected))
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, msg=lambda text: f"{name}: {text}"
    )


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Equal within a root mean square error, name by name; zero where zero is expected."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        found = actual[name].to(value)
        error = float((found - value).norm())
        assert error <= tolerance * float(value.norm()), (
            f"{name}: root mean square error {error:.1e} of {float(value.norm()):.1e}"
        )


def relative_rms_error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the error, in units of the expected value's own."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


# Forms of a call on a whole sequence; each may need arguments of the layer's own


def whole(module: Any, inputs: Tensor, state: Any) -> Result:
    return module(inputs, state)


def row_by_row(module: Any, inputs: Tensor, state: Any, forward: Forward = whole) -> Result:
    """The examples as batches of one, joined."""
    return join_rows(module, [forward(module, *row) for row in rows(module, inputs, state)])


def rows(module: Any, inputs: Tensor, state: Any) -> Iterator[tuple[Tensor, Any]]:
    """Each example alone, as a batch of one: its inputs [T, 1, input_size] and its state."""
    parts = [part.split(1, dim=module.state_batch_axis) for part in as_tuple(state)]
    for row, *row_parts in zip(inputs.split(1, dim=1), *parts, strict=True):
        yield row, like(state, row_parts)


def join_rows(module: Any, results: Iterable[Result]) -> Result:
    """The outputs and states of batches of one, as those of one batch."""
    outputs, states = zip(*results, strict=True)
    parts = zip(*map(as_tuple, states), strict=True)
    joined = (torch.cat(part, dim=module.state_batch_axis) for part in parts)
    return torch.cat(outputs, dim=1), like(states[0], joined)


def unbatched(module: Any, inputs: Tensor, state: Any, forward: Forward = whole) -> Result:
    """The examples one by one, with no axis for them."""
    axis = module.state_batch_axis

    def alone(module: Any, inputs: Tensor, state: Any) -> Result:
        no_axis = change_state(state, lambda part: part.squeeze(axis))
        output, last = forward(module, inputs.squeeze(1), no_axis)
        return output.unsqueeze(1), change_state(last, lambda part: part.unsqueeze(axis))

    return row_by_row(module, inputs, state, alone)


def batch_first(module: Any, inputs: Tensor, state: Any) -> Result:
    output, last = module(inputs.transpose(0, 1).contiguous(), state)
    return output.transpose(0, 1), last


def padded(module: Any, inputs: Tensor, state: Any) -> Result:
    """With numbers after the end that must change nothing."""
    timesteps, batch_size, _ = inputs.shape
    longer = torch.cat([inputs, 1e3 * random_inputs(3, batch_size)])
    output, last = module(longer, state, lengths=[timesteps] * batch_size)
    assert len(output) == len(longer)
    assert not output[timesteps:].any()
    return output[:timesteps], last


def packed(module: Any, inputs: Tensor, state: Any) -> Result:
    output, last = module(pack_padded_sequence(inputs, [len(inputs)] * inputs.shape[1]), state)
    assert isinstance(output, PackedSequence)
    return pad_packed_sequence(output)[0], last


FORMS: dict[str, tuple[Forward, dict[str, Any]]] = {
    "batches of one": (row_by_row, {}),
    "unbatched": (unbatched, {}),
    "batch_first": (batch_first, {"batch_first": True}),
    "padded": (padded, {}),
    "packed": (packed, {}),
}


# Forms of a call on a stream: T timesteps, no more


def stream(module: Any, inputs: Tensor, state: Any) -> Result:
    return module(inputs, state, stream=True)


def step_by_step(module: Any, inputs: Tensor, state: Any) -> Result:
    outputs = []
    for input_t in inputs:
        output_t, state = module.step(input_t, state)
        outputs.append(output_t)
    return torch.stack(outputs), state


def in_chunks(module: Any, inputs: Tensor, state: Any) -> Result:
    outputs = []
    for chunk in inputs.split([1, 2, len(inputs) - 3]):
        output, state = module(chunk, state, stream=True)
        outputs.append(output)
    return torch.cat(outputs), state


def unbatched_stream(module: Any, inputs: Tensor, state: Any) -> Result:
    return unbatched(module, inputs, state, stream)


def unbatched_steps(module: Any, inputs: Tensor, state: Any) -> Result:
    return unbatched(module, inputs, state, step_by_step)


STREAM_FORMS = [stream, in_chunks, unbatched_stream, unbatched_steps]


# Forms of a call on examples of different length

LENGTHS = [2, 4, 1]


def alone(module: Any, inputs: Tensor, state: Any) -> Result:
    """Every example with nothing after its own end, and zeros for the outputs there."""
    results = []
    for (row, row_state), length in zip(rows(module, inputs, state), LENGTHS, strict=True):
        output, last = module(row[:length], row_state)
        results.append((torch.cat([output, output.new_zeros(4 - length, 1, CHANNELS)]), last))
    return join_rows(module, results)


def with_list(module: Any, inputs: Tensor, state: Any) -> Result:
    return module(inputs, state, lengths=LENGTHS)


def with_tensor(module: Any, inputs: Tensor, state: Any) -> Result:
    output, last = module(inputs.transpose(0, 1), state, lengths=torch.tensor(LENGTHS))
    return output.transpose(0, 1), last


def packed_unsorted(module: Any, inputs: Tensor, state: Any) -> Result:
    sequence: Any = pack_padded_sequence(inputs, LENGTHS, enforce_sorted=False)
    output, last = module(sequence, state)
    assert torch.equal(output.unsorted_indices, sequence.unsorted_indices)
    return pad_packed_sequence(output)[0], last


def packed_sorted(module: Any, inputs: Tensor, state: Any) -> Result:
    lengths, order = torch.tensor(LENGTHS).sort(descending=True)
    back, axis = order.argsort(), module.state_batch_axis
    output, last = module(
        pack_padded_sequence(inputs[:, order], lengths),
        change_state(state, lambda part: part.index_select(axis, order)),
    )
    last = change_state(last, lambda part: part.index_select(axis, back))
    return pad_packed_sequence(output)[0][:, back], last


LENGTH_FORMS: dict[str, tuple[Forward, dict[str, Any]]] = {
    "list": (with_list, {}),
    "tensor": (with_tensor, {"batch_first": True}),
    "packed unsorted": (packed_unsorted, {}),
    "packed sorted": (packed_sorted, {}),
}


# Batches without examples, and what a program does with lengths that it cannot refuse


def no_examples(module: Any, inputs: Tensor, state: Any) -> Iterator[Result]:
    """Every form of a call."""
    yield module(inputs, state)
    yield module(inputs)
    yield module(inputs, state, stream=True)
    for lengths in ([], torch.zeros(0, dtype=torch.int64)):
        yield module(inputs, state, lengths=lengths)
    packed = PackedSequence(inputs[0], torch.zeros(len(inputs), dtype=torch.int64))
    output, last = module(packed, state)
    assert output.data.shape == (0, CHANNELS)
    yield pad_packed_sequence(output)[0], last
    output, last = module.step(inputs[0], state)
    yield output.expand(len(inputs), 0, CHANNELS), last


def assert_no_examples(module: Any) -> None:
    """As torch.nn.LSTM: nothing comes out, and the gradients are zero."""
    weight = module.any_parameter()
    inputs = weight.new_zeros(4, 0, INPUT_SIZE).requires_grad_()
    state = change_state(module.initial_state(0), Tensor.requires_grad_)
    for output, last in no_examples(module, inputs, state):
        assert output.shape == (4, 0, CHANNELS)
        parts = as_tuple(last)
        assert [part.shape for part in parts] == [part.shape for part in as_tuple(state)]
        loss = torch.stack([part.sum() for part in (output, *parts)]).sum()
        sources = [inputs, *module.parameters()]
        gradients = torch.autograd.grad(loss, sources, materialize_grads=True)
        assert not any(gradient.any() for gradient in gradients)


def assert_lengths_of_a_program(layer: Any, projected: Tensor, state: Any) -> None:
    """The operator itself, where nobody has checked the lengths, returns no memory of others."""
    parts = as_tuple(state)
    lengths = torch.tensor([0, len(projected) + 1])
    with torch.no_grad():
        _, last = layer._fused(projected.to(parts[0]), parts, lengths, 0, layer.implementation)
    for part, first in zip(last, parts, strict=True):
        assert torch.equal(part, first)
