"""What torch knows of the machine."""

import torch


def gpu_name(device: torch.device) -> str | None:
    """Return the name of a GPU, such as "NVIDIA H200"; None for the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None
