"""The provenance of a result: the code's commit, the versions, the machine."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tlstm.records.schema import (
    Hardware,
)

PACKAGES = ("tlstm", "torch", "lightning", "torchmetrics", "numpy", "triton", "hydra-core", "wandb")


def commit() -> tuple[str | None, bool]:
    """Return the commit of the code, and True if the code was changed since.

    The environment variable GIT_COMMIT tells it where the code is a copy, as in a container.
    Without that and outside of a repository it is None.
    """
    told = os.environ.get("GIT_COMMIT")
    head = told or _git("rev-parse", "HEAD")
    if told or head is None:
        return head, False
    return head, bool(_git("status", "--porcelain", "--untracked-files=no"))


def versions(**others: str | None) -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on.

    Args:
        others: versions that no package's metadata tell, such as ``cuda``; None is left out.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {name: told for name, told in others.items() if told}


def hardware(gpu: str | None, devices: int, threads: int) -> Hardware:
    """Return the machine, as seen by a run.

    Args:
        gpu: the GPU's name; None for a run on the processor.
        devices: number of such devices that the run is on.
        threads: threads that it computes with.
    """
    return Hardware(
        device=gpu or processor(),
        devices=devices,
        cores=os.cpu_count() or 1,
        threads=threads,
        system=platform.platform(),
    )


def processor() -> str:
    """Return the processor's name, as the system tells it."""
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
