"""Where a result comes from: the code's commit, the versions, the machine."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tlstm.record import Hardware

PACKAGES = ("tlstm", "torch", "lightning", "torchmetrics", "numpy", "triton", "hydra-core", "wandb")


def commit() -> tuple[str | None, bool]:
    """The commit of the code, and whether the code was changed since.

    The environment variable GIT_COMMIT tells it where the code is a copy, as in a container.
    Without that and outside of a repository it is None.
    """
    told = os.environ.get("GIT_COMMIT")
    head = told or _git("rev-parse", "HEAD")
    if told or head is None:
        return head, False
    return head, bool(_git("status", "--porcelain", "--untracked-files=no"))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def hardware(device: torch.device, devices: int) -> Hardware:
    """The machine, as seen by a run on so many devices like this one."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return Hardware(
        device=name,
        devices=devices,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        system=platform.platform(),
    )


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None
