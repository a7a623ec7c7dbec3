"""The arithmetic of both directions of a step: activations, statistics and neighbours.

Rows of W numbers end in zeros if there are fewer channels. They are read and written whole, in the
pieces that are fastest in memory; the last channel may lie within such a piece.
"""

import triton
import triton.language as tl


@triton.jit
def tanh(x, FAST: tl.constexpr):
    """Return the hyperbolic tangent.

    `FAST` is the hardware's. Its error of 2⁻¹¹ is smaller than that of operands in half precision.
    Without it the result is exact to rounding, also near zero, where 2σ(2x) − 1 cancels.
    """
    if FAST:
        y = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        square = x * x
        series = x * (
            1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * 62 / 2835)))
        )
        y = tl.where(tl.abs(x) < 0.25, series, 2 * tl.sigmoid(2 * x) - 1)
    return y


@triton.jit
def sigmoid(x, FAST: tl.constexpr):
    """Return the logistic function, computed from the hardware's tanh if `FAST`."""
    return 0.5 + 0.5 * tanh(0.5 * x, FAST) if FAST else tl.sigmoid(x)


@triton.jit
def offset(location, first, second, AXES: tl.constexpr, P: tl.constexpr):
    """Move a location along its axes.

    Returns the location, clamped to the border; True if it was inside the border; and True if it
    was the corner of the projected input.
    """
    line = location % P + second
    inside = (line >= 0) & (line < P)
    corner = line == -1
    moved = tl.minimum(tl.maximum(line, 0), P - 1)
    if AXES == 2:
        column = location // P + first
        inside = inside & (column >= 0) & (column < P)
        corner = corner & (column == -1)
        moved += tl.minimum(tl.maximum(column, 0), P - 1) * P
    return moved, inside, corner


@triton.jit
def gates(activation, channel, WIDTH: tl.constexpr, FAST: tl.constexpr):
    """Return G, I, F and O of a row of A_t."""
    wide = channel < WIDTH
    at = activation + channel
    g = tl.load(at, wide, 0).to(tl.float32)
    i = tl.load(at + WIDTH, wide, 0).to(tl.float32)
    f = tl.load(at + 2 * WIDTH, wide, 0).to(tl.float32)
    o = tl.load(at + 3 * WIDTH, wide, 0).to(tl.float32)
    return tanh(g, FAST), sigmoid(i, FAST), sigmoid(f, FAST), sigmoid(o, FAST)


@triton.jit
def largest_and_total(logits, LOGITS: tl.constexpr):
    """Return the largest of a row's logits, and the sum of exp(logit − largest)."""
    largest = float("-inf")
    for each in tl.static_range(LOGITS):
        largest = tl.maximum(largest, tl.load(logits + each).to(tl.float32))
    total = 0.0
    for each in tl.static_range(LOGITS):
        total += tl.exp(tl.load(logits + each).to(tl.float32) - largest)
    return largest, total


@triton.jit
def channel_statistics(values, present, M: tl.constexpr):
    """Return the mean and the sum of squared deviations over M channels."""
    mean = tl.sum(values, axis=0) / M
    deviations = tl.where(present, values - mean, 0)
    return mean, tl.sum(deviations * deviations, axis=0)


@triton.jit
def layer_statistics(
    partial, first, M: tl.constexpr, LOCATIONS: tl.constexpr, BLOCK_LOCATIONS: tl.constexpr
):
    """Return the same over an example, from the statistics of its rows, which begin at `first`."""
    each = tl.arange(0, BLOCK_LOCATIONS)
    counts = each < LOCATIONS
    means = tl.load(partial + (first + each) * 2, counts, 0)
    squares = tl.load(partial + (first + each) * 2 + 1, counts, 0)
    mean = tl.sum(means, axis=0) / LOCATIONS
    deviations = tl.where(counts, means - mean, 0)
    return mean, tl.sum(squares, axis=0) + M * tl.sum(deviations * deviations, axis=0)


@triton.jit
def example_sum(sums, first, LOCATIONS: tl.constexpr, BLOCK_LOCATIONS: tl.constexpr):
    """Return the sum of every second number over the rows of an example."""
    each = tl.arange(0, BLOCK_LOCATIONS)
    return tl.sum(tl.load(sums + (first + each) * 2, each < LOCATIONS, 0), axis=0)


@triton.jit
def statistics(
    values,
    present,
    partial,
    first,
    M: tl.constexpr,
    LOCATIONS: tl.constexpr,
    BLOCK_LOCATIONS: tl.constexpr,
    NORMALIZATION: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """Return the mean and one over the deviation for a row's normalization."""
    if NORMALIZATION == 1:
        mean, squares = channel_statistics(values, present, M)
        variance = squares / M
    else:
        mean, squares = layer_statistics(partial, first, M, LOCATIONS, BLOCK_LOCATIONS)
        variance = squares / (M * LOCATIONS)
    return mean, tl.rsqrt(variance + EPSILON)


@triton.jit
def ends_here(lengths, example, t, time, HAS_LENGTHS: tl.constexpr):
    """Return True if the state after step t is the one that the call returns."""
    if HAS_LENGTHS:
        ends = tl.load(lengths + example) == t + 1
    else:
        ends = t + 1 == time
    return ends
