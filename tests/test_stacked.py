"""The stacks against their steps, against torch's own, and against the tensorized layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import variants
from oracle import Options
from tlstm.layers.stacked import StackedLSTM, StackedRNN
from variants import (
    BATCH_SIZE,
    CHANNELS,
    INPUT_SIZE,
    STREAM_FORMS,
    Result,
    as_tuple,
    assert_close,
    assert_same,
    make_layer,
    outcome,
    random_inputs,
    random_state,
    randomize,
)

STACKS = [
    (kind, depth, shared)
    for kind in (StackedLSTM, StackedRNN)
    for depth, shared in ((1, True), (3, True), (3, False))
]
NAMES = [
    f"{kind.__name__}-L{depth}-{'shared' if shared else 'distinct'}"
    for kind, depth, shared in STACKS
]
PEERS: dict[type, Any] = {StackedLSTM: nn.LSTM, StackedRNN: nn.RNN}

for_each_stack = pytest.mark.parametrize(("kind", "depth", "shared"), STACKS, ids=NAMES)


def make_stack(kind: type, depth: int, shared: bool = True, **arguments: Any) -> Any:
    return randomize(
        kind(INPUT_SIZE, CHANNELS, depth, shared=shared, dtype=torch.float64, **arguments)
    )


@for_each_stack
def test_a_sequence_equals_its_steps(kind: type, depth: int, shared: bool) -> None:
    stack = make_stack(kind, depth, shared)
    inputs, state = random_inputs(), random_state(stack)
    expected = outcome(stack, variants.step_by_step, inputs, state)
    for forward in (variants.whole, *STREAM_FORMS):
        assert_same(outcome(stack, forward, inputs, state), expected)


class Peer(nn.Module):
    """torch's own stack of the same layers, with copies of the weights."""

    def __init__(self, stack: Any, projection: nn.Linear, layers: nn.RNNBase) -> None:
        super().__init__()
        self.projection, self.layers = projection, layers
        self.state_batch_axis, self.initial_state = stack.state_batch_axis, stack.initial_state

    def forward(self, inputs: Tensor, state: Any) -> Result:
        output, last = self.layers(self.projection(inputs), state)
        return output, last


def make_projection(layer: Any) -> nn.Linear:
    projection = nn.Linear(INPUT_SIZE, CHANNELS, dtype=torch.float64)
    projection.load_state_dict({"weight": layer.weight_input, "bias": layer.bias_input})
    return projection


def make_peer(stack: Any) -> Peer:
    layers = PEERS[type(stack)](CHANNELS, CHANNELS, stack.depth, dtype=torch.float64)
    weights = {}
    for index in range(stack.depth):
        row = index % len(stack.bias)
        weights[f"weight_ih_l{index}"] = stack.weight_ih[row]
        weights[f"weight_hh_l{index}"] = stack.weight_hh[row]
        weights[f"bias_ih_l{index}"] = stack.bias[row]
        weights[f"bias_hh_l{index}"] = torch.zeros_like(stack.bias[row])
    layers.load_state_dict(weights)
    return Peer(stack, make_projection(stack), layers)


def renamed_to_stack(of_peer: dict[str, Tensor], stack: Any) -> dict[str, Tensor]:
    """A peer's outcome under the stack's names: copies of one weight add their gradients up."""
    named = {
        "gradient of projection.weight": "gradient of weight_input",
        "gradient of projection.bias": "gradient of bias_input",
    }
    renamed = {named.get(k, k): value for k, value in of_peer.items() if "layers" not in k}
    for ours, theirs in (("weight_ih",) * 2, ("weight_hh",) * 2, ("bias", "bias_ih")):
        each = [of_peer[f"gradient of layers.{theirs}_l{i}"] for i in range(stack.depth)]
        total = torch.stack(each)
        renamed[f"gradient of {ours}"] = total.sum(0, keepdim=True) if stack.shared else total
    return renamed


@for_each_stack
def test_equals_torch_with_the_same_weights(kind: type, depth: int, shared: bool) -> None:
    stack = make_stack(kind, depth, shared)
    inputs, state = random_inputs(), random_state(stack)
    expected = outcome(make_peer(stack), variants.whole, inputs, state)
    actual = outcome(stack, variants.whole, inputs, state)
    assert_same(actual, renamed_to_stack(expected, stack))


def gate_rows(rows: Tensor, gated: bool) -> Tensor:
    """Rows of ours in the order G, I, F, O as torch's i, f, g, o; the tRNN's as they are."""
    if not gated:
        return rows
    g, i, f, o = rows[: 4 * CHANNELS].chunk(4)
    return torch.cat([i, f, g, o])


def taps(weight: Tensor, tap: int) -> Tensor:
    """The matrix [O, M] of the tap (k, .., k) of Wʰ."""
    for _ in range(weight.dim() - 2):
        weight = weight[..., tap]
    return weight


ONE_LOCATION = [
    Options(rank, 1, kernel, gated, memory_convolution)
    for gated, memory_convolution in ((True, False), (True, True), (False, False))
    for rank in (2, 3, 4)
    for kernel in ((2, 3, 4, 5) if rank < 4 else (2, 3))
]


@pytest.mark.parametrize("options", ONE_LOCATION, ids=variants.variant_id)
def test_a_tensor_of_one_location_is_a_layer_of_torch(options: Options) -> None:
    """Location 1 reads the input, at location 0, and itself; every other tap reads zeros.

    A kernel over copies of the one location's cell gives that cell, so that memory convolution
    changes nothing.
    """
    layer = make_layer(options)
    recurrent, gated = options.radius, options.gated
    one = (StackedLSTM if gated else StackedRNN)(INPUT_SIZE, CHANNELS, 1, dtype=torch.float64)
    one.load_state_dict(
        {
            "weight_input": layer.weight_input,
            "bias_input": layer.bias_input,
            "weight_ih": gate_rows(taps(layer.weight_hidden, recurrent - 1), gated)[None],
            "weight_hh": gate_rows(taps(layer.weight_hidden, recurrent), gated)[None],
            "bias": gate_rows(layer.bias_hidden, gated)[None],
        }
    )
    inputs, state = random_inputs(), random_state(make_stack(type(one), 1))
    shape = layer.state_shape(BATCH_SIZE)
    own_state = variants.change_state(state, lambda part: part.reshape(shape))
    expected = renamed_to_stack(outcome(make_peer(one), variants.whole, inputs, state), one)
    actual = outcome(layer, variants.whole, inputs, own_state)
    weight, bias = actual["gradient of weight_hidden"], actual.pop("gradient of bias_hidden")
    actual |= {
        "gradient of weight_ih": gate_rows(taps(weight, recurrent - 1), gated)[None],
        "gradient of weight_hh": gate_rows(taps(weight, recurrent), gated)[None],
        "gradient of bias": gate_rows(bias, gated)[None],
    }
    others = actual.pop("gradient of weight_hidden").clone()
    taps(others, recurrent - 1).zero_()
    taps(others, recurrent).zero_()
    assert not others.any()
    assert_same(
        {name: value.reshape(expected[name].shape) for name, value in actual.items()}, expected
    )


def skewed_pair(size: int, gated: bool) -> tuple[Any, Any]:
    """A 2D layer, K = 2, that stores nothing before an input comes, and its stack of P layers."""
    options = Options(2, size, 2, gated, memory_convolution=False)
    layer = make_layer(options)
    with torch.no_grad():
        layer.bias_hidden[:CHANNELS] = 0  # tanh(0): of H for the tRNN, of G for the tLSTM
    stack = make_stack(StackedLSTM if gated else StackedRNN, size)
    stack.load_state_dict(
        {
            "weight_input": layer.weight_input,
            "bias_input": layer.bias_input,
            "weight_ih": gate_rows(layer.weight_hidden[..., 0], gated)[None],
            "weight_hh": gate_rows(layer.weight_hidden[..., 1], gated)[None],
            "bias": gate_rows(layer.bias_hidden, gated)[None],
        }
    )
    return layer, stack


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("gated", [False, True], ids=["tRNN", "tLSTM"])
def test_without_feedback_a_layer_is_a_skewed_stack(gated: bool, size: int) -> None:
    """Figure 1: location p of the tensor is layer p of the stack, p − 1 timesteps later."""
    layer, stack = skewed_pair(size, gated)
    inputs = random_inputs(6).requires_grad_()
    output, last = layer(inputs)
    expected, _ = stack(inputs)
    assert_close(output, expected)
    for p in range(size):
        _, end = stack(inputs[: len(inputs) - p])
        for ours, theirs in zip(as_tuple(last), as_tuple(end), strict=True):
            assert_close(ours[:, p], theirs[p])
    (ours,) = torch.autograd.grad(variants.generic_loss([output]), inputs)
    (theirs,) = torch.autograd.grad(variants.generic_loss([expected]), inputs)
    assert_close(ours, theirs)


@pytest.mark.parametrize("gated", [False, True], ids=["tRNN", "tLSTM"])
def test_a_skewed_stack_has_the_weights_gradients_of_its_layer(gated: bool) -> None:
    layer, stack = skewed_pair(3, gated)
    for module in (layer, stack):
        variants.generic_loss([module(random_inputs(6))[0]]).backward()
    for tap, theirs in enumerate((stack.weight_ih.grad, stack.weight_hh.grad)):
        assert_close(gate_rows(layer.weight_hidden.grad[..., tap], gated), theirs[0])
    assert_close(layer.weight_input.grad, stack.weight_input.grad)
    assert_close(layer.bias_input.grad, stack.bias_input.grad)
