"""Runs in processes of their own: one each, several at a time, none able to harm another.

Without a GPU the processes are forked from one warm server that has done the imports; with one
each is started from nothing, because CUDA does not survive a fork.
"""

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from tlstm.sweeping.gpus import least_busy, use_devices
from tlstm.training.config import compose
from tlstm.training.display import Status
from tlstm.training.distributed import end_with_parent, exit_reason
from tlstm.training.recording import train
from tlstm.training.run import setup_run
from tlstm.utils import (
    sentence,
)

Context = ForkServerContext | SpawnContext

ENDING_SECONDS = 10.0  # for a run to end by itself where all shall


class RunRequest(NamedTuple):
    """A run that a pool is to train.

    Attributes:
        overrides: its command line.
        log: the file for its output.
        devices: the number that it takes.
    """

    overrides: list[str]
    log: Path
    devices: int = 1


@dataclass
class Active:
    """A run in progress.

    Attributes:
        index: of its request.
        process: the one that trains it.
        connection: for its status and its failure.
        devices: the GPUs that it takes; empty for the CPU.
        failure: the reason, as far as is known.
    """

    index: int
    process: BaseProcess
    connection: Connection
    devices: list[str]
    failure: str | None = None


def context(devices: Sequence[str]) -> Context:
    """Return the way to start processes on a machine with these GPUs."""
    if devices:
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tlstm.sweeping.pool"])
    return server


def run_all(
    requests: Sequence[RunRequest],
    jobs: int,
    devices: Sequence[str],
    show: Callable[[int, Status], None],
    ended: Callable[[int, str | None], None],
) -> None:
    """Train runs, `jobs` at a time, in the given order; go on past one that fails.

    Args:
        requests: the runs.
        jobs: the number at a time.
        devices: GPUs to spread them over, as CUDA_VISIBLE_DEVICES names them; may be empty. A run
            starts on those that have the fewest.
        show: called with a run's index and its status.
        ended: called with a run's index when it has ended, and the reason if it failed.
    """
    waiting = list(enumerate(requests))[::-1]
    active: list[Active] = []
    with _stopping(active):
        while waiting or active:
            while waiting and len(active) < jobs:
                index, request = waiting.pop()
                taken = [device for run in active for device in run.devices]
                chosen = least_busy(devices, taken, request.devices)
                active.append(_begin(context(devices), index, request, chosen))
            wait([channel for run in active for channel in (run.connection, run.process.sentinel)])
            for run in list(active):
                finished = not run.process.is_alive()  # asked first so that no message is missed
                for message in _received(run.connection):
                    if isinstance(message, Status):
                        show(run.index, message)
                    else:
                        run.failure = message
                if finished:
                    active.remove(run)
                    ended(run.index, run.failure or exit_reason(run.process))


@contextlib.contextmanager
def _stopping(active: list[Active]) -> Iterator[None]:
    """End the runs in progress, whatever happens."""
    try:
        yield
    finally:
        for run in active:
            run.process.terminate()
        for run in active:
            run.process.join(ENDING_SECONDS)
            run.process.kill()
            run.process.join()


def _begin(context: Context, index: int, request: RunRequest, devices: list[str]) -> Active:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(request, theirs, devices))
    process.start()
    theirs.close()
    return Active(index, process, ours, devices)


def _received(connection: Connection) -> Iterator[Any]:
    """Yield the messages that have arrived on a connection."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while connection.poll():
            yield connection.recv()


def _work(request: RunRequest, connection: Connection, devices: list[str]) -> None:
    """Train one run in this process, from its command line to its record."""
    end_with_parent()
    _print_to(request.log)
    use_devices(devices)
    try:
        with setup_run(compose(request.overrides), connection.send) as job:
            train(job)
    except (ValueError, OSError) as error:
        traceback.print_exc()
        connection.send(sentence(error))
        sys.exit(1)
    except Exception as error:
        traceback.print_exc()
        connection.send(f"{type(error).__name__}: {error}")
        sys.exit(1)


def _print_to(log: Path) -> None:
    """Append the output of this process and of its libraries to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
