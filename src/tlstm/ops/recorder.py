"""Recorders: they make a computation replayable, on an NVIDIA GPU as a CUDA graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

Inputs = tuple[Tensor | None, ...]
Results = tuple[Tensor, ...]


class Recorder(Protocol):
    """A way to record computations on a kind of device."""

    def record(self, compute: Callable[[], Results]) -> tuple[Results, Callable[[], object]]:
        """Record a computation.

        Args:
            compute: reads tensors at fixed addresses, and does not wait for the device.

        Returns:
            The results, whose values are undefined as yet, and a function that computes them again
            into the same memory.

        Raises:
            RuntimeError: it cannot be recorded.
        """


class CudaRecorder:
    """Records on the current GPU, in a CUDA graph with memory of its own."""

    def record(self, compute: Callable[[], Results]) -> tuple[Results, Callable[[], object]]:
        """Compute once, then capture; the GPU is waited for."""
        compute()  # compiles kernels and starts libraries, which a capture must not do
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # restored after a failure too
            _new_workspaces(),
            # Other threads may allocate memory meanwhile
            torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"),
        ):
            results = compute()
        return results, graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """Return the recorder for tensors on a device; None where nothing can be recorded now.

    A capture of the caller's own records these kernels itself.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    return None if torch.cuda.is_current_stream_capturing() else CudaRecorder()


@contextmanager
def _new_workspaces() -> Iterator[None]:
    """Give a capture cuBLAS workspaces of its own, whose memory lives as long as its graph."""
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()
