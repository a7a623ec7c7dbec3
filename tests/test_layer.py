"""The layers over sequences: values and gradients, every form of a call, delay and causality."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call

import variants
from oracle import Options
from variants import (
    BATCH_SIZE,
    CHANNELS,
    LENGTHS,
    STREAM_FORMS,
    TIMESTEPS,
    Forward,
    Result,
    as_tuple,
    assert_close,
    assert_same,
    make_layer,
    outcome,
    random_inputs,
    random_state,
    random_tensor,
)

SHAPES = [
    *[(2, size, kernel) for size in (1, 2, 3, 4) for kernel in (2, 3, 4, 5)],
    *[(3, size, kernel) for size, kernel in ((1, 3), (2, 2), (3, 3), (3, 4), (2, 5))],
    *[(4, size, kernel) for size, kernel in ((2, 3), (3, 2))],
    (5, 2, 2),
]
KINDS = [(memory, norm) for memory in (True, False) for norm in (None, "channel", "layer")]
# Gated or not (the tRNN is first), memory convolution, normalization
EVERY_KIND: list[tuple[bool, bool, Any]] = [
    (False, False, None),
    *[(True, *kind) for kind in KINDS],
]
ALL = [Options(*shape, *kind) for shape in SHAPES for kind in EVERY_KIND]
SOME = [
    Options(2, 3, 3, gated=False),
    Options(3, 2, 3, gated=False),
    Options(2, 1, 5),
    Options(2, 4, 3),
    Options(2, 3, 2),
    Options(2, 3, 4, memory_convolution=False),
    Options(3, 3, 3, normalization="channel"),
    Options(3, 2, 3, memory_convolution=False, normalization="layer"),
    Options(4, 2, 2, normalization="channel"),
]


@pytest.fixture(autouse=True, scope="module", params=["autograd", "pytorch"])
def implementation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything below holds for the cell step by step and for the whole sequence at once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TLSTM_IMPLEMENTATION", request.param)
        yield


def for_each(options: list[Options]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", options, ids=variants.variant_id)


@for_each(ALL)
def test_equals_the_oracle(options: Options) -> None:
    layer = make_layer(options)
    inputs, state = random_inputs(), random_state(layer)
    expected = variants.trace(layer, options, inputs, state, flush=layer.delay)
    states = [expected.hiddens, expected.cells] if options.gated else [expected.hiddens]
    for stream, corners in ((False, expected.corners[layer.delay :]), (True, expected.corners)):
        output, last = layer(inputs, state, stream=stream)
        assert_close(output, corners[:TIMESTEPS], f"output, stream={stream}")
        for part, steps in zip(as_tuple(last), states, strict=True):
            assert_close(part, steps[TIMESTEPS - 1], f"state, stream={stream}")


def derivatives_are_right(options: Options, channels: int, fast_mode: bool) -> bool:
    """Check outputs and states by input, initial state and every parameter, as one vector."""
    layer = make_layer(options, channels=channels)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    inputs, state = random_inputs(2, 1), random_state(layer, 1)
    sources = [part.detach() for part in (inputs, *as_tuple(state), *parameters)]

    def call(vector: Tensor) -> Tensor:
        parts = vector.split([source.numel() for source in sources])
        shaped = [part.reshape(source.shape) for part, source in zip(parts, sources, strict=True)]
        weights = dict(zip(names, shaped[-len(names) :], strict=True))
        begin = variants.like(state, shaped[1 : -len(names)])
        output, last = functional_call(layer, weights, (shaped[0], begin))
        return torch.cat([part.flatten() for part in (output, *as_tuple(last))])

    vector = torch.cat([source.flatten() for source in sources]).requires_grad_()
    return torch.autograd.gradcheck(call, vector, rtol=1e-5, atol=1e-7, fast_mode=fast_mode)


@for_each(ALL)
def test_the_gradients_along_a_random_direction(options: Options) -> None:
    assert derivatives_are_right(options, CHANNELS, fast_mode=True)


@for_each([Options(2, 2, 3, *kind) for kind in EVERY_KIND])
def test_every_gradient(options: Options) -> None:
    assert derivatives_are_right(options, 3 if options.normalization else 2, fast_mode=False)


@for_each(SOME[:1] + SOME[-1:])
def test_what_follows_an_example_need_not_even_be_numbers(options: Options) -> None:
    layer = make_layer(options)
    inputs, state = random_inputs(batch_size=3), random_state(layer, 3)

    def with_nothing(layer: Any, inputs: Tensor, state: Any) -> Result:
        after = torch.arange(TIMESTEPS)[:, None, None] >= torch.tensor(LENGTHS)[:, None]
        return layer(inputs.masked_fill(after, float("nan")), state, lengths=LENGTHS)

    expected = outcome(layer, variants.with_list, inputs, state)
    assert_same(outcome(layer, with_nothing, inputs, state), expected)


@for_each(SOME)
def test_a_stream_reads_every_example_up_to_its_length(options: Options) -> None:
    layer = make_layer(options)
    inputs, state = random_inputs(batch_size=3), random_state(layer, 3)
    output, last = layer(inputs, state, stream=True, lengths=LENGTHS)
    for b, (row, row_state) in enumerate(variants.rows(layer, inputs, state)):
        expected, end = layer(row[: LENGTHS[b]], row_state, stream=True)
        assert_close(output[: LENGTHS[b], b : b + 1], expected)
        assert not output[LENGTHS[b] :, b].any()
        for part, expected in zip(as_tuple(last), as_tuple(end), strict=True):
            assert_close(part[b : b + 1], expected)


@pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.__name__)
@for_each(SOME)
def test_a_stream_is_the_whole_sequence_delayed(options: Options, form: Forward) -> None:
    layer = make_layer(options)
    inputs, state = random_inputs(6), random_state(layer)

    def first_outputs(layer: Any, inputs: Tensor, state: Any) -> Result:
        output, last = layer(inputs, state)
        return output[: len(inputs) - layer.delay], last

    def delayed_outputs(layer: Any, inputs: Tensor, state: Any) -> Result:
        output, last = form(layer, inputs, state)
        return output[layer.delay :], last

    expected = outcome(layer, first_outputs, inputs, state)
    assert_same(outcome(layer, delayed_outputs, inputs, state), expected)


@for_each(SOME)
def test_a_sequence_can_be_split_anywhere(options: Options) -> None:
    layer = make_layer(options)
    inputs, state = random_inputs(6), random_state(layer)

    def at_once(layer: Any, inputs: Tensor, state: Any) -> Result:
        output, last = layer(inputs, state)
        return output[4:], last

    def in_parts(layer: Any, inputs: Tensor, state: Any) -> Result:
        _, state = layer(inputs[:1], state)
        _, state = layer(inputs[1:3], state, stream=True)
        _, state = layer.step(inputs[3], state)
        return layer(inputs[4:], state)

    expected = outcome(layer, at_once, inputs, state)
    assert_same(outcome(layer, in_parts, inputs, state), expected)


@for_each(SOME)
def test_a_call_leaves_what_it_was_given_and_what_it_gave_before(options: Options) -> None:
    layer = make_layer(options)
    inputs, state = random_inputs(), random_state(layer)
    given = [part.clone() for part in (inputs, *as_tuple(state))]
    output, last = layer(inputs, state)
    kept = [part.clone() for part in (output, *as_tuple(last))]
    layer(2 * inputs, last)
    layer.step(inputs[0], last)
    assert all(map(torch.equal, given, (inputs, *as_tuple(state))))
    assert all(map(torch.equal, kept, (output, *as_tuple(last))))


def dependence(options: Options, timesteps: int) -> list[list[bool]]:
    """Return True in row t, column s, where y_t has a derivative by x_s."""
    inputs = random_inputs(timesteps, 1).requires_grad_()
    output, _ = make_layer(options)(inputs)
    gradients = [
        torch.autograd.grad(variants.generic_loss([y_t]), inputs, retain_graph=True)[0]
        for y_t in output
    ]
    return [[bool(x_s.any()) for x_s in gradient] for gradient in gradients]


@settings(max_examples=60, derandomize=True)
@given(
    size=st.integers(1, 7),
    kernel=st.integers(2, 6),
    kind=st.sampled_from(
        [(False, False, None), *[(True, *kind) for kind in KINDS[:2] + KINDS[3:5]]]
    ),
)
@example(size=7, kernel=2, kind=(True, True, None))
@example(size=7, kernel=4, kind=(True, True, "channel"))
def test_an_output_sees_every_input_so_far_and_none_later(
    size: int, kernel: int, kind: tuple[bool, bool, Any]
) -> None:
    ranks = (2, 3, 4) if size * kernel <= 6 else (2, 3) if size * kernel <= 12 else (2,)
    for rank in ranks:
        options = Options(rank, size, kernel, *kind)
        expected = [[s <= t for s in range(4)] for t in range(4)]
        assert dependence(options, 4) == expected, variants.variant_id(options)


@for_each([Options(2, size, kernel, normalization="layer") for size, kernel in ((3, 3), (5, 4))])
def test_layer_normalization_sees_every_input_in_the_tensor(options: Options) -> None:
    """Its mean and variance are over all locations, so y_t depends on x up to t + L − 1."""
    expected = [[s <= t + options.depth - 1 for s in range(6)] for t in range(6)]
    assert dependence(options, 6) == expected


BORDERS = [Options(2, 3, 3), Options(2, 4, 5), Options(3, 3, 2), Options(3, 2, 4)]


def keeping_layer(options: Options) -> Any:
    """Input gates closed, forget gates open: C_t is the convolved C_{t−1}."""
    layer = make_layer(options)
    with torch.no_grad():
        layer.bias_hidden[CHANNELS : 2 * CHANNELS] = -1e4
        layer.bias_hidden[2 * CHANNELS : 3 * CHANNELS] = 1e4
    return layer


@for_each(BORDERS)
def test_what_is_stored_is_not_flushed_out_over_the_border(options: Options) -> None:
    """A constant cell stays for as long as one likes; zeros beyond the border would drain it."""
    layer = keeping_layer(options)
    hidden, cell = random_state(layer)
    constant = random_tensor(BATCH_SIZE, *[1] * options.axes, CHANNELS).expand_as(cell)
    with torch.no_grad():
        _, (_, last) = layer(random_inputs(100), (hidden, constant))
    assert_close(last, constant)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float16, 3e-3), (torch.bfloat16, 3e-2)],
    ids=["float32", "float16", "bfloat16"],
)
@for_each(SOME)
def test_other_dtypes_agree_with_float64(
    options: Options, dtype: torch.dtype, tolerance: float
) -> None:
    layer = make_layer(options).to(dtype)  # rounds the weights, inputs and state before both
    inputs = random_inputs().to(dtype)
    state = variants.change_state(random_state(layer), lambda part: part.to(dtype))
    actual = outcome(layer, variants.whole, inputs, state)
    wide = variants.change_state(state, torch.Tensor.double)
    expected = outcome(layer.double(), variants.whole, inputs.double(), wide)
    assert all(value.dtype == dtype for value in actual.values())
    for gradients in (False, True):
        error = variants.relative_rms_error(*(joined(it, gradients) for it in (actual, expected)))
        assert error < tolerance, f"gradients={gradients}"


def joined(outcome: dict[str, Tensor], gradients: bool) -> Tensor:
    """All values, or all gradients, as one vector."""
    chosen = [name for name in outcome if name.startswith("gradient") == gradients]
    return torch.cat([outcome[name].double().flatten() for name in chosen])
