"""The constants that the kernels are compiled for, and the choices of speed among them."""

from typing import Any

import torch
import triton
from torch import Tensor

from tlstm.ops.geometry import radius
from tlstm.ops.reference import NORMALIZATION_EPSILON
from tlstm.ops.shapes import Sizes
from tlstm.ops.triton.layout import Layout, block_taps
from tlstm.ops.triton.matmul import INTERPRETED

# Least examples and channels, and most locations, for which `memory_conv_bwd_kernel` is faster
MANY_EXAMPLES, MANY_CHANNELS, MOST_LOCATIONS = 64, 256, 64
NORMALIZATIONS = {"": 0, "channel": 1, "layer": 2}


def passes(normalization: str) -> tuple[int, ...]:
    """Return the passes of a step's kernel: LN first needs statistics over an example's rows."""
    return (1, 2) if normalization == "layer" else (0,)


def constants(sizes: Sizes) -> dict[str, Any]:
    """Return the constants of all the kernels at the locations."""
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
    sizes: Sizes, normalization: str, lengths: Tensor | None, compute_dtype: torch.dtype
) -> dict[str, Any]:
    """Return the further constants of a step's kernels."""
    return {
        "ACTIVATIONS": Layout.of(sizes).activations,
        "LOCATIONS": sizes.locations,
        "GATES": sizes.gates,
        "LOGITS": sizes.logits,
        "NORMALIZATION": NORMALIZATIONS[normalization],
        "EPSILON": NORMALIZATION_EPSILON,
        "HAS_LENGTHS": lengths is not None,
        "FAST": compute_dtype != torch.float32 and not INTERPRETED,
        "BLOCK_LOCATIONS": triton.next_power_of_2(sizes.locations),
    }


def warps_backward(sizes: Sizes) -> int:
    """Return the warps of a row of `step_bwd_kernel`: few, as each repeats much of the work."""
    channels = triton.next_power_of_2(Layout.of(sizes).width)
    each = 512 if sizes.axes == 2 and not separate_memory_conv(sizes) else 128
    return max(1, min(8, channels // each))


def registers_backward(sizes: Sizes) -> int | None:
    """Return the most registers of a thread of `step_bwd_kernel`; None for no limit.

    With 64 a multiprocessor has room for four rows of 1024 channels. Rank 2 has so few rows that
    then none has to wait for another.
    """
    channels = triton.next_power_of_2(Layout.of(sizes).width)
    return 64 if sizes.axes == 1 and channels == 1024 else None


def separate_memory_conv(sizes: Sizes) -> bool:
    """Return True if a separate kernel for the memory convolution's gradients is faster.

    It runs one program for each example, and saves a row the reads of its neighbours' channels.
    """
    many = sizes.batch_size >= MANY_EXAMPLES and sizes.channels >= MANY_CHANNELS
    return many and sizes.axes == 2 and sizes.logits > 0 and sizes.locations <= MOST_LOCATIONS


def memory_conv_options(sizes: Sizes, compute_dtype: torch.dtype) -> dict[str, Any]:
    """Return the constants of `memory_conv_bwd_kernel`."""
    unneeded = ("M", "BLOCK_CHANNELS", "num_warps")
    shared = {name: value for name, value in constants(sizes).items() if name not in unneeded}
    return shared | {
        "ACTIVATIONS": Layout.of(sizes).activations,
        "LOCATIONS": sizes.locations,
        "BLOCK_LOCATIONS": max(16, triton.next_power_of_2(sizes.locations)),
        "BLOCK_CHANNELS": 256 if sizes.locations <= 16 else 64,
        "BLOCK_TAPS": block_taps(sizes),
        "PRECISION": "ieee" if compute_dtype == torch.float32 else "tf32",
        "num_warps": 4,
    }
