"""The equations of one timestep against the oracle's loops, and what the paper promises of them."""

import itertools
import operator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
import variants
from oracle import Options
from tlstm.ops import geometry, reference

CHANNELS, BATCH_SIZE = 3, 2
SHAPES = [
    *[(2, size, kernel) for size in (1, 2, 3, 4) for kernel in (2, 3, 4, 5)],
    *[(3, size, kernel) for size, kernel in ((1, 3), (2, 2), (3, 3), (3, 4), (2, 5))],
    *[(4, size, kernel) for size, kernel in ((1, 2), (2, 3), (3, 2))],
    (5, 2, 2),
    (6, 1, 2),
]
NAMES = [f"{rank}D-P{size}-K{kernel}" for rank, size, kernel in SHAPES]
KINDS: list[tuple[bool, Any]] = [
    (memory, norm) for memory in (True, False) for norm in (None, "channel", "layer")
]


def random_parameters(options: Options) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    kernel, locations = [options.kernel_size] * options.axes, [options.tensor_size] * options.axes
    logits = options.kernel_size**options.axes if options.memory_convolution else 0
    made = 4 * CHANNELS + logits if options.gated else CHANNELS
    norm = (*locations, CHANNELS) if options.normalization == "channel" else (CHANNELS,)
    return {
        "weight_hidden": generator.normal(size=(made, CHANNELS, *kernel)) / 3,
        "bias_hidden": generator.normal(size=made),
        "normalization_gain": generator.normal(size=norm),
        "normalization_bias": generator.normal(size=norm),
    }


def random_arrays(options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x_t Wˣ + bˣ [B, M], H_{t−1} and C_{t−1} [B, P.., M]."""
    generator = np.random.default_rng(1)
    shape = (BATCH_SIZE, *[options.tensor_size] * options.axes, CHANNELS)
    projected = generator.normal(size=(BATCH_SIZE, CHANNELS))
    return projected, generator.normal(size=shape), generator.normal(size=shape)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize(("rank", "size", "kernel"), SHAPES, ids=NAMES)
def test_rnn_step_equals_the_oracle(rank: int, size: int, kernel: int) -> None:
    options = Options(rank, size, kernel, gated=False, memory_convolution=False)
    parameters = random_parameters(options)
    projected, hidden, unread = random_arrays(options)
    expected, _ = oracle.step(projected, hidden, unread, parameters, options)
    actual = reference.rnn_step(
        *tensors(projected, hidden, parameters["weight_hidden"], parameters["bias_hidden"])
    )
    variants.assert_close(actual, expected)


@pytest.mark.parametrize(("rank", "size", "kernel"), SHAPES, ids=NAMES)
def test_lstm_step_equals_the_oracle(rank: int, size: int, kernel: int) -> None:
    for memory_convolution, normalization in KINDS:
        options = Options(rank, size, kernel, True, memory_convolution, normalization)
        parameters = random_parameters(options)
        arrays = random_arrays(options)
        weight, bias, gain, norm_bias = tensors(*parameters.values())
        norm = reference.Normalization(normalization, gain, norm_bias) if normalization else None
        projected, hidden, memory = tensors(*arrays)
        actual = reference.lstm_step(projected, hidden, memory, weight, bias, norm)
        expected = oracle.step(*arrays, parameters, options)
        for name, one, other in zip("hc", actual, expected, strict=True):
            variants.assert_close(one, other, f"{name}, {normalization}")


@pytest.mark.parametrize(("rank", "size", "kernel"), SHAPES, ids=NAMES)
def test_one_step_reads_no_location_outside_the_kernel(rank: int, size: int, kernel: int) -> None:
    """Location p of A_t reads h_{t−1} at p−r .. p+(K−1−r) on every axis, the input at 0."""
    options = Options(rank, size, kernel)
    projected, hidden, _ = tensors(*random_arrays(options))
    weight, bias = tensors(*list(random_parameters(options).values())[:2])
    projected.requires_grad_()
    hidden.requires_grad_()
    activation = reference.hidden_convolution(projected, hidden, weight, bias)
    radius = kernel // 2

    def reads(p: oracle.Place, q: oracle.Place) -> bool:
        return all(
            -radius <= q_d - p_d <= kernel - 1 - radius for p_d, q_d in zip(p, q, strict=True)
        )

    for p in oracle.locations(options):
        loss = variants.generic_loss([activation[oracle.at(p)]])
        from_input, from_hidden = torch.autograd.grad(loss, (projected, hidden), retain_graph=True)
        assert bool(from_input.any()) == reads(p, (0,) * options.axes)
        for q in oracle.locations(options):
            assert bool(from_hidden[oracle.at(q)].any()) == reads(p, q), (p, q)


def draw_cell_and_kernels(
    data: st.DataObject, shape: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """C [B, P.., M] and, for every location, a kernel of K^S numbers whose sum is 1."""
    rank, size, kernel = shape
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    scale = data.draw(st.floats(0.01, 30))
    locations = (BATCH_SIZE, *[size] * (rank - 1))
    logits = torch.randn(*locations, kernel ** (rank - 1), generator=generator, dtype=torch.float64)
    memory = torch.randn(*locations, CHANNELS, generator=generator, dtype=torch.float64)
    return memory, torch.softmax(scale * logits, dim=-1)


@settings(max_examples=60, derandomize=True)
@given(data=st.data(), shape=st.sampled_from(SHAPES))
def test_memory_convolution_is_a_convex_combination(
    data: st.DataObject, shape: tuple[int, int, int]
) -> None:
    memory, kernels = draw_cell_and_kernels(data, shape)
    convolved = reference.memory_convolution(memory, kernels, shape[2])
    axes = tuple(range(1, memory.dim() - 1))
    assert (convolved <= memory.amax(axes, keepdim=True) + 1e-12).all()
    assert (convolved >= memory.amin(axes, keepdim=True) - 1e-12).all()


@settings(max_examples=60, derandomize=True)
@given(data=st.data(), shape=st.sampled_from(SHAPES))
def test_memory_convolution_leaves_a_constant_cell_constant(
    data: st.DataObject, shape: tuple[int, int, int]
) -> None:
    memory, kernels = draw_cell_and_kernels(data, shape)
    constant = memory.flatten(1, -2)[:, :1].reshape(BATCH_SIZE, *[1] * (shape[0] - 1), CHANNELS)
    constant = constant.expand_as(memory)
    variants.assert_close(reference.memory_convolution(constant, kernels, shape[2]), constant)


def inputs_that_reach(size: int, kernel: int, axes: int, timesteps: int) -> list[set[int]]:
    """By brute force: which inputs x_1, x_2, .. the last corner has seen after each timestep."""
    offsets = list(itertools.product(range(-(kernel // 2), kernel - kernel // 2), repeat=axes))
    seen: dict[oracle.Place, set[int]] = {}
    last = []
    for t in range(1, timesteps + 1):
        seen[(0,) * axes] = {t}
        seen = {
            p: set().union(
                *(seen.get(tuple(map(operator.add, p, offset)), set()) for offset in offsets)
            )
            for p in itertools.product(range(1, size + 1), repeat=axes)
        }
        last.append(seen[(size,) * axes])
    return last


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6, 7])
def test_depth_is_the_smallest_delay_that_covers_every_input_so_far(kernel: int, axes: int) -> None:
    for size in range(1, 13 if axes == 1 else 5):
        last = inputs_that_reach(size, kernel, axes, timesteps=size + 3)
        for t in (1, 2, 3):
            so_far = set(range(1, t + 1))
            delay = next(d for d in range(size) if so_far <= last[t + d - 1])
            assert last[t + delay - 1] == so_far
            assert geometry.depth(size, kernel) == delay + 1


@pytest.mark.parametrize("depth", range(1, 13))
@pytest.mark.parametrize("kernel_size", range(2, 8))
def test_tensor_size_is_the_largest_of_its_depth(depth: int, kernel_size: int) -> None:
    largest = geometry.tensor_size(depth, kernel_size)
    sizes = [size for size in range(1, 60) if geometry.depth(size, kernel_size) == depth]
    assert max(sizes) == largest
