"""Processes that share a GPU at the same time, through NVIDIA's Multi-Process Service (MPS).

Without it, the kernels of different processes take turns, each with the whole GPU; with it, small
kernels of several processes run side by side. The service needs no rights and changes no setting;
where this process is killed before it can end it, it stays, idle.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
CONTROL = "nvidia-cuda-mps-control"
USE_GPU = "import torch; torch.ones(1, device='cuda').sum().item()"
SECONDS = 120  # that starting, trying and ending the service may take each, at the most


@contextmanager
def side_by_side() -> Iterator[bool]:
    """Let the processes that are started meanwhile run side by side on their GPUs.

    Where the environment names a service already, that one is used.

    Yields:
        Whether they do; False where the service is not installed or does not work.
    """
    control = shutil.which(CONTROL)
    if PIPES in os.environ or control is None:
        yield PIPES in os.environ
        return
    with tempfile.TemporaryDirectory(prefix="tlstm-mps-") as directory:
        # The service is for every GPU, so that its clients may name them as they do without it
        every = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        service = every | {PIPES: directory, LOGS: directory}
        try:
            works = _succeeds([control, "-d"], service) and _succeeds(
                [sys.executable, "-c", USE_GPU], os.environ | {PIPES: directory}
            )
            if works:
                os.environ[PIPES] = directory
            yield works
        finally:
            os.environ.pop(PIPES, None)
            _succeeds([control], service, said="quit\n")


def _succeeds(command: list[str], environment: dict[str, str], said: str = "") -> bool:
    try:
        done = subprocess.run(
            command,
            env=environment,
            input=said,
            text=True,
            stdout=subprocess.DEVNULL,  # a pipe would be held open by the service
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
