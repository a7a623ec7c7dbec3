"""How much memory a call needs at its peak."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): "resets the peak resident set size to the current value"


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call needs at its peak, beside what is there before it.

    On a GPU as PyTorch's allocator counts it; elsewhere the process's resident memory, as the
    system counts it, and None where the system does not (it takes Linux). What the call needs
    only the first time must have been there before.
    """
    return _on_gpu(call, device) if device.type == "cuda" else _resident(call)


def _on_gpu(call: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _resident(call: Callable[[], object]) -> int | None:
    gc.collect()
    try:
        # Memory that was freed and not given back would hide what the call takes
        ctypes.CDLL(None).malloc_trim(0)
        RESET.write_text(RESET_PEAK, encoding="ascii")
        before = _bytes("VmRSS")
    except (OSError, AttributeError):
        return None
    call()
    return max(_bytes("VmHWM") - before, 0)


def _bytes(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])
