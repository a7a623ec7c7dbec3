"""The layers' parameters, initial values and copies, and the arguments that they refuse."""

import copy
import math
import pickle
import re
from collections.abc import Iterator
from inspect import signature
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import variants
from oracle import Options
from tlstm import TensorizedLSTM, TensorizedRNN
from tlstm.layers.grid_lstm import GridLSTM
from tlstm.layers.stacked import StackedLSTM, StackedRNN
from tlstm.training.network import SequenceNetwork

# Section 3 of paper.md: 205 characters in and out

SYMBOLS = 205
NO_CONVOLUTION: dict[str, Any] = {"memory_convolution": False}
TENSORIZED: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "3D tLSTM+CN, L=6": (52_521_814, 1200, 6, {"rank": 3, "normalization": "channel"}),
    "2D tLSTM-F": (10_504_687, 1120, 4, {"kernel_size": 2}),
    "2D tLSTM": (10_123_844, 901, 4, {}),
    "2D tLSTM-M": (10_115_732, 901, 4, NO_CONVOLUTION),
    "3D tLSTM": (10_068_550, 522, 4, {"rank": 3}),
}


def number_of_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def number_with_head(core: Any) -> int:
    return number_of_parameters(SequenceNetwork(core, SYMBOLS).to("meta"))


@pytest.mark.parametrize("name", TENSORIZED)
def test_the_published_number_of_parameters(name: str) -> None:
    number, channels, size, options = TENSORIZED[name]
    core = TensorizedLSTM(SYMBOLS, channels, size, **options, device="meta")
    assert number_with_head(core) == number


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_published_number_of_parameters_of_the_stack(depth: int) -> None:
    core = StackedLSTM(SYMBOLS, 1120, depth, device="meta")
    assert number_with_head(core) == 10_500_205


@pytest.mark.parametrize("name", [name for name in TENSORIZED if "CN" not in name])
def test_the_number_of_parameters_does_not_depend_on_the_depth(name: str) -> None:
    number, channels, _, options = TENSORIZED[name]
    for size in (1, 2, 7):
        core = TensorizedLSTM(SYMBOLS, channels, size, **options, device="meta")
        assert number_with_head(core) == number


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_only_channel_normalization_adds_parameters_with_the_depth(rank: int, size: int) -> None:
    def added(kind: Any) -> int:
        layers = [
            TensorizedLSTM(2, 7, size, rank=rank, normalization=chosen, device="meta")
            for chosen in (kind, None)
        ]
        return number_of_parameters(layers[0]) - number_of_parameters(layers[1])

    assert added("channel") == 2 * 7 * size ** (rank - 1)
    assert added("layer") == 2 * 7


# Initial values

INPUT_SIZE, CHANNELS = 11, 23


def make_every_module() -> dict[str, Any]:
    """One of each kind, large enough for a look at how its parameters are distributed."""
    torch.manual_seed(0)  # what is seen of a distribution does not change from run to run
    size = (INPUT_SIZE, CHANNELS, 3)
    return {
        "tRNN": TensorizedRNN(*size),
        "3D tLSTM+CN": TensorizedLSTM(*size, rank=3, normalization="channel", forget_bias=4),
        "2D tLSTM-M+LN": TensorizedLSTM(*size, normalization="layer", **NO_CONVOLUTION),
        "sRNN": StackedRNN(*size),
        "sLSTM": StackedLSTM(*size, shared=False, forget_bias=4),
    }


for_every_module = pytest.mark.parametrize("name", list(make_every_module()))


def assert_uniform(values: torch.Tensor, bound: float) -> None:
    """Within the bound, reaching near it on both sides, and spread evenly."""
    assert values.abs().max() <= bound
    assert values.max() > 0.5 * bound
    assert values.min() < -0.5 * bound
    if values.numel() > 1000:
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@for_every_module
def test_the_weights_start_uniform_within_the_inverse_root_of_fan_in(name: str) -> None:
    module = make_every_module()[name]
    assert_uniform(module.weight_input, INPUT_SIZE**-0.5)
    assert_uniform(module.bias_input, INPUT_SIZE**-0.5)
    if isinstance(module, StackedRNN | StackedLSTM):
        for parameter in (module.weight_ih, module.weight_hh):
            assert_uniform(parameter, (2 * CHANNELS) ** -0.5)
    else:
        assert_uniform(module.weight_hidden, prod(module.weight_hidden.shape[1:]) ** -0.5)


@pytest.mark.parametrize("forget_bias", [1, 4])
def test_the_forget_gate_starts_with_its_bias_and_no_other_does(forget_bias: float) -> None:
    torch.manual_seed(0)
    layer = TensorizedLSTM(INPUT_SIZE, CHANNELS, 3, rank=3, forget_bias=forget_bias)
    forget = layer.bias_hidden[2 * CHANNELS : 3 * CHANNELS]
    others = torch.cat([layer.bias_hidden[: 2 * CHANNELS], layer.bias_hidden[3 * CHANNELS :]])
    assert (forget == forget_bias).all()
    assert_uniform(others, prod(layer.weight_hidden.shape[1:]) ** -0.5)

    stack = StackedLSTM(INPUT_SIZE, CHANNELS, 3, shared=False, forget_bias=forget_bias)
    i, f, g, o = stack.bias.chunk(4, dim=1)
    assert (f == forget_bias).all()
    assert_uniform(torch.cat([i, g, o]), (2 * CHANNELS) ** -0.5)


@pytest.mark.parametrize(("kind", "shape"), [("channel", (3, 3, CHANNELS)), ("layer", (CHANNELS,))])
def test_the_normalization_starts_with_no_effect(kind: Any, shape: tuple[int, ...]) -> None:
    layer = TensorizedLSTM(INPUT_SIZE, CHANNELS, 3, rank=3, normalization=kind)
    assert torch.equal(layer.normalization_gain, torch.ones(shape))
    assert torch.equal(layer.normalization_bias, torch.zeros(shape))


@for_every_module
def test_a_seed_makes_the_same_parameters_again(name: str) -> None:
    one, other = make_every_module()[name], make_every_module()[name]
    for module, seed in ((one, 1), (other, 2)):
        variants.randomize(module, seed)
        torch.manual_seed(3)
        module.reset_parameters()
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# Copies


@for_every_module
def test_a_copy_computes_the_same(name: str) -> None:
    module = make_every_module()[name]
    loaded = make_every_module()[name]
    loaded.load_state_dict(module.state_dict())
    inputs = torch.randn(4, 2, INPUT_SIZE)
    expected, _ = module(inputs)
    for other in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(inputs)[0], expected)
        assert repr(other) == repr(module)


def test_a_state_dict_says_what_it_holds() -> None:
    layer = TensorizedLSTM(2, 3, 4, rank=3, kernel_size=5, normalization="channel")
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight_input": (3, 2),
        "bias_input": (3,),
        "weight_hidden": (4 * 3 + 25, 3, 5, 5),
        "bias_hidden": (4 * 3 + 25,),
        "normalization_gain": (4, 4, 3),
        "normalization_bias": (4, 4, 3),
    }


def test_printing_tells_the_options() -> None:
    layer = TensorizedLSTM(5, 7, 6, rank=3, kernel_size=4, normalization="channel", forget_bias=4.0)
    told = repr(layer)
    for part in ("TensorizedLSTM(5, 7", "tensor_size=6", "rank=3", "kernel_size=4"):
        assert part in told
    for part in ("memory_convolution=True", "normalization='channel'", "forget_bias=4.0"):
        assert part in told
    assert "depth=6, shared=False" in repr(StackedLSTM(5, 7, 6, shared=False))
    assert "tensor_size=6" in repr(TensorizedRNN(5, 7, 6))


@pytest.mark.parametrize("implementation", ["autograd", "pytorch", "triton", None])
def test_printing_never_fails(implementation: Any) -> None:
    layer = TensorizedLSTM(5, 7, 6, implementation=implementation)
    expected = f"implementation='{implementation or 'pytorch'}'"
    assert expected in repr(layer)
    seen: list[str] = []

    def loss(number: torch.Tensor) -> torch.Tensor:
        seen.append(repr(layer))
        return number.sum()

    torch.func.grad(loss)(torch.ones(2))
    torch.func.vmap(loss)(torch.ones(2))
    assert len(seen) == 2
    if implementation is not None:
        assert all(expected in told for told in seen)


# Refused arguments: the message names the argument, its value and its range


SIZES_THAT_CANNOT_BE = [0, -1, 2.0, 1.5, True, np.True_, None, "3", (3, 3), [3]]
KINDS: dict[Any, dict[str, list[Any]]] = {  # what each argument cannot be
    TensorizedRNN: {"tensor_size": [], "rank": [1, 33, 10**9], "kernel_size": [1]},
    TensorizedLSTM: {"tensor_size": [], "rank": [1, 33, 10**9], "kernel_size": [1]},
    StackedRNN: {"depth": []},
    StackedLSTM: {"depth": []},
    GridLSTM: {"depth": []},
}
NOT_FLAGS, NOT_NUMBERS = ["no", None, 1, np.True_], ["big", None, True, math.inf, math.nan, [1]]


def refused_arguments() -> Iterator[tuple[Any, str, Any]]:
    for kind, own in KINDS.items():
        sizes = {"input_size": [], "channels": [], **own}
        values = {name: SIZES_THAT_CANNOT_BE + further for name, further in sizes.items()}
        values |= dict.fromkeys(("batch_first", "shared", "memory_convolution"), NOT_FLAGS)
        values |= {"forget_bias": NOT_NUMBERS, "dtype": [torch.int64, torch.complex64, "float32"]}
        values |= {"normalization": ["batch", "CN", "", True], "implementation": ["", 1]}
        for argument in values.keys() & signature(kind).parameters.keys():
            yield from ((kind, argument, value) for value in values[argument])


def test_what_cannot_be_is_refused_by_name() -> None:
    for kind, argument, value in refused_arguments():
        size = "depth" if "depth" in KINDS[kind] else "tensor_size"
        arguments = {"input_size": 2, "channels": 3, size: 2, argument: value}
        with pytest.raises(ValueError, match=rf"{argument} .*{re.escape(repr(value))}"):
            kind(**arguments)


def test_numbers_of_numpy_are_numbers() -> None:
    layer = TensorizedLSTM(np.int64(2), np.int32(3), np.uint8(2), forget_bias=np.float32(4))
    assert (layer.channels, layer.forget_bias) == (3, 4.0)
    assert type(layer.forget_bias) is float


def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


BAD_INPUTS = {
    "none": (None, "input .*None"),
    "a list": ([[[0.0, 0.0]]], "input .*tensor"),
    "an array": (np.zeros((4, 2, 2)), "input .*tensor"),
    "another device": (zeros(4, 2, 2).to("meta"), "input .*cpu.*meta"),
    "no axis": (zeros(), r"input .*\[\]"),
    "one axis": (zeros(2), r"input .*\[2\]"),
    "four axes": (zeros(4, 2, 2, 2), r"input .*\[4, 2, 2, 2\]"),
    "other features": (zeros(4, 2, 5), r"input .*\b2\b.*\[4, 2, 5\]"),
    "integers": (zeros(4, 2, 2, dtype=torch.int64), r"input .*float64.*int64"),
    "other precision": (zeros(4, 2, 2, dtype=torch.float32), r"input .*float64.*float32"),
    "no timestep": (zeros(0, 2, 2), r"input .*timestep"),
    "no timestep, unbatched": (zeros(0, 2), r"input .*timestep"),
    "packed features": (pack_padded_sequence(zeros(4, 2, 5), [4, 2]), r"input .*\b2\b.*5"),
}
for_three_kinds = pytest.mark.parametrize("kind", ["tLSTM", "tRNN", "sLSTM"])


def make_kind(kind: str) -> Any:
    if kind == "sLSTM":
        return StackedLSTM(2, 3, 2, dtype=torch.float64)
    return variants.make_layer(Options(2, 2, 3, gated=kind == "tLSTM"))


@for_three_kinds
@pytest.mark.parametrize("case", BAD_INPUTS)
def test_an_input_that_cannot_be(kind: str, case: str) -> None:
    inputs, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        make_kind(kind)(inputs)


@for_three_kinds
@pytest.mark.parametrize("case", ["none", "a list", "no axis", "four axes", "integers"])
def test_an_input_of_a_step_that_cannot_be(kind: str, case: str) -> None:
    with pytest.raises(ValueError, match=r"input "):
        make_kind(kind).step(BAD_INPUTS[case][0])


def as_state(layer: Any, *shape: int, dtype: torch.dtype = torch.float64) -> Any:
    return variants.change_state(layer.initial_state(1), lambda part: zeros(*shape, dtype=dtype))


@for_three_kinds
@pytest.mark.parametrize(
    "shape", [(3, 2, 3), (2, 3, 3), (2, 2, 4), (2, 3), (1, 2, 2, 3)], ids=lambda shape: str(shape)
)
def test_a_state_of_another_shape(kind: str, shape: tuple[int, ...]) -> None:
    layer = make_kind(kind)
    message = rf"state.*\[2, 2, 3\].*{re.escape(str(list(shape)))}"
    with pytest.raises(ValueError, match=message):
        layer(zeros(4, 2, 2), as_state(layer, *shape))
    with pytest.raises(ValueError, match=message):
        layer.step(zeros(2, 2), as_state(layer, *shape))


@for_three_kinds
def test_a_state_of_another_dtype(kind: str) -> None:
    layer = make_kind(kind)
    with pytest.raises(ValueError, match=r"state.*float64.*float32"):
        layer(zeros(4, 2, 2), as_state(layer, 2, 2, 3, dtype=torch.float32))


@for_three_kinds
def test_a_state_of_other_parts(kind: str) -> None:
    layer, inputs, hidden = make_kind(kind), zeros(4, 2, 2), zeros(2, 2, 3)
    wrong = [(hidden,) * 3, (), 5, "h", {"h": hidden}, (None, None), (None,), ([0.0], [0.0])]
    wrong += [(hidden, hidden)] if kind == "tRNN" else [hidden, (hidden,), (hidden, 5)]
    for state in wrong:
        for call, given in ((layer, inputs), (layer, inputs[:, 0]), (layer.step, inputs[0])):
            with pytest.raises(ValueError, match="state "):
                call(given, state)


@for_three_kinds
def test_a_state_may_be_a_list(kind: str) -> None:
    layer, inputs = make_kind(kind), zeros(4, 2, 2)
    _, state = layer(inputs)
    for given in (state, list(variants.as_tuple(state))):
        assert torch.equal(layer(inputs, given)[0], layer(inputs, state)[0])


@for_three_kinds
@pytest.mark.parametrize("stream", ["no", None, 1, np.True_])
def test_a_stream_that_is_neither_true_nor_false(kind: str, stream: Any) -> None:
    with pytest.raises(ValueError, match=f"stream .*{stream!r}"):
        make_kind(kind)(zeros(4, 2, 2), stream=stream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_takes_no_double_precision_for_another(dtype: torch.dtype) -> None:
    layer, other = TensorizedLSTM(2, 3, 2, dtype=dtype), {torch.float32, torch.float64} - {dtype}
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match=r"input .*dtype"):
        layer(zeros(4, 2, 2, dtype=other.pop()))


@for_three_kinds
@pytest.mark.parametrize(
    "lengths",
    [
        *[[0, 4], [-1, 4], [4, 5], [4], [4, 4, 4], [[4, 4]], [4.0, 2.0], [None, 4], [], [2**70, 4]],
        *[4, "44", True, [True, True], torch.tensor([4, 5], dtype=torch.uint16), np.array([4, 1j])],
    ],
    ids=str,
)
def test_lengths_that_cannot_be(kind: str, lengths: Any) -> None:
    with pytest.raises(ValueError, match=r"lengths "):
        make_kind(kind)(zeros(4, 2, 2), lengths=lengths)


@for_three_kinds
def test_lengths_where_there_is_no_place_for_them(kind: str) -> None:
    layer = make_kind(kind)
    for inputs in (zeros(4, 2), pack_padded_sequence(zeros(4, 2, 2), [4, 2])):
        with pytest.raises(ValueError, match=r"lengths "):
            layer(inputs, lengths=[4, 2])
