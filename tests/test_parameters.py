"""The layers' parameters, initial values and copies, and the arguments that they refuse."""

import copy
import pickle
import re
from math import prod
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import variants
from oracle import Options
from tlstm import TensorizedLSTM, TensorizedRNN
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


# Refused arguments: the message names the argument, its value and its range


@pytest.mark.parametrize("kind", [TensorizedRNN, TensorizedLSTM])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("input_size", 0), ("channels", 0), ("channels", -1), ("channels", 2.0)],
        *[("tensor_size", 0), ("tensor_size", True), ("tensor_size", 1.5)],
        *[("rank", 1), ("rank", "3"), ("kernel_size", 1), ("kernel_size", (3, 3))],
    ],
)
def test_a_size_that_cannot_be(kind: type, argument: str, value: Any) -> None:
    arguments = {"input_size": 2, "channels": 3, "tensor_size": 2, argument: value}
    with pytest.raises(ValueError, match=rf"{argument} .*{re.escape(repr(value))}"):
        kind(**arguments)


@pytest.mark.parametrize("kind", [StackedRNN, StackedLSTM])
@pytest.mark.parametrize("argument", ["input_size", "channels", "depth"])
def test_a_size_that_a_stack_cannot_have(kind: type, argument: str) -> None:
    arguments = {"input_size": 2, "channels": 3, "depth": 2, argument: 0}
    with pytest.raises(ValueError, match=rf"{argument} .*\b0\b"):
        kind(**arguments)


@pytest.mark.parametrize("name", ["batch", "CN", "", True])
def test_a_normalization_of_another_name(name: Any) -> None:
    with pytest.raises(ValueError, match=rf"normalization .*'channel'.*{re.escape(repr(name))}"):
        TensorizedLSTM(2, 3, 2, normalization=name)


def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


BAD_INPUTS = {
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
@pytest.mark.parametrize("case", ["no axis", "four axes", "other features", "integers"])
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


@pytest.mark.parametrize("kind", ["tLSTM", "sLSTM"])
def test_a_state_of_an_lstm_that_is_no_pair(kind: str) -> None:
    layer, inputs, hidden = make_kind(kind), zeros(4, 2, 2), zeros(2, 2, 3)
    for state in (hidden, (hidden,), (hidden, hidden, hidden)):
        with pytest.raises(ValueError, match=r"state .*h, c"):
            layer(inputs, state)
        with pytest.raises(ValueError, match=r"state .*h, c"):
            layer.step(inputs[0], state)


def test_a_state_of_an_rnn_that_is_a_pair() -> None:
    with pytest.raises(ValueError, match=r"state .*h"):
        make_kind("tRNN")(zeros(4, 2, 2), (zeros(2, 2, 3), zeros(2, 2, 3)))


@for_three_kinds
@pytest.mark.parametrize(
    "lengths",
    [[0, 4], [-1, 4], [4, 5], [4], [4, 4, 4], [[4, 4]], [4.0, 2.0], 4],
    ids=lambda lengths: str(lengths),
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
