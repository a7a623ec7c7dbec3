"""The timestep for real-time use, and the blocks of the hidden convolution."""

from collections.abc import Iterator
from itertools import product as combinations

import pytest
import torch
from torch import Tensor

from tlstm import TensorizedLSTM, TensorizedRNN
from tlstm.ops import reference
from tlstm.ops.eager import blocks, cpu_step
from tlstm.ops.geometry import padding
from tlstm.ops.matmul import accumulate, multiply, product
from tlstm.ops.shapes import Sizes

SHAPES = [(1, 2, 3), (1, 3, 2), (4, 2, 3), (3, 2, 2), (5, 2, 4), (3, 3, 3), (2, 3, 5), (3, 4, 3)]


def close(actual: Tensor, expected: Tensor) -> bool:
    return bool((actual - expected).norm() <= 1e-13 * expected.norm())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("normalization", [None, "channel", "layer"])
@pytest.mark.parametrize("memory_convolution", [True, False])
def test_a_step_is_the_cells(
    shape: tuple[int, int, int], normalization: str | None, memory_convolution: bool
) -> None:
    size, rank, kernel = shape
    layer = TensorizedLSTM(3, 5, size, rank, kernel, memory_convolution, normalization).double()  # type: ignore[arg-type]
    hidden, memory = (torch.randn(layer.state_shape(2)).double() for _ in range(2))
    arguments = (torch.randn(2, 5).double(), hidden, memory, layer.weight_hidden, layer.bias_hidden)
    expected = reference.lstm_step(*arguments, layer._normalization())
    actual = cpu_step.lstm_step(*arguments, layer._normalization())
    assert all(close(*pair) for pair in zip(actual, expected, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_of_an_rnn_is_the_cells(shape: tuple[int, int, int]) -> None:
    size, rank, kernel = shape
    layer = TensorizedRNN(3, 5, size, rank, kernel).double()
    hidden = torch.randn(layer.state_shape(2)).double()
    arguments = (torch.randn(2, 5).double(), hidden, layer.weight_hidden, layer.bias_hidden)
    assert close(cpu_step.rnn_step(*arguments), reference.rnn_step(*arguments))


@pytest.fixture(params=[0, 2**60], ids=["split", "whole"])
def cost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The cost of a block; that of the weights is zero."""
    blocks.partition.cache_clear()
    monkeypatch.setattr(blocks, "BLOCK_ON_CPU", request.param)
    monkeypatch.setattr(blocks, "WEIGHT", 0)
    yield request.param
    blocks.partition.cache_clear()


def sizes_of(shape: tuple[int, int, int]) -> Sizes:
    size, rank, kernel = shape
    return Sizes(1000, 1000, 2, size, rank - 1, kernel, 5, 4, kernel ** (rank - 1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_parts_take_every_tap_that_reads_a_location_once(
    shape: tuple[int, int, int], cost: int
) -> None:
    sizes = sizes_of(shape)
    taken = [
        (location, tap)
        for block in blocks.partition(sizes, "cpu")
        for location in combinations(*block.locations)
        for tap in combinations(*block.taps)
    ]
    before, _ = padding(sizes.kernel_size)
    reading = {
        (location, tap)
        for location in combinations(range(sizes.tensor_size), repeat=sizes.axes)
        for tap in combinations(range(sizes.kernel_size), repeat=sizes.axes)
        if all(0 <= p - before + k < sizes.tensor_size for p, k in zip(location, tap, strict=True))
    }
    assert len(taken) == len(set(taken))
    assert set(taken) >= reading
    assert cost or set(taken) == reading


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_layer_computes_the_same_in_parts(
    shape: tuple[int, int, int], cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlstm.ops.eager.sequence.GRADIENT_ROWS", 3)
    inputs, results = torch.randn(7, 2, 3).double(), []
    layer = TensorizedLSTM(3, 5, *shape, normalization="channel").double()
    for implementation in ("autograd", "pytorch"):
        layer.implementation = implementation  # type: ignore[assignment]
        output, (hidden, memory) = layer(inputs)
        loss = (output * torch.linspace(-1, 1, 5)).sum() + (hidden * memory).sum()
        results.append([output, *torch.autograd.grad(loss, list(layer.parameters()))])
    assert all(close(*pair) for pair in zip(results[1], results[0], strict=True))


@pytest.mark.parametrize("rows", [3, 700])
@pytest.mark.parametrize("form", ["dense", "transposed", "with gaps"])
def test_a_product_is_a_product(rows: int, form: str) -> None:
    """Small ones and large ones, which are different libraries', and operands of any strides."""
    left, right, bias = torch.randn(rows, 50), torch.randn(50, 80), torch.randn(80)
    if form == "transposed":
        left, right = left.T.contiguous().T, right.T.contiguous().T
    if form == "with gaps":
        left, right = torch.randn(rows, 60)[:, 5:55], torch.randn(50, 90)[:, 7:87]
    expected = left.double() @ right.double()
    out, total = torch.empty(rows, 100)[:, :80], torch.ones(rows, 80)
    multiply(left, right, bias, out)
    accumulate(total, left, right)
    results = (product(left, right, None, torch.float32), out - bias, total - 1)
    assert all((result - expected).norm() < 1e-6 * expected.norm() for result in results)
