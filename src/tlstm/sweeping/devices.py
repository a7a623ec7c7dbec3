"""What a sweep's runs are put on: GPUs or processor cores, one each or several together."""

import os
from collections.abc import Sequence

import torch

from tlstm.training.config import Run
from tlstm.training.run import check_devices


def most_devices(runs: Sequence[Run], devices: Sequence[str]) -> int:
    """How many devices a run takes at the most.

    Raises:
        ValueError: a run cannot have so many.
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
    """How many runs at a time, from what was asked for and the GPUs there are.

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


def cores() -> int:
    """Processor cores of this machine."""
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that runs may take, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
