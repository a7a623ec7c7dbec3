"""What the kernels are compiled for, and what of it is a choice of speed."""

from typing import Any

import torch
import triton
from torch import Tensor

from tlstm.ops.geometry import radius
from tlstm.ops.reference import NORMALIZATION_EPSILON
from tlstm.ops.shapes import Sizes
from tlstm.ops.triton.layout import Layout, block_taps
from tlstm.ops.triton.matmul import INTERPRETED

# From how many examples and channels, and up to how many locations, `unmix` is the faster way
MANY_EXAMPLES, MANY_CHANNELS, MOST_LOCATIONS = 64, 256, 64
NORMALIZATIONS = {"": 0, "channel": 1, "layer": 2}


def passes(normalization: str) -> tuple[int, ...]:
    """The parts of a step's kernel: LN's statistics take in all rows of an example first."""
    return (1, 2) if normalization == "layer" else (0,)


def constants(sizes: Sizes) -> dict[str, Any]:
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


def step_options(
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


def warps_backward(sizes: Sizes) -> int:
    """Warps of a row of `retreat`, which does much that every warp repeats for its channels."""
    channels = triton.next_power_of_2(Layout.of(sizes).width)
    each = 512 if sizes.axes == 2 and not mixes_apart(sizes) else 128
    return max(1, min(8, channels // each))


def registers_backward(sizes: Sizes) -> int | None:
    """The most registers of a thread of `retreat`; None: as many as it likes.

    With 64 a multiprocessor has room for four rows of 1024 channels; as the rows of rank 2 are few,
    none of them then has to wait for another.
    """
    channels = triton.next_power_of_2(Layout.of(sizes).width)
    return 64 if sizes.axes == 1 and channels == 1024 else None


def mixes_apart(sizes: Sizes) -> bool:
    """Whether a kernel by itself for the memory convolution's gradients is faster.

    It is one program an example, and saves what a row reads of its neighbours' channels.
    """
    many = sizes.batch_size >= MANY_EXAMPLES and sizes.channels >= MANY_CHANNELS
    return many and sizes.axes == 2 and sizes.logits > 0 and sizes.locations <= MOST_LOCATIONS


def mixer_options(sizes: Sizes, operands: torch.dtype) -> dict[str, Any]:
    """What `unmix` is compiled for."""
    unneeded = ("M", "BLOCK_CHANNELS", "num_warps")
    shared = {name: value for name, value in constants(sizes).items() if name not in unneeded}
    return shared | {
        "ACTIVATIONS": Layout.of(sizes).activations,
        "LOCATIONS": sizes.locations,
        "BLOCK_LOCATIONS": max(16, triton.next_power_of_2(sizes.locations)),
        "BLOCK_CHANNELS": 256 if sizes.locations <= 16 else 64,
        "BLOCK_TAPS": block_taps(sizes),
        "PRECISION": "ieee" if operands == torch.float32 else "tf32",
        "num_warps": 4,
    }
