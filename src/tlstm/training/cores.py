"""The processor cores that a process may use, and its share of them."""

import contextlib
import math
import os
from pathlib import Path

CGROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def threads_each(processes: int) -> int:
    """Return the threads of each of some processes: OMP_NUM_THREADS, or its share of the cores."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(told) if told.isdecimal() and int(told) else max(1, cores() // processes)


def cores() -> int:
    """Return the number of processor cores that this process may use, as its group's quota says."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.floor(min(allowed or 1, quota())))


def quota() -> float:
    """Return the cores that Linux's control groups leave to this process; infinite without one."""
    most = math.inf
    with contextlib.suppress(OSError, ValueError):
        own = OWN_GROUP.read_text(encoding="utf-8").rpartition("::/")[2].strip()
        for group in (own, *map(str, Path(own).parents)):
            limit = CGROUPS / group / "cpu.max"
            time, period = limit.read_text().split() if limit.exists() else ("max", "1")
            most = most if time == "max" else min(most, int(time) / int(period))
    return most
