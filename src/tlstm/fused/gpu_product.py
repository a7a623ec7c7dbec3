"""Matrix products on an NVIDIA GPU: the library's, and our own where that one is slow."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.fused.kernels.product import product
from tlstm.fused.launch import Launch

INTERPRETED = triton.knobs.runtime.interpret
# Multiplications of a matrix product, and of each of its sums, up to which the library's takes
# longer than ours
SMALL_PRODUCT, SHORT_SUM = 1e8, 512


class Tile(NamedTuple):
    """The part of a matrix product that a program computes, and with what."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


SMALL_TILE = Tile(rows=64, columns=32, depth=64, warps=4, stages=4)


def by_library(left: Tensor, right: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """The library's matrix product."""
    if bias is None:
        torch.mm(left, right, out=out)
    else:
        torch.addmm(bias, left, right, out=out)


def matrix_product(
    left: Tensor, right: Tensor, bias: Tensor | None = None
) -> Callable[[int, Tensor], None]:
    """A function that writes the product of a slot of `left` [slots, rows, depth] and `right`.

    With the bias [columns], if there is one, added to its rows.
    """
    _, rows, depth = left.shape
    columns = right.shape[1]
    small = rows * depth * columns <= SMALL_PRODUCT and depth <= SHORT_SUM
    small = small and left.dtype != torch.float32
    if not (small or INTERPRETED):
        return lambda slot, out: by_library(left[slot], right, bias, out)

    size = SMALL_TILE
    padded = pad_to_blocks(right, size)
    grid = (triton.cdiv(rows, size.rows) * triton.cdiv(columns, size.columns),)

    launch = Launch(
        product,
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
    return lambda slot, out: launch(left, padded, bias, out, slot, rows)


def pad_to_blocks(matrix: Tensor, size: Tile) -> Tensor:
    """The right matrix of a product [.., depth, columns], with zeros to whole blocks."""
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
