"""Runs in processes of their own: one each, several at a time, none able to harm another.

Without a GPU the processes are forked from one warm server that has done the imports; with one
they start afresh, because CUDA does not survive a fork.
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

from tlstm.training.config import compose
from tlstm.training.processes import end_with_parent, how_it_ended
from tlstm.training.progress import Status
from tlstm.training.recording import train
from tlstm.training.run import prepared
from tlstm.utils import (
    sentence,
)

Context = ForkServerContext | SpawnContext

ENDING_SECONDS = 10.0  # for a run to end by itself where all shall


class Order(NamedTuple):
    """A run to be done.

    Attributes:
        overrides: its command line.
        log: the file that takes what it prints.
        devices: how many it takes.
    """

    overrides: list[str]
    log: Path
    devices: int = 1


@dataclass
class Active:
    """A run in progress.

    Attributes:
        index: which of the orders.
        process: that trains it.
        connection: on which it reports.
        devices: the GPUs that it takes; empty for the CPU.
        failure: why it failed, as far as is known.
    """

    index: int
    process: BaseProcess
    connection: Connection
    devices: list[str]
    failure: str | None = None


def context(devices: Sequence[str]) -> Context:
    """How processes start on a machine with these GPUs."""
    if devices:
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tlstm.sweeping.pool"])
    return server


def run_all(
    orders: Sequence[Order],
    jobs: int,
    devices: Sequence[str],
    show: Callable[[int, Status], None],
    ended: Callable[[int, str | None], None],
) -> None:
    """Train runs, `jobs` at a time, in their order; go on past one that fails.

    Args:
        orders: the runs.
        jobs: how many at a time.
        devices: GPUs to spread them over, as CUDA_VISIBLE_DEVICES names them; may be empty. A run
            begins on those that have the fewest.
        show: called with a run's index and its status.
        ended: called with a run's index when it has ended, and why if it failed.
    """
    waiting = list(enumerate(orders))[::-1]
    active: list[Active] = []
    with _stopping(active):
        while waiting or active:
            while waiting and len(active) < jobs:
                index, order = waiting.pop()
                taken = [device for run in active for device in run.devices]
                chosen = least_busy(devices, taken, order.devices)
                active.append(_begin(context(devices), index, order, chosen))
            wait([channel for run in active for channel in (run.connection, run.process.sentinel)])
            for run in list(active):
                finished = not run.process.is_alive()  # asked first, so that no message is missed
                for message in _received(run.connection):
                    if isinstance(message, Status):
                        show(run.index, message)
                    else:
                        run.failure = message
                if finished:
                    active.remove(run)
                    ended(run.index, run.failure or how_it_ended(run.process))


@contextlib.contextmanager
def _stopping(active: list[Active]) -> Iterator[None]:
    """Whatever happens, leave no process behind."""
    try:
        yield
    finally:
        for run in active:
            run.process.terminate()
        for run in active:
            run.process.join(ENDING_SECONDS)
            run.process.kill()
            run.process.join()


def least_busy(devices: Sequence[str], taken: Sequence[str], number: int) -> list[str]:
    """The devices with the fewest runs, the first of equals; none where there are none.

    Args:
        devices: to choose from.
        taken: the devices of every run in progress.
        number: how many to choose.
    """
    return sorted(devices, key=taken.count)[:number]


def use_devices(devices: Sequence[str]) -> None:
    """Let this process see these GPUs alone; called before it has seen any."""
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)


def _begin(context: Context, index: int, order: Order, devices: list[str]) -> Active:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(order, theirs, devices))
    process.start()
    theirs.close()
    return Active(index, process, ours, devices)


def _received(connection: Connection) -> Iterator[Any]:
    """What has arrived on a connection by now."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while connection.poll():
            yield connection.recv()


def _work(order: Order, connection: Connection, devices: list[str]) -> None:
    """What a process does: one run, from its command line to its record."""
    end_with_parent()
    _print_to(order.log)
    use_devices(devices)
    try:
        with prepared(compose(order.overrides), connection.send) as job:
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
    """Send what this process prints, in Python or below it, to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
