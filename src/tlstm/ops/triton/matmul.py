"""Matrix products on an NVIDIA GPU: the library's, and our own where the library is slow."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.ops.triton.kernels.matmul import matmul_kernel
from tlstm.ops.triton.launch import Launch

INTERPRETED = triton.knobs.runtime.interpret
# Multiplications of a matrix product, and of each of its sums, up to which ours is faster than the
# library's
SMALL_PRODUCT, SHORT_SUM = 1e8, 512

Multiply = Callable[[int, Tensor], object]


class Tile(NamedTuple):
    """The part of a matrix product that a program computes, and the program's resources."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


SMALL_TILE = Tile(rows=64, columns=32, depth=64, warps=4, stages=4)


def matrix_product(left: Tensor, right: Tensor) -> Multiply:
    """Make a function for the product of a slot of `left` [slots, rows, depth] and `right`."""
    if _suits_our_own(left, right):
        return _by_our_own(left, right)
    return lambda slot, out: torch.mm(left[slot], right, out=out)


def affine_product(left: Tensor, right: Tensor, bias: int) -> Multiply:
    """Make a function for such a product where a row of `right` is a bias and `left` has ones.

    With a bias the library takes faster kernels for operands of two bytes, slower ones for float32.

    Args:
        left: [slots, rows, depth], with zeros after the ones.
        right: [depth, columns].
        bias: the number of its row with the bias.
    """
    if left.dtype == torch.float32 or _suits_our_own(left, right):
        return matrix_product(left, right)
    rows, matrix, added = left[..., :bias], right[:bias], right[bias]
    return lambda slot, out: torch.addmm(added, rows[slot], matrix, out=out)


def _suits_our_own(left: Tensor, right: Tensor) -> bool:
    _, rows, depth = left.shape
    small = rows * depth * right.shape[1] <= SMALL_PRODUCT and depth <= SHORT_SUM
    return INTERPRETED or (small and left.dtype != torch.float32)


def _by_our_own(left: Tensor, right: Tensor) -> Multiply:
    _, rows, depth = left.shape
    columns = right.shape[1]
    size = SMALL_TILE
    padded = pad_to_blocks(right, size)
    grid = (triton.cdiv(rows, size.rows) * triton.cdiv(columns, size.columns),)

    launch = Launch(
        matmul_kernel,
        grid,
        DEPTH=depth,
        STRIDE=left.stride(1),
        COLUMNS=columns,
        BLOCK_ROWS=size.rows,
        BLOCK_COLUMNS=size.columns,
        BLOCK_DEPTH=size.depth,
        UPCAST=INTERPRETED,
        num_warps=size.warps,
        num_stages=size.stages,
    )
    return lambda slot, out: launch(left, padded, out, slot, rows)


def pad_to_blocks(matrix: Tensor, size: Tile) -> Tensor:
    """Pad the right matrix of a product [.., depth, columns] with zeros to whole blocks."""
    *lead, depth, columns = matrix.shape
    padded = matrix.new_zeros(
        [
            *lead,
            triton.cdiv(depth, size.depth) * size.depth,
            triton.cdiv(columns, size.columns) * size.columns,
        ]
    )
    padded[..., :depth, :columns] = matrix
    return padded
