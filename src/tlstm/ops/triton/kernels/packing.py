"""The conversion of the weights to the matrix of a step's product, and back."""

import triton
import triton.language as tl


@triton.jit
def weight_row(
    column, M: tl.constexpr, WIDTH: tl.constexpr, GATES: tl.constexpr, LOGITS: tl.constexpr
):
    """Return the row of Wʰ that makes a column of A_t, and True if there is one."""
    gate = tl.minimum(column // WIDTH, GATES)
    inside = column - gate * WIDTH
    real = inside < tl.where(gate < GATES, M, LOGITS)
    return gate * M + inside, real


@triton.jit
def pack_kernel(
    weight,
    bias,
    wide,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write Wʰ [O, M, K..] and bʰ [O] as the matrix of a product, [K^S·W + 8, A].

    It is Wʰ as [K.., W, A], padded with zeros, then a row of bʰ and seven rows of zeros.
    """
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    made, real = weight_row(column, M, WIDTH, GATES, LOGITS)
    held = (column < ACTIVATIONS)[:, None] & (channel < WIDTH)[None, :]
    weight += made[:, None].to(tl.int64) * (M * TAPS) + channel[None, :] * TAPS
    first = wide + channel[None, :].to(tl.int64) * ACTIVATIONS + column[:, None]
    for tap in tl.static_range(TAPS):
        value = tl.load(weight + tap, real[:, None] & (channel < M)[None, :], 0)
        tl.store(first + tap * WIDTH * ACTIVATIONS, value.to(wide.dtype.element_ty), held)
    if tl.program_id(0) == 0:
        after = tl.arange(0, 8)
        by = tl.load(bias + made[:, None], real[:, None] & (after == 0)[None, :], 0)
        at = wide + (TAPS * WIDTH + after[None, :]) * ACTIVATIONS + column[:, None]
        tl.store(at, by.to(wide.dtype.element_ty), (column < ACTIVATIONS)[:, None])


@triton.jit
def unpack_kernel(
    wide,
    weight,
    bias,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write Wʰ and bʰ from such a matrix; the inverse of `pack_kernel`."""
    read = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    made, real = weight_row(column, M, WIDTH, GATES, LOGITS)
    held = real[:, None] & (read < M * TAPS)[None, :]
    row = read % TAPS * WIDTH + read // TAPS
    at = wide + row[None, :].to(tl.int64) * ACTIVATIONS + column[:, None]
    value = tl.load(at, held, 0)
    at = weight + made[:, None].to(tl.int64) * (M * TAPS) + read[None, :]
    tl.store(at, value.to(weight.dtype.element_ty), held)
    if tl.program_id(0) == 0:
        by = tl.load(wide + TAPS * WIDTH * ACTIVATIONS + column, real, 0)
        tl.store(bias + made, by.to(bias.dtype.element_ty), real)
