"""Every form of a call is one computation, for layers of every kind."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import variants
from oracle import Options
from tlstm.layers.grid_lstm import GridLSTM
from tlstm.layers.stacked import StackedLSTM, StackedRNN
from variants import (
    CHANNELS,
    FORMS,
    INPUT_SIZE,
    LENGTH_FORMS,
    assert_same,
    outcome,
    random_inputs,
    random_state,
    randomize,
)

TENSORIZED = [
    Options(2, 3, 3, gated=False),
    Options(2, 1, 5),
    Options(2, 3, 4, memory_convolution=False),
    Options(3, 3, 3, normalization="channel"),
    Options(3, 2, 3, memory_convolution=False, normalization="layer"),
    Options(4, 2, 2, normalization="channel"),
]


def comparator(kind: Any, depth: int, shared: bool, **arguments: Any) -> Any:
    layer = kind(INPUT_SIZE, CHANNELS, depth, shared, dtype=torch.float64, **arguments)
    return randomize(layer)


LAYERS: dict[str, Callable[..., Any]] = {
    **{
        f"{variants.variant_id(options)}-{name}": partial(
            variants.make_layer, options, implementation=name
        )
        for options in TENSORIZED
        for name in ("autograd", "pytorch")
    },
    **{
        f"{kind.__name__}-L{depth}-{'shared' if shared else 'distinct'}": partial(
            comparator, kind, depth, shared
        )
        for kind in (StackedLSTM, StackedRNN, GridLSTM)
        for depth, shared in ((1, True), (3, True), (3, False))
    },
}
for_each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


@pytest.mark.parametrize("form", FORMS)
@for_each_layer
def test_every_form_of_a_call_is_one_computation(make: Callable[..., Any], form: str) -> None:
    forward, arguments = FORMS[form]
    inputs, layer = random_inputs(), make()
    state = random_state(layer)
    expected = outcome(layer, variants.whole, inputs, state)
    assert_same(outcome(make(**arguments), forward, inputs, state), expected)


@pytest.mark.parametrize("form", LENGTH_FORMS)
@for_each_layer
def test_every_example_is_read_up_to_its_length(make: Callable[..., Any], form: str) -> None:
    forward, arguments = LENGTH_FORMS[form]
    inputs, layer = random_inputs(batch_size=3), make()
    state = random_state(layer, 3)
    expected = outcome(layer, variants.alone, inputs, state)
    assert_same(outcome(make(**arguments), forward, inputs, state), expected)


@for_each_layer
def test_the_initial_state_is_zero(make: Callable[..., Any]) -> None:
    layer, inputs = make(), random_inputs()
    zeros = layer.initial_state(variants.BATCH_SIZE)
    assert not any(part.any() for part in variants.as_tuple(zeros))
    assert torch.equal(layer(inputs)[0], layer(inputs, zeros)[0])
    assert torch.equal(layer.step(inputs[0])[0], layer.step(inputs[0], zeros)[0])


@for_each_layer
def test_a_batch_without_examples(make: Callable[..., Any]) -> None:
    variants.assert_no_examples(make())


@for_each_layer
def test_calls_follow_one_another_under_autocast(make: Callable[..., Any]) -> None:
    """The state is float32 after each; a step is a stream of one, bit by bit."""
    layer = make().float()
    inputs, state = random_inputs().float(), None
    with torch.autocast("cpu", torch.bfloat16):
        for call in (layer, layer.step, partial(layer, stream=True), layer.step, layer):
            _, state = call(inputs[0] if call == layer.step else inputs, state)
            assert {part.dtype for part in variants.as_tuple(state)} == {torch.float32}
        for context in (torch.no_grad, torch.enable_grad):
            with context():
                output, last = layer(inputs[:1], state, stream=True)
                stepped, end = layer.step(inputs[0], state)
        if not isinstance(layer, StackedLSTM | StackedRNN | GridLSTM):  # have kernels of torch
            found, expected = (variants.as_tuple(each) for each in (end, last))
            assert all(map(torch.equal, (stepped, *found), (output[0], *expected)))
        narrow = variants.change_state(state, lambda part: part.bfloat16())
        layer.step(inputs[0], narrow)
    layer(inputs, state)
