"""The implementation that a layer runs: the requested one, or the fastest for its tensors."""

import logging
import os
import sys
from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch.autograd import forward_ad

Implementation = Literal["autograd", "pytorch", "triton"]

IMPLEMENTATIONS: tuple[str, ...] = get_args(Implementation)
ENVIRONMENT_VARIABLE = "TLSTM_IMPLEMENTATION"

log = logging.getLogger(__name__)


def requested_implementation(implementation: str | None) -> Implementation | None:
    """Return the implementation that the argument or the environment variable requests.

    None stands for the fastest.

    Raises:
        ValueError: the requested implementation does not exist.
    """
    name, value = "implementation", implementation
    if value is None:
        name, value = ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE) or None
    if value is not None and value not in IMPLEMENTATIONS:
        raise ValueError(f"{name} must be one of {', '.join(IMPLEMENTATIONS)}, got {value!r}")
    return value  # type: ignore[return-value]


def may_need_gradients() -> bool:
    """Return True if what is computed here may need gradients; a trace is for calls with them."""
    return torch.is_grad_enabled() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def compute_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the type of the matrix products' operands: autocast's if it is on, else the weights'.

    Autocast leaves float64 unchanged and does not exist on the meta device.
    """
    exempt = dtype == torch.float64 or device.type == "meta"
    if not exempt and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return dtype


def resolve_implementation(
    requested: Implementation | None,
    device: torch.device,
    compute_dtype: torch.dtype,
    rank: int,
    taps: int,
) -> Implementation:
    """Return the implementation for these tensors.

    Args:
        requested: an implementation; None for the fastest.
        device: of the tensors.
        compute_dtype: the type of the matrix products' operands.
        rank: D of the hidden tensor.
        taps: K^S.

    Raises:
        ValueError: the requested implementation cannot take them.
    """
    if requested == "autograd":
        return requested
    if _being_transformed():
        if requested is None:
            return "autograd"
        raise ValueError(
            f"implementation {requested!r} takes no torch.func transforms and no forward-mode "
            "derivatives; 'autograd' does"
        )
    if _being_exported_to_onnx():
        if requested is None:
            return "autograd"
        raise ValueError(
            f"implementation {requested!r} has no ONNX operators; 'autograd' has, "
            "for one number of timesteps"
        )
    if requested == "pytorch":
        return requested
    obstacle = _obstacle_to_kernels(device, compute_dtype, rank, taps)
    if obstacle is None:
        return "triton"
    if requested == "triton":
        raise ValueError(f"implementation 'triton' {obstacle}; 'pytorch' can")
    return "pytorch"


@cache
def report(layer: str, device: torch.device, chosen: Implementation) -> None:
    """Write to the debug log, once for each, the implementation of a layer on a device."""
    log.debug("%s on %s: implementation %r", layer, device, chosen)


@torch.compiler.assume_constant_result
def _being_transformed() -> bool:
    """Return True if the tensors may carry derivatives that a custom operator would drop."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


@torch.compiler.assume_constant_result
def _being_exported_to_onnx() -> bool:
    """Return True in torch.onnx.export, which imports its module."""
    onnx = sys.modules.get("torch.onnx")
    return onnx is not None and onnx.is_in_onnx_export()


@torch.compiler.assume_constant_result
def _obstacle_to_kernels(
    device: torch.device, compute_dtype: torch.dtype, rank: int, taps: int
) -> str | None:
    """Return the reason why the kernels cannot take these tensors, or None."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and (device.type != "cuda" or torch.version.cuda is None):
        return f"needs an NVIDIA GPU, and the tensors are on {device.type}"
    if find_spec("triton") is None:
        return "needs the package triton"
    if rank > 3 or taps > 32:
        return f"takes ranks 2 and 3 with at most 32 taps, not rank {rank} with {taps}"
    if compute_dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"takes float32, bfloat16 and float16, not {compute_dtype}"
    if interpreted:
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "needs an NVIDIA GPU of compute capability 8.0 or above"
    return None
