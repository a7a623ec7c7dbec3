"""The whole sequence on an NVIDIA GPU: the kernels of `kernels` step by step.

Nothing here waits for the GPU, so that a call can be captured in a CUDA graph.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K..     the kernel's axes; K^S taps
    M       channels, and W the same padded to a multiple of eight
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.cell import NORMALIZATION_EPSILON
from tlstm.fused import kernels
from tlstm.fused.pytorch import Gradients, Weights
from tlstm.fused.sizes import Sizes
from tlstm.geometry import radius

INTERPRETED = triton.knobs.runtime.interpret
# Numbers in the gradients of A_t that wait to become, in one product, a gradient of the weights
GRADIENT_NUMBERS = 2**27
# Multiplications of a matrix product below which the library's takes longer than ours
SMALL_PRODUCT = 1e8
NORMALIZATIONS = {"": 0, "channel": 1, "layer": 2}


class History(NamedTuple):
    """What the backward pass reads; of two timesteps only, and some of it, where none follows.

    Attributes:
        read: what every step's kernel reads, [T, B·L, K^S·W], in the operands' type.
        cell: C_t, [T+1, B·L, W], float32.
        activations: A_t without its bias, [T, B·L, A], in the operands' type.
        partial: for LN, every location's mean and sum of squared deviations, [T, B·L, 2].
    """

    read: Tensor
    cell: Tensor
    activations: Tensor
    partial: Tensor


class Tile(NamedTuple):
    """The part of a matrix product that a program computes, and with what."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class Layout(NamedTuple):
    """How a call's tensors lie in memory.

    Attributes:
        width: W.
        logits: room for the logits in A_t.
        activations: A.
    """

    width: int
    logits: int
    activations: int

    @classmethod
    def of(cls, sizes: Sizes) -> "Layout":
        """Of a call's sizes."""
        width = -(-sizes.channels // 8) * 8
        logits = _block_taps(sizes) if sizes.logits else 0
        return cls(width, logits, sizes.gates * width + logits)


def empty_history(sizes: Sizes, operands: torch.dtype, keep: bool, like: Tensor) -> History:
    """A History to be written, on the device of `like`."""
    layout, rows = Layout.of(sizes), sizes.rows
    kept, held = (sizes.steps, sizes.steps + 1) if keep else (1, 2)
    cells = held if sizes.gates == 4 else 0
    return History(
        like.new_empty([max(kept, 2), rows, sizes.taps * layout.width], dtype=operands),
        like.new_empty([cells, rows, layout.width], dtype=torch.float32),
        like.new_empty([kept, rows, layout.activations], dtype=operands),
        like.new_empty([kept, rows, 2], dtype=torch.float32),
    )


def forward(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weights: Weights,
    lengths: Tensor | None,
    time: int,
    operands: torch.dtype,
    normalization: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None, History]:
    """The outputs, the state after the last input, and what the backward pass reads."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    history = empty_history(sizes, operands, keep, hidden)
    projected = projected.contiguous()
    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=operands)
    last_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    last_cell = torch.empty_like(last_hidden, dtype=None if cell is None else cell.dtype)
    bias = wide_bias(weights.bias, sizes)
    gain, shift = _affine(weights, bias)
    constants = _constants(sizes)
    options = constants | _options(sizes, normalization, lengths)
    multiply = matrix_product(history.read, wide_weight(weights.hidden, sizes, operands))

    if cell is not None:
        history.cell[0, :, : sizes.channels] = cell.flatten(0, -2)
    kernels.enter[(sizes.rows,)](
        history.read,
        hidden.contiguous(),
        projected,
        LOCATIONS=sizes.locations,
        **constants,
    )
    for t in range(sizes.steps):
        now, after, slot = (t, t + 1, t) if keep else (t % 2, (t + 1) % 2, 0)
        multiply(now, history.activations[slot])
        for part in _passes(normalization):
            kernels.advance[(sizes.rows,)](
                history.read,
                history.cell,
                history.activations,
                bias,
                gain,
                shift,
                history.partial,
                projected,
                output,
                last_hidden,
                last_cell,
                lengths,
                now,
                after,
                slot,
                t,
                sizes.steps,
                time,
                sizes.rows,
                PASS=part,
                **options,
            )
    return output, last_hidden, None if cell is None else last_cell, history


def backward(
    grad_output: Tensor | None,
    grad_hidden: Tensor | None,
    grad_cell: Tensor | None,
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weights: Weights,
    lengths: Tensor | None,
    time: int,
    normalization: str,
    history: History,
) -> Gradients:
    """The gradients of the operator's arguments."""
    sizes = Sizes.of(projected, hidden, cell, weights.hidden, time)
    layout, rows = Layout.of(sizes), sizes.rows
    weight = wide_weight(weights.hidden, sizes, history.read.dtype)
    bias = wide_bias(weights.bias, sizes)
    gain, shift = _affine(weights, bias)
    chunk = max(1, min(sizes.steps, GRADIENT_NUMBERS // (rows * layout.activations)))
    of_activations = history.activations.new_empty([chunk, rows, layout.activations])
    of_read = history.read.new_zeros([rows, sizes.taps * layout.width])
    of_mixed = history.cell.new_zeros([2, rows, layout.width])
    mixing = history.cell.new_zeros([2, rows, _block_taps(sizes)])
    sums = torch.empty_like(history.partial[0])
    normalized = sizes.batch_size if weights.gain is not None else 0
    of_gain, of_shift = mixing.new_zeros([2, normalized, *sizes.grid, sizes.channels])
    of_weight = weight.new_zeros(weight.shape, dtype=torch.float32)
    of_bias = torch.zeros_like(bias)
    of_projected = torch.empty_like(projected, memory_format=torch.contiguous_format)
    multiply = matrix_product(of_activations, weight.T)
    given = [
        None if grad is None else grad.contiguous()
        for grad in (grad_output, grad_hidden, grad_cell)
    ]
    constants = _constants(sizes)
    options = constants | _options(sizes, normalization, lengths)
    for name, grad in zip(("OUTPUT", "HIDDEN", "CELL"), given, strict=True):
        options[f"HAS_{name}"] = grad is not None

    for end in range(sizes.steps, 0, -chunk):
        begin = max(0, end - chunk)
        for t in reversed(range(begin, end)):
            for part in _passes(normalization):
                kernels.retreat[(rows,)](
                    history.cell,
                    history.activations,
                    bias,
                    gain,
                    shift,
                    history.partial,
                    sums,
                    of_read,
                    of_mixed,
                    mixing,
                    of_activations,
                    of_gain,
                    of_shift,
                    *given,
                    lengths,
                    t - begin,
                    t,
                    sizes.steps,
                    time,
                    rows,
                    PASS=part,
                    BLOCK_TAPS=_block_taps(sizes),
                    **options,
                )
            multiply(t - begin, of_read)
        grads = of_activations[: end - begin]
        _add_weight_gradients(of_weight, of_bias, history.read[begin:end], grads)
        of_projected[begin:end] = _gradient_of_projected(grads, weight, sizes)

    of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    of_cell = torch.empty_like(of_hidden, dtype=None if cell is None else cell.dtype)
    kernels.arrive[(rows,)](
        of_read,
        of_mixed,
        mixing,
        of_hidden,
        of_cell,
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        LOGITS=sizes.logits,
        BLOCK_TAPS=_block_taps(sizes),
        **constants,
    )
    over = (0,) if normalization == "channel" else tuple(range(sizes.axes + 1))
    return Gradients(
        of_projected,
        of_hidden,
        None if cell is None else of_cell,
        narrow_weight(of_weight, weights.hidden, sizes),
        _narrow_columns(of_bias, sizes).to(weights.bias.dtype),
        None if weights.gain is None else of_gain.sum(over).to(weights.gain.dtype),
        None if weights.shift is None else of_shift.sum(over).to(weights.shift.dtype),
    )


def wide_weight(weight: Tensor, sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """Wʰ [O, M, K..] as the matrix of a product with what the kernel reads, [K^S·W, A]."""
    layout = Layout.of(sizes)
    wide = weight.new_zeros([sizes.taps, layout.width, layout.activations], dtype=dtype)
    inner = wide[:, : sizes.channels]
    taps_last = weight.flatten(2)  # [O, M, K^S]
    for part, columns in _columns(sizes):
        inner[..., columns] = taps_last[part].movedim(-1, 0).mT
    return wide.flatten(0, 1)


def narrow_weight(matrix: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
    """The inverse of `wide_weight`, in the shape and type of `weight`."""
    narrow = torch.empty_like(weight, memory_format=torch.contiguous_format)
    inner = matrix.view(sizes.taps, -1, matrix.shape[-1])[:, : sizes.channels]
    taps_last = narrow.flatten(2)
    for part, columns in _columns(sizes):
        taps_last[part] = inner[..., columns].mT.movedim(0, -1).to(weight.dtype)
    return narrow


def wide_bias(bias: Tensor, sizes: Sizes) -> Tensor:
    """bʰ [O] where A_t has its columns, [A], float32."""
    wide = bias.new_zeros([Layout.of(sizes).activations], dtype=torch.float32)
    for part, columns in _columns(sizes):
        wide[columns] = bias[part]
    return wide


def _narrow_columns(wide: Tensor, sizes: Sizes) -> Tensor:
    return torch.cat([wide[columns] for _, columns in _columns(sizes)])


def _columns(sizes: Sizes) -> list[tuple[slice, slice]]:
    """Where the rows of Wʰ of every gate, and of the logits, stand among the columns of A_t."""
    channels, width = sizes.channels, Layout.of(sizes).width
    pairs = [
        (
            slice(gate * channels, (gate + 1) * channels),
            slice(gate * width, gate * width + channels),
        )
        for gate in range(sizes.gates)
    ]
    if sizes.logits:
        start = sizes.gates * width
        pairs.append((slice(sizes.gates * channels, None), slice(start, start + sizes.logits)))
    return pairs


def _affine(weights: Weights, instead: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and bias of the normalization in float32; something to point at where there is none."""
    if weights.gain is None or weights.shift is None:
        return instead, instead
    return weights.gain.float().contiguous(), weights.shift.float().contiguous()


def _passes(normalization: str) -> tuple[int, ...]:
    return (1, 2) if normalization == "layer" else (0,)


def _constants(sizes: Sizes) -> dict[str, Any]:
    """What all the kernels at the locations are compiled for."""
    layout = Layout.of(sizes)
    channels = triton.next_power_of_2(layout.width)
    return {
        "M": sizes.channels,
        "WIDTH": layout.width,
        "AXES": sizes.axes,
        "P": sizes.tensor_size,
        "K": sizes.kernel_size,
        "RADIUS": radius(sizes.kernel_size),
        "TAPS": sizes.taps,
        "BLOCK_CHANNELS": channels,
        "num_warps": max(1, min(8, channels // 128)),
        **_early(),
    }


def _options(sizes: Sizes, normalization: str, lengths: Tensor | None) -> dict[str, Any]:
    """And what the steps are compiled for."""
    return {
        "ACTIVATIONS": Layout.of(sizes).activations,
        "LOCATIONS": sizes.locations,
        "GATES": sizes.gates,
        "LOGITS": sizes.logits,
        "NORMALIZATION": NORMALIZATIONS[normalization],
        "EPSILON": NORMALIZATION_EPSILON,
        "HAS_LENGTHS": lengths is not None,
        "BLOCK_LOCATIONS": triton.next_power_of_2(sizes.locations),
    }


def _block_taps(sizes: Sizes) -> int:
    return max(16, triton.next_power_of_2(sizes.taps))


def _early() -> dict[str, bool]:
    """Whether a kernel may start before the one in front of it has ended."""
    can = not INTERPRETED and torch.cuda.get_device_capability() >= (9, 0)
    return {"EARLY": True, "launch_pdl": True} if can else {"EARLY": False}


@cache
def tile(rows: int, depth: int, columns: int) -> Tile | None:
    """The tile of a product that is too small for the library; None for the library's own."""
    if rows * depth * columns > SMALL_PRODUCT:
        return None
    return Tile(64, 32, 64, 4, 4)


def by_library(left: Tensor, right: Tensor, out: Tensor) -> None:
    """The library's matrix product."""
    torch.mm(left, right, out=out)


def matrix_product(left: Tensor, right: Tensor) -> Callable[[int, Tensor], None]:
    """A function that writes the product of a slot of `left` [slots, rows, depth] and `right`."""
    _, rows, depth = left.shape
    size = None if left.dtype == torch.float32 else tile(rows, depth, right.shape[1])
    if size is None and not INTERPRETED:
        return lambda slot, out: by_library(left[slot], right, out)

    size = size or Tile(64, 32, 64, 4, 4)
    padded = pad_to_blocks(right, size)
    columns = right.shape[1]
    grid = (triton.cdiv(rows, size.rows) * triton.cdiv(columns, size.columns),)

    def by_kernel(slot: int, out: Tensor) -> None:
        kernels.product[grid](
            left,
            padded,
            out,
            slot,
            rows,
            DEPTH=depth,
            COLUMNS=columns,
            BLOCK_ROWS=size.rows,
            BLOCK_COLUMNS=size.columns,
            BLOCK_DEPTH=size.depth,
            UPCAST=INTERPRETED,
            num_warps=size.warps,
            num_stages=size.stages,
            **_early(),
        )

    return by_kernel


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


def _add_weight_gradients(
    of_weight: Tensor, of_bias: Tensor, read: Tensor, of_activations: Tensor
) -> None:
    """Take in timesteps: what was read [n, B·L, K^S·W] and the gradient of A [n, B·L, A]."""
    left, right = read.flatten(0, 1), of_activations.flatten(0, 1)
    ones = right.new_ones([1, len(right)])  # a product, because it sums faster than a sum
    for total, factor in ((of_weight, left.T), (of_bias.unsqueeze(0), ones)):
        if right.dtype == torch.float32:
            total.addmm_(factor, right)
        elif right.is_cuda:
            total += torch.mm(factor, right, out_dtype=torch.float32)
        else:
            total += factor.float() @ right.float()


def _gradient_of_projected(of_activations: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
    """From the gradient of A [n, B·L, A], at the locations near the input, [n, B, M]."""
    lead = of_activations.unflatten(1, [sizes.batch_size, sizes.locations])
    taps = weight.view(sizes.taps, -1, weight.shape[1])
    reach = radius(sizes.kernel_size)
    total: Tensor | None = None
    # Location p reads the input, at −1, with tap r − 1 − p of every axis
    for place in product(range(min(reach, sizes.tensor_size)), repeat=sizes.axes):
        location = tap = 0
        for p in place:
            location = location * sizes.tensor_size + p
            tap = tap * sizes.kernel_size + reach - 1 - p
        part = lead[:, :, location] @ taps[tap].T
        total = part if total is None else total + part
    assert total is not None
    return total[..., : sizes.channels]
