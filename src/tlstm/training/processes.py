"""The processes of a run: with several devices there is one for each.

torchrun starts them where there are several machines; else the first one starts the others.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import (
    LightningEnvironment,
    find_free_network_port,
)
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

by_torchrun = TorchElasticEnvironment.detect


class Place(NamedTuple):
    """A process that the first one has started on the same machine.

    Attributes:
        rank: which one, from 1 on.
        port: where the first one waits for it.
        directory: where the run's files go.
        checkpoint: where the run goes on from, None for a fresh start.
    """

    rank: int
    port: int
    directory: Path
    checkpoint: Path | None


class OneMachine(LightningEnvironment):
    """Tells Lightning of processes that we start on this machine, whatever the environment says.

    Args:
        rank: of this process.
        port: where the first one waits for the others; None chooses one.
    """

    creates_processes_externally = True  # not by Lightning

    def __init__(self, rank: int = 0, port: int | None = None) -> None:
        super().__init__()
        self._rank = rank
        self._port = port

    @property
    def main_address(self) -> str:
        """Where the first process is."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where the first process waits for the others."""
        if self._port is None:
            self._port = find_free_network_port()
        return self._port

    def local_rank(self) -> int:
        """Which of the machine's processes this is."""
        return self._rank

    def node_rank(self) -> int:
        """Which of the machines this is."""
        return 0


def environment(place: Place | None) -> ClusterEnvironment:
    """How this process meets the others of its run.

    Args:
        place: what the first process has said, None to that one and to those of torchrun.
    """
    if by_torchrun():
        return TorchElasticEnvironment()
    return OneMachine(place.rank, place.port) if place else OneMachine()


def is_first_process() -> bool:
    """Whether this process is the first device's, which alone prints and writes files."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def set_rank(rank: int) -> None:
    """Say which of the run's processes this is."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


# Lightning would ask SLURM too, whose tasks may well be runs of their own
set_rank(int(os.environ["RANK"]) if by_torchrun() else 0)


def end_with_parent() -> None:
    """End this process when the one that started it is gone, so that its run can go on anew."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def how_it_ended(process: BaseProcess) -> str | None:
    """Why a process that said nothing is gone, None if all is well."""
    code = process.exitcode or 0
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}" if code else None
