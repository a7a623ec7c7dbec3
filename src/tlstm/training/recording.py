"""Train a run to its record: fit on all devices, test the best checkpoint, write the record."""

import contextlib
import math
import signal
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tlstm.records.schema import CurvePoint, Outcome, Record, write_record
from tlstm.training.checkpoints import load_weights
from tlstm.training.config import Run, compose
from tlstm.training.distributed import (
    OneMachine,
    WorkerSpec,
    leave_group,
    reporting,
    started_workers,
)
from tlstm.training.loggers import log_result
from tlstm.training.module import SequenceModule
from tlstm.training.record import read_own_record
from tlstm.training.run import Job, make_module, make_trainer, quiet_lightning, setup_run


def find_record(run: Run) -> Record | None:
    """Return the record of a finished run, None where there is none or it shall not be used.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or the record of another run.
    """
    path = run.directory / "record.json"
    if run.config.resume == "never" or not path.exists():
        return None
    return read_own_record(path, run.identifier)


def train(job: Job) -> Record:
    """Train a run in its first process: fit, test the best checkpoint, write the record."""
    started = datetime.now(UTC)
    with writing_in(job.directory):
        fit(job)
        record = make_record(job, test(job), started)
        write_record(record, job.directory / "record.json")
        log_result(job.trainer.loggers, job.run.config, results_by_name(record))
    return record


class EndAtOnce(Callback):
    """End training at SIGTERM, without the exchange between devices of Lightning's handler.

    That exchange would meet those of a training step.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the handler; Lightning restores the one before its own."""
        signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    raise SIGTERMException


def fit(job: Job) -> None:
    """Train on all devices of the run.

    Raises:
        ChildProcessError: the process of another device failed; the message says why.
    """
    try:
        with started_workers(work, job.run.overrides, worker_specs(job)):
            fit_here(job)
    finally:
        leave_group()


def fit_here(job: Job) -> None:
    """Train on the device of this process."""
    if job.trainer.world_size > 1:
        job.trainer.callbacks.append(EndAtOnce())  # type: ignore[attr-defined]
        # Lightning makes the model parallel on a side stream, at no cost here
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning calls what is there before its own
    job.trainer.fit(job.module, job.data, ckpt_path=job.checkpoint, weights_only=True)
    leave_group()  # before waiting for others: NCCL's processes leave together


def worker_specs(job: Job) -> list[WorkerSpec]:
    """Return the specs of the processes that this one starts: the first one, on one machine."""
    environment = getattr(job.trainer.strategy, "cluster_environment", None)
    if not isinstance(environment, OneMachine):
        return []
    return [
        WorkerSpec(rank, environment.main_port, job.directory, job.checkpoint)
        for rank in range(1, job.trainer.world_size)
    ]


def work(overrides: list[str], spec: WorkerSpec, connection: Connection) -> None:
    """Train the same run in the process of another device, and keep nothing of it."""
    with reporting(spec, connection), setup_run(compose(overrides), lambda _: None, spec) as job:
        connection.send(None)
        fit_here(job)


@contextlib.contextmanager
def writing_in(directory: Path) -> Iterator[None]:
    """Name the directory in errors of writing that name no file, as on a full disk."""
    try:
        yield
    except (OSError, ValueError) as error:
        # Lightning's TensorBoard logger wraps every error as one of a wrong value
        failure = error.__cause__ if isinstance(error, ValueError) else error
        if not isinstance(failure, OSError):
            raise
        if failure.strerror and failure.filename is None:
            failure.filename = str(directory)
        raise failure from None


def test(job: Job) -> Mapping[str, float]:
    """Return the best model's metrics on every test sample once, on one device."""
    with quiet_lightning():
        trainer = make_trainer(job.run.config, [])
    (metrics,) = trainer.test(best_module(job), job.data, verbose=False)
    for logger in job.trainer.loggers:
        logger.log_metrics(dict(metrics), job.trainer.global_step)
        logger.save()
    return metrics


def best_module(job: Job) -> SequenceModule:
    """Return a new model with the weights of the best checkpoint."""
    module = make_module(job.run.config, job.data)
    load_weights(job.directory / "checkpoints" / "best.ckpt", module)
    return module


def make_record(job: Job, test: Mapping[str, float], started: datetime) -> Record:
    """Return the record of a run that has just ended."""
    module, curve = job.module, job.learning_curve.points()
    best = curve[job.learning_curve.best(module.selected_by)]
    seconds = job.learning_curve.seconds
    results = {
        "samples": module.samples_seen,
        "samples_to_threshold": module.samples_to_threshold.reached,
        "best": metrics_at(best, module) | {"samples": best.samples},
        "last": metrics_at(curve[-1], module),
        "test": {name.removeprefix("test/"): value for name, value in test.items()},
        "milliseconds_per_timestep": job.runtime.milliseconds,
        "wall_seconds": seconds,
        "device_seconds": seconds * job.trainer.world_size,
        "outcome": outcome_of(job),
        "curve": curve,
        "started": started,
        "finished": datetime.now(UTC),
    }
    return Record(**{**dict(job.blank), **results})


def outcome_of(job: Job) -> Outcome:
    """Return the outcome of a run that has just ended."""
    if job.module.samples_to_threshold.reached is not None:
        return "solved"
    if job.stopping.diverged:
        return "diverged"
    if job.stopping.out_of_patience:
        return "stopped early"
    return "budget spent"


def metrics_at(point: CurvePoint, module: SequenceModule) -> dict[str, float | None]:
    """Return the validation metrics at a point of the curve, None where they were not finite."""
    loss = math.nan if point.loss is None else point.loss
    return {"accuracy": point.accuracy, "loss": loss, **module.metrics_of_loss(loss)}


def results_by_name(record: Record) -> dict[str, float | None]:
    """Return a record's results by their names in dashboards."""
    results = {
        f"{moment}/{name}": metrics[name]
        for moment, metrics in (("best", record.best), ("test", record.test))
        for name in ("accuracy", "bits_per_character")
        if name in metrics
    }
    names = ("samples_to_threshold", "milliseconds_per_timestep", "parameters", "wall_seconds")
    return results | {name: getattr(record, name) for name in names}
