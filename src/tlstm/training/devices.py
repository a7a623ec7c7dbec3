"""Training on several devices: a process for each, which begin, fail and end together.

torchrun sees to that where it has started them; else the first one, which starts the others from
its own configuration, so that nothing is decided twice.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tlstm.training.config import compose
from tlstm.training.processes import OneMachine, Place, end_with_parent, how_it_ended, set_rank
from tlstm.training.run import Job, prepared
from tlstm.utils import (
    complain,
    sentence,
)

LOST_SECONDS = 10.0  # for a process that others have lost to be seen to be gone
WATCH_SECONDS = 1.0  # from one look at the others to the next
HANGING_SECONDS = 30.0  # for this process to end by itself where another one has failed
ENDING_SECONDS = 60.0  # for the others to end where nothing has failed
# Characters of a failure that are told: a pipe may take but 64 KB before somebody listens
SENTENCE_LENGTH, TRACE_LENGTH = 1_000, 14_000


class Failure(NamedTuple):
    """Why a process failed.

    Attributes:
        sentence: for people.
        trace: for us, where it is a mistake of ours; else empty.
    """

    sentence: str
    trace: str = ""


class Other(NamedTuple):
    """The process of another device.

    Attributes:
        rank: which one.
        process: itself.
        connection: on which it says None when it is ready and when it has ended, or why it fails.
    """

    rank: int
    process: BaseProcess
    connection: Connection


class EndAtOnce(Callback):
    """Ends the training at SIGTERM, whatever the devices are about to tell each other.

    Lightning's own handler would tell the others in the midst of that.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take its place; Lightning puts back what was there before."""
        signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    raise SIGTERMException


def fit(job: Job) -> None:
    """Train, on all devices of the run.

    Raises:
        ChildProcessError: the process of another device failed; the message says why.
    """
    try:
        with _other_processes(job):
            _fit(job)
    finally:
        _leave()


def _fit(job: Job) -> None:
    """This process's part of it."""
    if job.trainer.world_size > 1:
        job.trainer.callbacks.append(EndAtOnce())  # type: ignore[attr-defined]
        # Lightning makes the model parallel on a stream of its own, which costs it nothing here
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    job.trainer.fit(job.module, job.data, ckpt_path=job.checkpoint, weights_only=True)
    _leave()  # before others are waited for: NCCL's processes leave together


def _leave() -> None:
    """Leave the group of the processes of all devices, if this one is in it."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def _other_processes(job: Job) -> Iterator[None]:
    """Those that this process has to start; afterwards none is left."""
    others: list[Other] = []
    try:
        for place in _other_places(job):
            others.append(_begin(job.run.overrides, place))
        if lost := _lost(others):  # unless all are ready
            raise lost
        with _watching(others):
            yield
            for other in others:
                other.process.join(ENDING_SECONDS)
    except RuntimeError as error:  # which a device that is left alone raises, among other things
        if lost := _lost(_those_that_speak(others, LOST_SECONDS)):
            raise lost from error
        raise
    finally:
        for other in others:
            other.process.kill()
            other.process.join()


def _other_places(job: Job) -> list[Place]:
    """The places of the processes that this one has to start: the first one, on one machine."""
    environment = getattr(job.trainer.strategy, "cluster_environment", None)
    if not isinstance(environment, OneMachine):
        return []
    return [
        Place(rank, environment.main_port, job.directory, job.checkpoint)
        for rank in range(1, job.trainer.world_size)
    ]


def _begin(overrides: list[str], place: Place) -> Other:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(overrides, place, theirs))
    process.start()
    theirs.close()
    return Other(place.rank, process, ours)


def _work(overrides: list[str], place: Place, connection: Connection) -> None:
    """What the process of another device does: the same run, of which it keeps nothing."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it
    set_rank(place.rank)
    try:
        with prepared(compose(overrides), lambda status: None, place) as job:
            connection.send(None)
            _fit(job)
        connection.send(None)
    except (ValueError, OSError) as error:
        _fail(connection, Failure(sentence(error)))
    except Exception as error:
        _fail(connection, Failure(f"{type(error).__name__}: {error}", traceback.format_exc()))


def _fail(connection: Connection, failure: Failure) -> NoReturn:
    """Say why, and end at once: whatever is put in order at an end may wait for the others."""
    connection.send(Failure(failure.sentence[:SENTENCE_LENGTH], failure.trace[:TRACE_LENGTH]))
    os._exit(1)


def _those_that_speak(others: Sequence[Other], seconds: float) -> list[Other]:
    """The processes that have something to say, or have ended, within some seconds."""
    heard = wait([other.connection for other in others], seconds)
    return [other for other in others if other.connection in heard]


def _lost(others: Sequence[Other]) -> ChildProcessError | None:
    """Wait for what processes say next, and make an error of it if one has failed.

    Where several have, of one that was killed: the others have lost it.
    """
    failures = [(other, failure) for other in others if (failure := _next_message(other))]
    if not failures:
        return None
    other, failure = min(failures, key=lambda pair: pair[0].process.exitcode or 0)
    if failure.trace:
        print(failure.trace.rstrip(), file=sys.stderr)
    return ChildProcessError(
        f"device {other.rank + 1} of the run is lost: {failure.sentence}; "
        "started again, the run goes on from its last checkpoint"
    )


def _next_message(other: Other) -> Failure | None:
    try:
        message: Failure | None = other.connection.recv()
    except EOFError:
        other.process.join()
        return Failure(how_it_ended(other.process) or "its process has ended")
    return message


@contextlib.contextmanager
def _watching(others: Sequence[Other]) -> Iterator[None]:
    """End this process where another one has failed and this one does not end for it.

    A GPU may wait for another one without end, and this cannot be interrupted.
    """
    ended = threading.Event()

    def watch() -> None:
        while not any(other.process.exitcode for other in others):
            if ended.wait(WATCH_SECONDS):
                return
        if not ended.wait(HANGING_SECONDS):
            complain(str(_lost(_those_that_speak(others, 0))))
            os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
