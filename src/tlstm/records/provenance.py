"""The provenance of a result: the code's commit, the versions, the machine."""

import os
import platform
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tlstm.records.schema import Hardware

PACKAGES = ("tlstm", "torch", "lightning", "torchmetrics", "numpy", "triton", "hydra-core", "wandb")


def commit() -> tuple[str | None, bool]:
    """Return the commit of the code, and True if the code was changed since.

    It is that of the project's own repository alone: an installed package has none, whatever
    repository it is installed in. Of a copy of the sources, as in a container, the environment
    variable GIT_COMMIT may name it.
    """
    root = Path(__file__).resolve().parents[3]
    if _project(root) != "tlstm":
        return None, False
    if not (root / ".git").exists():
        given = os.environ.get("GIT_COMMIT", "")
        return given if re.fullmatch("[0-9a-f]{40}", given) else None, False
    head = _git(root, "rev-parse", "HEAD")
    return head, head is not None and _git(root, "status", "--porcelain", "-uno") != ""


def _project(root: Path) -> object:
    """Return the name of the project whose sources lie in a directory, None if there is none."""
    try:
        return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def versions(**others: str | None) -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on.

    Args:
        others: versions that no package's metadata hold, such as ``cuda``; None is left out.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {name: other for name, other in others.items() if other}


def hardware(gpu: str | None, devices: int, threads: int) -> Hardware:
    """Return the machine, as seen by a run.

    Args:
        gpu: the GPU's name; None for a run on the processor.
        devices: number of such devices that the run is on.
        threads: threads that it computes with.
    """
    return Hardware(
        device=_shown(gpu or processor()),
        devices=devices,
        cores=os.cpu_count() or 1,
        threads=threads,
        system=_shown(platform.platform()),
    )


def _shown(name: str) -> str:
    """Return a name of hardware as a record can hold it: no machine's name stops a run."""
    shown = "".join(sign for sign in name if sign.isprintable() and sign != "$")
    return shown[:200] or "unknown"


def processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git says of a repository, heeding no variable that names another one."""
    variables = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=variables | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
