"""The weights, from their own order to that of a matrix product and back."""

import triton
import triton.language as tl


@triton.jit
def made_by(
    column, M: tl.constexpr, WIDTH: tl.constexpr, GATES: tl.constexpr, LOGITS: tl.constexpr
):
    """Which row of Wʰ makes a column of A_t, and whether any does."""
    gate = tl.minimum(column // WIDTH, GATES)
    inside = column - gate * WIDTH
    real = inside < tl.where(gate < GATES, M, LOGITS)
    return gate * M + inside, real


@triton.jit
def pack(
    weight,
    bias,
    wide,
    wide_bias,
    M: tl.constexpr,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    GATES: tl.constexpr,
    LOGITS: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Wʰ [O, M, K..] as the matrix of a product, [K.., W, A], and bʰ [O] as [A]; zeros between."""
    read = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # numbers the (channel, tap) pairs
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    made, real = made_by(column, M, WIDTH, GATES, LOGITS)
    at = weight + made[:, None].to(tl.int64) * (M * TAPS) + read[None, :]
    value = tl.load(at, real[:, None] & (read < M * TAPS)[None, :], 0)
    row = read % TAPS * WIDTH + read // TAPS
    at = wide + row[None, :].to(tl.int64) * ACTIVATIONS + column[:, None]
    held = (column < ACTIVATIONS)[:, None] & (read < WIDTH * TAPS)[None, :]
    tl.store(at, value.to(wide.dtype.element_ty), held)
    if tl.program_id(0) == 0:
        by = tl.load(bias + made, real, 0)
        tl.store(wide_bias + column, by.to(tl.float32), column < ACTIVATIONS)


@triton.jit
def unpack(
    wide,
    wide_bias,
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
    """The inverse of `pack`."""
    read = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    made, real = made_by(column, M, WIDTH, GATES, LOGITS)
    held = real[:, None] & (read < M * TAPS)[None, :]
    row = read % TAPS * WIDTH + read // TAPS
    at = wide + row[None, :].to(tl.int64) * ACTIVATIONS + column[:, None]
    value = tl.load(at, held, 0)
    at = weight + made[:, None].to(tl.int64) * (M * TAPS) + read[None, :]
    tl.store(at, value.to(weight.dtype.element_ty), held)
    if tl.program_id(0) == 0:
        by = tl.load(wide_bias + column, real, 0)
        tl.store(bias + made, by.to(bias.dtype.element_ty), real)
