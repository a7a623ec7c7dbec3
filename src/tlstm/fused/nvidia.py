"""The whole sequence on an NVIDIA GPU, kernel by kernel.

Nothing here waits for the GPU, so that a call can be captured in a CUDA graph.

Dimension letters of this file:
    T       timesteps that are computed
    B       examples
    P..     the location axes; L = P^S locations
    K..     the kernel's axes; K^S taps
    M       channels, and W the same padded to a multiple of eight
    N       what a step's product sums over: K^S·W numbers, a one and seven zeros
    R       columns of that in memory, with room to a whole cache line
    A       columns of A_t in memory: W in an RNN, otherwise 4W and room for the logits
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from tlstm.cell import NORMALIZATION_EPSILON
from tlstm.fused.arguments import Gradients, Weights
from tlstm.fused.gpu_product import INTERPRETED, affine_product, matrix_product
from tlstm.fused.kernels.step_backward import arrive, retreat, unmix
from tlstm.fused.kernels.step_forward import advance, enter
from tlstm.fused.launch import Launch
from tlstm.fused.layout import Layout, block_taps, pack, unpack
from tlstm.fused.product import product
from tlstm.fused.sizes import Sizes
from tlstm.geometry import radius

# Numbers in the gradients of A_t that wait to become, in one product, a gradient of the weights
GRADIENT_NUMBERS = 2**28
# From how many examples and channels, and up to how many locations, `unmix` is the faster way
MANY_EXAMPLES, MANY_CHANNELS, MOST_LOCATIONS = 64, 256, 64
NORMALIZATIONS = {"": 0, "channel": 1, "layer": 2}


class History(NamedTuple):
    """What the backward pass reads; of two timesteps only, and some of it, where none follows.

    Attributes:
        read: what every step's kernel reads and then a one, [T, B·L, R], in the
            operands' type.
        cell: C_t, [T+1, B·L, W], float32.
        activations: A_t, [T, B·L, A], in the operands' type.
        partial: for LN, every location's mean and sum of squared deviations, [T, B·L, 2].
        weight: Wʰ and bʰ as a matrix, [N, A], in the operands' type; empty where none follows.
    """

    read: Tensor
    cell: Tensor
    activations: Tensor
    partial: Tensor
    weight: Tensor


def empty_history(sizes: Sizes, operands: torch.dtype, keep: bool, like: Tensor) -> History:
    """A History to be written, on the device of `like`."""
    layout, rows = Layout.of(sizes), sizes.rows
    kept, held = (sizes.steps, sizes.steps + 1) if keep else (1, 2)
    cells = held if sizes.gates == 4 else 0
    return History(
        like.new_empty([max(kept, 2), rows, layout.read], dtype=operands),
        like.new_empty([cells, rows, layout.width], dtype=torch.float32),
        like.new_empty([kept, rows, layout.activations], dtype=operands),
        like.new_empty([kept, rows, 2], dtype=torch.float32),
        like.new_empty([layout.summed, layout.activations] if keep else [0], dtype=operands),
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
    layout = Layout.of(sizes)
    history = empty_history(sizes, operands, keep, hidden)
    projected = projected.contiguous()
    output = hidden.new_empty([time, sizes.batch_size, sizes.channels], dtype=operands)
    last_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    last_cell = torch.empty_like(last_hidden, dtype=None if cell is None else cell.dtype)
    weight = pack(weights, sizes, operands)
    gain, shift = _affine(weights, history.partial)
    constants = _constants(sizes)
    written = constants | {"READ": layout.read}
    options = written | _options(sizes, normalization, lengths, operands)
    multiply = affine_product(history.read[..., : layout.summed], weight, layout.taken)

    enter[(sizes.rows,)](
        history.read,
        history.cell,
        hidden.contiguous(),
        None if cell is None else cell.contiguous(),
        projected,
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        **written,
    )
    advances = [
        Launch(advance, (sizes.rows,), PASS=part, **options) for part in _passes(normalization)
    ]
    for t in range(sizes.steps):
        now, after, slot = (t, t + 1, t) if keep else (t % 2, (t + 1) % 2, 0)
        multiply(now, history.activations[slot])
        for launch in advances:
            launch(
                history.read,
                history.cell,
                history.activations,
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
            )
    if keep:
        history = history._replace(weight=weight)
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
    gain, shift = _affine(weights, history.partial)
    chunks = triton.cdiv(sizes.steps * rows * layout.activations, GRADIENT_NUMBERS)
    chunk = triton.cdiv(sizes.steps, min(sizes.steps, chunks))
    of_activations = history.activations.new_empty([chunk, rows, layout.activations])
    of_read = history.read.new_empty([rows, layout.taken])
    of_mixed = history.cell.new_empty([2, rows, layout.width])
    mixing = history.cell.new_empty([2, rows, block_taps(sizes)])
    apart = _mixes_apart(sizes)
    of_cells = torch.empty_like(of_mixed[0]) if apart else of_mixed
    sums = torch.empty_like(history.partial[0])
    normalized = sizes.batch_size if weights.gain is not None else 0
    of_affine = mixing.new_zeros([2, normalized, *sizes.grid, sizes.channels])
    of_gain, of_shift = of_affine
    of_weights: Tensor | None = None
    of_projected = torch.empty_like(projected, memory_format=torch.contiguous_format)
    multiply = matrix_product(of_activations, history.weight[: layout.taken].T)
    given = [
        None if grad is None else grad.contiguous()
        for grad in (grad_output, grad_hidden, grad_cell)
    ]
    constants = _constants(sizes)
    options = constants | _options(sizes, normalization, lengths, history.read.dtype)
    mixer = _mixer(sizes, history.read.dtype)
    for name, grad in zip(("OUTPUT", "HIDDEN", "CELL"), given, strict=True):
        options[f"HAS_{name}"] = grad is not None

    options |= {
        "APART": apart,
        "BLOCK_TAPS": block_taps(sizes),
        "num_warps": _warps_backward(sizes),
        "maxnreg": _registers_backward(sizes),
    }
    retreats = [Launch(retreat, (rows,), PASS=part, **options) for part in _passes(normalization)]
    launch_unmix = Launch(unmix, (sizes.batch_size,), **mixer)

    for end in range(sizes.steps, 0, -chunk):
        begin = max(0, end - chunk)
        for t in reversed(range(begin, end)):
            for launch in retreats:
                launch(
                    history.cell,
                    history.activations,
                    gain,
                    shift,
                    history.partial,
                    sums,
                    of_read,
                    of_mixed,
                    mixing,
                    of_cells,
                    of_activations,
                    of_projected,
                    of_gain,
                    of_shift,
                    *given,
                    lengths,
                    t - begin,
                    t,
                    sizes.steps,
                    time,
                    rows,
                )
            if apart:
                launch_unmix(
                    history.cell,
                    history.activations,
                    of_mixed[t % 2],
                    of_cells,
                    of_activations,
                    t - begin,
                    t,
                    rows,
                )
            multiply(t - begin, of_read)
        read = history.read[begin:end].flatten(0, 1)[:, : layout.summed]
        grads = of_activations[: end - begin].flatten(0, 1)
        part = product(read.T, grads, None, torch.float32)
        of_weights = part if of_weights is None else of_weights.add_(part)
    assert of_weights is not None

    of_hidden = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    of_cell = torch.empty_like(of_hidden, dtype=None if cell is None else cell.dtype)
    arrive[(rows,)](
        of_read,
        of_mixed,
        mixing,
        of_cells,
        of_projected,
        of_hidden,
        of_cell,
        APART=apart,
        LOCATIONS=sizes.locations,
        GATES=sizes.gates,
        LOGITS=sizes.logits,
        BLOCK_TAPS=block_taps(sizes),
        **constants,
    )
    over = (1,) if normalization == "channel" else tuple(range(1, sizes.axes + 2))
    of_gain, of_shift = of_affine.sum(over)
    return Gradients(
        of_projected,
        of_hidden,
        None if cell is None else of_cell,
        *unpack(of_weights, weights, sizes),
        None if weights.gain is None else of_gain.to(weights.gain.dtype, copy=True),
        None if weights.shift is None else of_shift.to(weights.shift.dtype, copy=True),
    )


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
    }


def _options(
    sizes: Sizes, normalization: str, lengths: Tensor | None, operands: torch.dtype
) -> dict[str, Any]:
    """And what the steps are compiled for."""
    return {
        "ACTIVATIONS": Layout.of(sizes).activations,
        "LOCATIONS": sizes.locations,
        "GATES": sizes.gates,
        "LOGITS": sizes.logits,
        "NORMALIZATION": NORMALIZATIONS[normalization],
        "EPSILON": NORMALIZATION_EPSILON,
        "HAS_LENGTHS": lengths is not None,
        "FAST": operands != torch.float32 and not INTERPRETED,
        "BLOCK_LOCATIONS": triton.next_power_of_2(sizes.locations),
    }


def _warps_backward(sizes: Sizes) -> int:
    """Warps of a row of `retreat`, which does much that every warp repeats for its channels."""
    channels = triton.next_power_of_2(Layout.of(sizes).width)
    each = 512 if sizes.axes == 2 and not _mixes_apart(sizes) else 128
    return max(1, min(8, channels // each))


def _registers_backward(sizes: Sizes) -> int | None:
    """The most registers of a thread of `retreat`; None: as many as it likes.

    With 64 a multiprocessor has room for four rows of 1024 channels; as the rows of rank 2 are few,
    none of them then has to wait for another.
    """
    channels = triton.next_power_of_2(Layout.of(sizes).width)
    return 64 if sizes.axes == 1 and channels == 1024 else None


def _mixes_apart(sizes: Sizes) -> bool:
    """Whether a kernel by itself for the memory convolution's gradients is faster.

    It is one program an example, and saves what a row reads of its neighbours' channels.
    """
    many = sizes.batch_size >= MANY_EXAMPLES and sizes.channels >= MANY_CHANNELS
    return many and sizes.axes == 2 and sizes.logits > 0 and sizes.locations <= MOST_LOCATIONS


def _mixer(sizes: Sizes, operands: torch.dtype) -> dict[str, Any]:
    """What `unmix` is compiled for."""
    unneeded = ("M", "BLOCK_CHANNELS", "num_warps")
    constants = {name: value for name, value in _constants(sizes).items() if name not in unneeded}
    return constants | {
        "ACTIVATIONS": Layout.of(sizes).activations,
        "LOCATIONS": sizes.locations,
        "BLOCK_LOCATIONS": max(16, triton.next_power_of_2(sizes.locations)),
        "BLOCK_CHANNELS": 256 if sizes.locations <= 16 else 64,
        "BLOCK_TAPS": block_taps(sizes),
        "PRECISION": "ieee" if operands == torch.float32 else "tf32",
        "num_warps": 4,
    }
