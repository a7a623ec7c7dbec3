"""The GPUs or processor cores of a sweep's runs, one each or several together.

Several processes share a GPU through NVIDIA's Multi-Process Service (MPS). Without it their
kernels take turns, each with the whole GPU; with it small kernels run at the same time. The
service needs no rights and changes no setting. Where this process is killed before it can end the
service, an idle one is left.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import torch

from tlstm.training.config import Run
from tlstm.training.cores import cores
from tlstm.training.run import check_devices

PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
CONTROL = "nvidia-cuda-mps-control"
USE_GPU = "import torch; torch.ones(1, device='cuda').sum().item()"
SECONDS = 120  # that starting, trying and ending the service may take each, at the most


def most_devices(runs: Sequence[Run], devices: Sequence[str]) -> int:
    """Return the largest number of devices that a run takes.

    Raises:
        ValueError: there are fewer, or they cannot share the batch.
    """
    for run in runs:
        check_devices(run.config)
    most = max((run.config.trainer.devices for run in runs), default=1)
    if devices and most > len(devices):
        raise ValueError(
            f"trainer.devices={most} takes more GPUs than the {len(devices)} there are"
        )
    return most


def number_of_jobs(
    jobs: int | None, jobs_per_device: int | None, devices: Sequence[str], devices_per_run: int
) -> int:
    """Return the number of runs at a time, from the command's options and the GPUs.

    Raises:
        ValueError: GPUs shall be shared, and there is none.
    """
    if jobs_per_device is None:
        return jobs or max(1, (len(devices) or cores()) // devices_per_run)
    if not devices:
        raise ValueError(
            "--jobs-per-device shares GPUs, and there is none here; --jobs shares the processor"
        )
    most = jobs_per_device * len(devices) // devices_per_run
    return most if jobs is None else min(jobs, most)


def visible_gpus() -> list[str]:
    """Return the GPUs that runs may take, as CUDA_VISIBLE_DEVICES names them.

    That may name some that are not there, which end the list for CUDA.
    """
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = range(count) if named is None else named.split(",")
    return [str(name).strip() for name in names][:count]


def use_devices(devices: Sequence[str]) -> None:
    """Let this process see these GPUs alone; called before it has seen any."""
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)


@contextlib.contextmanager
def side_by_side() -> Iterator[bool]:
    """Let the processes that are started meanwhile run at the same time on their GPUs.

    Where the environment names a service already, that one is used.

    Yields:
        True where they do; False where the service is not installed or does not work.
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
