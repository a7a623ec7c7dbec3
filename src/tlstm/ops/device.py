"""The name of the machine's GPU."""

import torch


def gpu_name(device: torch.device) -> str | None:
    """Return the name of a GPU, such as "NVIDIA H200"; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None
