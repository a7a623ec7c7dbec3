"""Processes of their own for runs: one each, several at a time, none able to harm another.

Without a GPU the processes are forked from one warm server that has done the imports; with one
each is started from nothing, because CUDA does not survive a fork.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from tlstm.sweeping.gpus import use_devices
from tlstm.training.config import Run, compose
from tlstm.training.distributed import end_with_parent, exit_reason
from tlstm.training.recording import find_record, train
from tlstm.training.run import LOG, setup_run
from tlstm.utils import printable, sentence

Context = ForkServerContext | SpawnContext
Send = Callable[[Any], None]

ENDING_SECONDS = 10.0  # for a run to end by itself where all shall


class Request(NamedTuple):
    """Work for a process of a pool.

    Attributes:
        content: of the work, which its function takes.
        devices: the number that it takes.
    """

    content: Any
    devices: int = 1


class Failure(NamedTuple):
    """The reason why a process failed.

    Attributes:
        reason: in a sentence.
        refused: True where the reason is written for the user, False where it is a bug, or the end
            of the process.
    """

    reason: str
    refused: bool = False


@dataclass
class Active:
    """A process at work.

    Attributes:
        index: of its request.
        process: the process.
        connection: for its messages and its failure.
        devices: the GPUs that it takes; empty for the CPU.
        failure: as far as is known.
    """

    index: int
    process: BaseProcess
    connection: Connection
    devices: list[str]
    failure: Failure | None = None


def train_run(planned: Run, send: Send) -> None:
    """Train one run in this process, from its command line to its record.

    One that another process has finished in the meantime is not trained again.
    """
    print_to(planned.directory / LOG)
    run = compose(planned.overrides)
    if find_record(run) is None:
        with setup_run(run, send) as job:
            train(job)


def print_to(file: Path) -> None:
    """Append the output of this process and of its libraries to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]


def context(devices: Sequence[str]) -> Context:
    """Return the way to start processes on a machine with these GPUs."""
    if devices:
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tlstm.sweeping.orphans", "tlstm.sweeping.estimates"])
    return server


def run_all(
    requests: Sequence[Request],
    jobs: int,
    devices: Sequence[str],
    show: Callable[[int, Any], None],
    ended: Callable[[int, Failure | None], None],
    work: Callable[[Any, Send], None] = train_run,
) -> None:
    """Do what is requested, `jobs` at a time, in the given order; go on past one that fails.

    Args:
        requests: the work, in order.
        jobs: the number at a time.
        devices: GPUs to spread them over, as CUDA_VISIBLE_DEVICES names them; may be empty. A
            process starts on those that have the fewest, the first of equals.
        show: called with a request's index and a message of its process.
        ended: called with a request's index when it has ended, and the reason if it failed.
        work: called in a process with a request's content and the way to send messages.
    """
    waiting = list(enumerate(requests))[::-1]
    active: list[Active] = []
    with _stopping(active):
        while waiting or active:
            while waiting and len(active) < jobs:
                index, request = waiting.pop()
                taken = [device for run in active for device in run.devices]
                chosen = sorted(devices, key=taken.count)[: request.devices]
                active.append(_begin(context(devices), index, work, request.content, chosen))
            wait([channel for run in active for channel in (run.connection, run.process.sentinel)])
            for run in list(active):
                finished = not run.process.is_alive()  # asked first so that no message is missed
                for message in _received(run.connection):
                    if isinstance(message, Failure):
                        run.failure = message
                    else:
                        show(run.index, message)
                if finished:
                    active.remove(run)
                    reason = exit_reason(run.process)
                    ended(run.index, run.failure or (Failure(reason) if reason else None))


@contextlib.contextmanager
def _stopping(active: list[Active]) -> Iterator[None]:
    """End the processes at work, whatever happens."""
    try:
        yield
    finally:
        for run in active:
            run.process.terminate()
        for run in active:
            run.process.join(ENDING_SECONDS)
            run.process.kill()
            run.process.join()


def _begin(
    context: Context,
    index: int,
    work: Callable[[Any, Send], None],
    content: Any,
    devices: list[str],
) -> Active:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, content, theirs, devices))
    process.start()
    theirs.close()
    return Active(index, process, ours, devices)


def _received(connection: Connection) -> Iterator[Any]:
    """Yield the messages that have arrived on a connection."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while connection.poll():
            yield connection.recv()


def _work(
    work: Callable[[Any, Send], None], content: Any, connection: Connection, devices: list[str]
) -> None:
    """Do the work in this process, and say why where that fails."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep ends its processes at Ctrl-C
    use_devices(devices)
    print_to(Path(os.devnull))  # until the work has a file for its output
    try:
        work(content, connection.send)
    except (ValueError, OSError) as error:
        _fail(connection, sentence(error), refused=True)
    except Exception as error:
        _fail(connection, f"{type(error).__name__}: {error}", refused=False)


def _fail(connection: Connection, reason: str, refused: bool) -> None:
    connection.send(Failure(printable(" ".join(reason.split())), refused))
    with contextlib.suppress(OSError):  # the log may be what cannot be written
        traceback.print_exc()
    sys.exit(1)
