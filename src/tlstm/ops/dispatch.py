"""Which implementation of a layer runs: asked for, or the best that the machine can."""

import logging
import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch.autograd import forward_ad

Implementation = Literal["autograd", "pytorch", "triton"]

IMPLEMENTATIONS: tuple[str, ...] = get_args(Implementation)
ENVIRONMENT_VARIABLE = "TLSTM_IMPLEMENTATION"

log = logging.getLogger(__name__)


def asked_for(implementation: str | None) -> Implementation | None:
    """What the argument or else the environment variable asks for, None for the best there is.

    Raises:
        ValueError: it is none of them.
    """
    name, value = "implementation", implementation
    if value is None:
        name, value = ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE) or None
    if value is not None and value not in IMPLEMENTATIONS:
        raise ValueError(f"{name} must be one of {', '.join(IMPLEMENTATIONS)}, got {value!r}")
    return value  # type: ignore[return-value]


def operands(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type of the matrix products' operands: autocast's where it is on, else the weights'.

    Autocast leaves float64 as it is, and there is none without a device.
    """
    exempt = dtype == torch.float64 or device.type == "meta"
    if not exempt and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return dtype


def choose(
    asked: Implementation | None, device: torch.device, operands: torch.dtype, rank: int, taps: int
) -> Implementation:
    """The implementation for these tensors.

    Raises:
        ValueError: the one that was asked for cannot.
    """
    if asked == "autograd":
        return asked
    if _being_transformed():
        if asked is None:
            return "autograd"
        raise ValueError(
            f"implementation {asked!r} takes no torch.func transforms and no forward-mode "
            "derivatives; 'autograd' does"
        )
    if asked == "pytorch":
        return asked
    obstacle = _obstacle_to_kernels(device, operands, rank, taps)
    if obstacle is None:
        return "triton"
    if asked == "triton":
        raise ValueError(f"implementation 'triton' {obstacle}; 'pytorch' can")
    return "pytorch"


@cache
def report(layer: str, device: torch.device, chosen: Implementation) -> None:
    """Say once in the debug log what layers take on a device."""
    log.debug("%s on %s: implementation %r", layer, device, chosen)


def _being_transformed() -> bool:
    """Whether the tensors may carry derivatives that an operator of one's own would drop."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@torch.compiler.assume_constant_result
def _obstacle_to_kernels(
    device: torch.device, operands: torch.dtype, rank: int, taps: int
) -> str | None:
    """Why the kernels cannot take these tensors, if they cannot."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and (device.type != "cuda" or torch.version.cuda is None):
        return f"needs an NVIDIA GPU, and the tensors are on {device.type}"
    if find_spec("triton") is None:
        return "needs the package triton"
    if rank > 3 or taps > 32:
        return f"takes ranks 2 and 3 with at most 32 taps, not rank {rank} with {taps}"
    if operands not in (torch.float32, torch.bfloat16, torch.float16):
        return f"takes float32, bfloat16 and float16, not {operands}"
    if interpreted:
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "needs an NVIDIA GPU of compute capability 8.0 or above"
    return None
