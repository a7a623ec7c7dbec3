"""The memory of a call at its peak."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): "resets the peak resident set size to the current value"


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Return the bytes that a call needs at its peak, without those in use before it.

    Call it once before: memory that only a first call needs would count. On a GPU the number is
    the allocator's, elsewhere the resident memory of the process; None where that is unknown
    (it takes Linux).
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
        # Free memory that the process still holds would hide the call's own
        ctypes.CDLL(None).malloc_trim(0)
        RESET.write_text(RESET_PEAK, encoding="ascii")
        before = _bytes("VmRSS")
    except (OSError, AttributeError):
        return None
    call()
    return max(_bytes("VmHWM") - before, 0)


def _bytes(name: str) -> int:
    _, _, rest = STATUS.read_text(encoding="ascii").partition(f"{name}:")
    return 1024 * int(rest.split()[0])
