"""A matrix product for small sizes, where it is faster than the library's."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["slot"])
def matmul_kernel(
    left,
    right,
    out,
    slot,
    rows,
    DEPTH: tl.constexpr,
    STRIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Write `left`[slot] · `right` to `out`.

    Rows of `left` are `STRIDE` numbers apart; `right` is padded with zeros to whole blocks.
    `UPCAST` is for the interpreter, which multiplies the bit patterns of bfloat16.
    """
    across: tl.constexpr = (COLUMNS + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    blocks: tl.constexpr = (DEPTH + BLOCK_DEPTH - 1) // BLOCK_DEPTH
    tile = tl.program_id(0)
    row = tile // across * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tile % across * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    depth = tl.arange(0, BLOCK_DEPTH)
    left += slot.to(tl.int64) * rows * STRIDE
    left += tl.minimum(row, rows - 1)[:, None] * STRIDE
    sums = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    for block in range(blocks):
        at = block * BLOCK_DEPTH + depth
        a = tl.load(left + at[None, :], (at < DEPTH)[None, :], 0)
        b = tl.load(right + at[:, None] * (across * BLOCK_COLUMNS) + column[None, :])
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        sums = tl.dot(a, b, sums, input_precision="ieee")
    tl.store(
        out + row[:, None] * COLUMNS + column[None, :],
        sums.to(out.dtype.element_ty),
        (row < rows)[:, None] & (column < COLUMNS)[None, :],
    )
