"""The processes of a run on several devices: one each, which start, fail and end together.

torchrun starts them where there are several machines; otherwise the first one starts the others.
Lightning's own launcher does not suffice: it repeats the command line of the process, which may be
a sweep's, it kills the first process without a message where another fails, and it leaves the
others behind where the first one is killed.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import (
    LightningEnvironment,
    find_free_network_port,
)
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from tlstm.utils import complain, sentence

LOST_SECONDS = 10.0  # for the end of a lost process to become visible
WATCH_SECONDS = 1.0  # between two checks of the others
HANGING_SECONDS = 30.0  # for this process to end by itself after another one has failed
ENDING_SECONDS = 60.0  # for the others to end where nothing has failed
# Characters of a failure that are sent: a pipe without a reader may hold only 64 KB
SENTENCE_LENGTH, TRACE_LENGTH = 1_000, 14_000

# What torchrun tells its processes; a shell or a notebook that it started has only some of them
TORCHRUN = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# Beginnings of variables that would bring settings which no record has
FOREIGN = ("PL_TRAINER_", "SLURM_", "NVIDIA_TF32_OVERRIDE", "TLSTM_IMPLEMENTATION")


def by_torchrun() -> bool:
    """Return whether torchrun has started this process."""
    return all(name in os.environ for name in TORCHRUN)


def forget_variables() -> None:
    """Let a run depend on its configuration alone, whatever a shell or a scheduler has set."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]


class WorkerSpec(NamedTuple):
    """The task of a process that the first one starts on the same machine.

    Attributes:
        rank: of the process, from 1.
        port: on which the first process listens.
        directory: of the run.
        checkpoint: to resume from, None for a fresh start.
    """

    rank: int
    port: int
    directory: Path
    checkpoint: Path | None


class Failure(NamedTuple):
    """The reason why a process failed.

    Attributes:
        sentence: for users.
        trace: for developers, empty where the failure is no bug.
    """

    sentence: str
    trace: str = ""


class Worker(NamedTuple):
    """The process of another device.

    Attributes:
        rank: of the process.
        process: the process.
        connection: carries None when it is ready and when it has ended, or its failure.
    """

    rank: int
    process: BaseProcess
    connection: Connection


Work = Callable[[list[str], WorkerSpec, Connection], None]


class OneMachine(LightningEnvironment):
    """Describe our own processes on this machine to Lightning, whatever the environment says.

    Args:
        rank: of this process.
        port: on which the first process listens; None chooses one.
    """

    creates_processes_externally = True  # not by Lightning

    def __init__(self, rank: int = 0, port: int | None = None) -> None:
        super().__init__()
        self._rank = rank
        self._port = port

    @property
    def main_address(self) -> str:
        """The address of the first process."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """The port on which the first process listens."""
        if self._port is None:
            self._port = find_free_network_port()
        return self._port

    def local_rank(self) -> int:
        """Return the rank of this process on its machine."""
        return self._rank

    def node_rank(self) -> int:
        """Return the rank of this machine."""
        return 0


def environment(spec: WorkerSpec | None) -> ClusterEnvironment:
    """Return Lightning's view of the processes.

    Args:
        spec: of this process, None for the first one and for those of torchrun.
    """
    if by_torchrun():
        return TorchElasticEnvironment()
    return OneMachine(spec.rank, spec.port) if spec else OneMachine()


def is_first_process() -> bool:
    """Return whether this process alone prints and writes files."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]


def set_rank(rank: int) -> None:
    """Set the rank of this process."""
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


# Lightning would also ask SLURM, whose tasks may be runs of their own
set_rank(int(os.environ["RANK"]) if by_torchrun() else 0)


def end_with_parent() -> None:
    """End this process when its parent is gone, so that the run can be resumed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def exit_reason(process: BaseProcess) -> str | None:
    """Return why an ended process failed, None where it did not."""
    code = process.exitcode or 0
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}" if code else None


def leave_group() -> None:
    """Leave the process group of all devices, if this process is in it."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def started_workers(
    work: Work, overrides: list[str], specs: Sequence[WorkerSpec]
) -> Iterator[None]:
    """Run the processes of the other devices; none is left at the end of the context.

    Args:
        work: of another process; `reporting` reports its progress.
        overrides: the command line of the run.
        specs: one for each process.

    Raises:
        ChildProcessError: one of them failed; the message says which and why.
    """
    workers: list[Worker] = []
    try:
        for spec in specs:
            workers.append(_start(work, overrides, spec))
        if lost := _lost(workers):  # unless all are ready
            raise lost
        with _watching(workers):
            yield
            for worker in workers:
                worker.process.join(ENDING_SECONDS)
    except RuntimeError as error:  # as in a process group that has lost a member
        if lost := _lost(_speaking(workers, LOST_SECONDS)):
            raise lost from error
        raise
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


@contextlib.contextmanager
def reporting(spec: WorkerSpec, connection: Connection) -> Iterator[None]:
    """Report the end or the failure of this process, the worker of a spec, to the first one.

    A failed worker exits at once, since an orderly exit may wait for other processes.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process handles it
    set_rank(spec.rank)
    try:
        yield
        connection.send(None)
    except (ValueError, OSError) as error:
        _fail(connection, Failure(sentence(error)))
    except Exception as error:
        _fail(connection, Failure(f"{type(error).__name__}: {error}", traceback.format_exc()))


def _fail(connection: Connection, failure: Failure) -> NoReturn:
    connection.send(Failure(failure.sentence[:SENTENCE_LENGTH], failure.trace[:TRACE_LENGTH]))
    os._exit(1)


def _start(work: Work, overrides: list[str], spec: WorkerSpec) -> Worker:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(overrides, spec, theirs))
    process.start()
    theirs.close()
    return Worker(spec.rank, process, ours)


def _speaking(workers: Sequence[Worker], seconds: float) -> list[Worker]:
    """Return the processes that send something, or end, within some seconds."""
    heard = wait([worker.connection for worker in workers], seconds)
    return [worker for worker in workers if worker.connection in heard]


def _lost(workers: Sequence[Worker]) -> ChildProcessError | None:
    """Wait for the next message of each process; return an error if one has failed.

    A killed process comes first, since the others fail for having lost it.
    """
    failures = [(worker, failure) for worker in workers if (failure := _next_message(worker))]
    if not failures:
        return None
    worker, failure = min(failures, key=lambda pair: pair[0].process.exitcode or 0)
    if failure.trace:
        print(failure.trace.rstrip(), file=sys.stderr)
    return ChildProcessError(
        f"device {worker.rank + 1} of the run is lost: {failure.sentence}; "
        "started again, the run goes on from its last checkpoint"
    )


def _next_message(worker: Worker) -> Failure | None:
    try:
        message: Failure | None = worker.connection.recv()
    except EOFError:
        worker.process.join()
        return Failure(exit_reason(worker.process) or "its process has ended")
    return message


@contextlib.contextmanager
def _watching(workers: Sequence[Worker]) -> Iterator[None]:
    """End this process if another one has failed and this one does not end for it.

    A GPU may wait for another one without end, and cannot be interrupted.
    """
    ended = threading.Event()

    def watch() -> None:
        while not any(worker.process.exitcode for worker in workers):
            if ended.wait(WATCH_SECONDS):
                return
        if not ended.wait(HANGING_SECONDS):
            complain(str(_lost(_speaking(workers, 0))))
            os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
