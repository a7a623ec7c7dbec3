"""The device that a command names, and the name of the machine's GPU."""

import re

import torch


def gpu_name(device: torch.device) -> str | None:
    """Return the name of a GPU, such as "NVIDIA H200"; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def named_device(name: str | None) -> torch.device:
    """Return the device of --device: cpu, cuda or cuda:1; None stands for a GPU if there is one.

    Raises:
        ValueError: there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", name)
    if not found:
        raise ValueError(f"--device must be cpu or cuda, got {name}")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device is {name}, and there is no NVIDIA GPU that PyTorch can use")
    if name != "cpu" and int(found[1] or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device is {name}, and there are {torch.cuda.device_count()} GPUs")
    return torch.device(name)
