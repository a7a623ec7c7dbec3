"""The Grid LSTM against the equations of Kalchbrenner et al. (2015), block by block in NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import variants
from oracle import Array, sigmoid
from tlstm.layers.grid_lstm import GridLSTM
from tlstm.training.network import SequenceNetwork
from variants import (
    CHANNELS,
    INPUT_SIZE,
    STREAM_FORMS,
    assert_close,
    assert_same,
    outcome,
    random_inputs,
    random_state,
    randomize,
)

GRIDS = [
    *((1, False, False), (3, True, False), (3, False, False)),
    *((1, False, True), (3, True, True), (3, False, True), (7, True, True)),
]
for_each_grid = pytest.mark.parametrize(
    ("depth", "shared", "as_published"),
    GRIDS,
    ids=[f"L{depth}-{shared}-{as_published}" for depth, shared, as_published in GRIDS],
)


def make_grid(depth: int, shared: bool = False, as_published: bool = False) -> GridLSTM:
    grid = GridLSTM(
        INPUT_SIZE, CHANNELS, depth, shared, dtype=torch.float64, as_published=as_published
    )
    return randomize(grid)


# The oracle: H = [h from below; h of the timestep before], (h', m') = LSTM(H, m, W) for each of
# the two dimensions, with weights of one row per channel. As published the second h is, along
# depth, the new one, and h' = tanh(o * m').


def block(
    incoming: dict[str, tuple[Array, Array]],
    weights: dict[str, tuple[Array, Array]],
    as_published: bool,
) -> dict[str, tuple[Array, Array]]:
    """(h, m) that leave a block along each dimension, time first, from what comes in along each."""
    outgoing: dict[str, tuple[Array, Array]] = {}
    for dimension in ("time", "depth"):
        weight, bias = weights[dimension]
        of_time = (outgoing if as_published and outgoing else incoming)["time"][0]
        concatenated = np.concatenate([incoming["depth"][0], of_time], axis=1)
        hidden, memory = (np.zeros_like(part) for part in incoming[dimension])
        channels = memory.shape[1]
        for m in range(channels):
            i, f, g, o = (
                concatenated @ weight[gate * channels + m] + bias[gate * channels + m]
                for gate in range(4)
            )
            memory[:, m] = sigmoid(f) * incoming[dimension][1][:, m] + sigmoid(i) * np.tanh(g)
            gated = np.tanh(sigmoid(o) * memory[:, m])
            hidden[:, m] = gated if as_published else sigmoid(o) * np.tanh(memory[:, m])
        outgoing[dimension] = hidden, memory
    return outgoing


def weights_of(grid: GridLSTM, layer: int) -> dict[str, tuple[Array, Array]]:
    row = 0 if grid.shared else layer
    with torch.no_grad():
        joined = torch.cat([grid.weight_ih[row], grid.weight_hh[row]], dim=-1).numpy()
        bias = grid.bias[row].numpy()
    return {"time": (joined[0], bias[0]), "depth": (joined[1], bias[1])}


def oracle_run(grid: GridLSTM, inputs: Tensor, state: Any) -> tuple[Array, Array, Array]:
    """Outputs [T, B, M] and the last h and c [L, B, M], a block at a time."""
    weight, bias = grid.weight_input.detach().numpy(), grid.bias_input.detach().numpy()
    columns = [(state[0][layer].numpy(), state[1][layer].numpy()) for layer in range(grid.depth)]
    outputs = []
    for x in inputs.numpy():
        projected = x @ weight.T + bias
        upwards = projected, np.zeros_like(projected)
        if grid.as_published:  # the memory's rows come after those of the hidden state
            upwards = projected[:, :CHANNELS], projected[:, CHANNELS:]
        for layer in range(grid.depth):
            incoming = {"time": columns[layer], "depth": upwards}
            out = block(incoming, weights_of(grid, layer), grid.as_published)
            columns[layer], upwards = out["time"], out["depth"]
        outputs.append(upwards[0])
    hidden, memory = (np.stack(parts) for parts in zip(*columns, strict=True))
    return np.stack(outputs), hidden, memory


@for_each_grid
def test_equals_the_equations(depth: int, shared: bool, as_published: bool) -> None:
    grid, inputs = make_grid(depth, shared, as_published), random_inputs()
    state = random_state(grid)
    expected = oracle_run(grid, inputs, state)
    for forward in (variants.whole, variants.step_by_step):
        output, (hidden, memory) = forward(grid, inputs, state)
        for ours, theirs in zip((output, hidden, memory), expected, strict=True):
            assert_close(ours, theirs)


@for_each_grid
def test_gradients_equal_those_of_finite_differences(
    depth: int, shared: bool, as_published: bool
) -> None:
    grid, inputs = make_grid(depth, shared, as_published), random_inputs(3).requires_grad_()
    state = [part.requires_grad_() for part in random_state(grid)]
    names, parameters = zip(*grid.named_parameters(), strict=True)

    def forward(inputs: Tensor, hidden: Tensor, memory: Tensor, *values: Tensor) -> Any:
        given = dict(zip(names, values, strict=True))
        output, last = torch.func.functional_call(grid, given, (inputs, (hidden, memory)))
        return (output, *last)

    assert torch.autograd.gradcheck(forward, (inputs, *state, *parameters))


@for_each_grid
def test_a_sequence_equals_its_steps(depth: int, shared: bool, as_published: bool) -> None:
    grid, inputs = make_grid(depth, shared, as_published), random_inputs()
    state = random_state(grid)
    expected = outcome(grid, variants.step_by_step, inputs, state)
    for forward in (variants.whole, *STREAM_FORMS):
        assert_same(outcome(grid, forward, inputs, state), expected)


@pytest.mark.parametrize("shared", [False, True])
def test_the_published_form_takes_examples_of_different_length(shared: bool) -> None:
    """As every example alone does."""
    grid, number = make_grid(3, shared, as_published=True), len(variants.LENGTHS)
    inputs, state = random_inputs(max(variants.LENGTHS), number), random_state(grid, number)
    output, last = grid(inputs, state, lengths=variants.LENGTHS)
    expected, expected_last = variants.alone(grid, inputs, state)
    assert_close(output, expected)
    for ours, theirs in zip(last, expected_last, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("as_published", [False, True])
def test_no_output_depends_on_what_comes_later(as_published: bool) -> None:
    grid, inputs = make_grid(3, as_published=as_published), random_inputs(6)
    changed = inputs.clone()
    changed[4:] += 1
    ours, theirs = grid(inputs)[0], grid(changed)[0]
    assert torch.equal(ours[:4], theirs[:4])
    assert not torch.isclose(ours[4], theirs[4]).any()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_number_of_parameters(depth: int) -> None:
    """A block has two LSTMs from 2M to 4M numbers; the tied form has one block's.

    As published the memory has a projection of the input of its own.
    """
    channels, symbols = 7, 11
    one_block = 2 * 4 * channels * (2 * channels + 1)
    around = channels * (symbols + 1) + symbols * (channels + 1)
    for shared, blocks in ((True, 1), (False, depth)):
        network = SequenceNetwork(GridLSTM(symbols, channels, depth, shared), symbols)
        found = sum(parameter.numel() for parameter in network.parameters())
        assert found == around + blocks * one_block
        published = GridLSTM(symbols, channels, depth, shared, as_published=True)
        found = sum(parameter.numel() for parameter in published.parameters())
        assert found == 2 * channels * (symbols + 1) + blocks * one_block


def test_the_forget_gates_of_both_dimensions_start_with_their_bias() -> None:
    torch.manual_seed(0)
    grid = GridLSTM(3, 8, 2, forget_bias=4)
    i, f, g, o = grid.bias.chunk(4, dim=-1)
    assert (f == 4).all()
    for values in (i, g, o, grid.weight_ih, grid.weight_hh):
        assert 0.6 * 16**-0.5 < values.abs().max() <= 16**-0.5
    for values in (grid.weight_input, grid.bias_input):
        assert 0.6 * 3**-0.5 < values.abs().max() <= 3**-0.5
