"""Train a run to its record: fit, test the best checkpoint, write down what came out."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from tlstm.ops.device import gpu_name
from tlstm.records import provenance
from tlstm.records.schema import CurvePoint, Outcome, Record, read_record, write_record
from tlstm.training.checkpoints import load_weights
from tlstm.training.config import Run, plain, task_label
from tlstm.training.devices import fit
from tlstm.training.loggers import log_result
from tlstm.training.module import SequenceModule
from tlstm.training.run import Job, make_module, make_trainer, quiet_lightning

SELECTED_BY = {
    "accuracy": "highest validation accuracy, the earliest where equal",
    "loss": "lowest validation loss, the earliest where equal",
}


def find_record(run: Run) -> Record | None:
    """The record of a run that is finished, unless it shall be run anew."""
    path = run.directory / "record.json"
    return read_record(path) if run.config.resume != "never" and path.exists() else None


def train(job: Job) -> Record:
    """Fit, test the best checkpoint, write the record; the first process's part of a run."""
    started = datetime.now(UTC)
    with writing_in(job.directory):
        fit(job)
        record = make_record(job, job.module.samples_seen, test(job), started)
        write_record(record, job.directory / "record.json")
        log_result(job.trainer.loggers, job.run.config, results_by_name(record))
    return record


@contextlib.contextmanager
def writing_in(directory: Path) -> Iterator[None]:
    """Say where something could not be written where the error does not, as on a full disk."""
    try:
        yield
    except (OSError, ValueError) as error:
        # Lightning's TensorBoard logger takes whatever goes wrong for a value that is none
        failure = error.__cause__ if isinstance(error, ValueError) else error
        if not isinstance(failure, OSError):
            raise
        if failure.strerror and failure.filename is None:
            failure.filename = str(directory)
        raise failure from None


def test(job: Job) -> Mapping[str, float]:
    """The best model's metrics, of every test sample once, on one device."""
    with quiet_lightning():
        trainer = make_trainer(job.run.config, [])
    (metrics,) = trainer.test(best_module(job), job.data, verbose=False)
    for logger in job.trainer.loggers:
        logger.log_metrics(dict(metrics), job.trainer.global_step)
        logger.save()
    return metrics


def best_module(job: Job) -> SequenceModule:
    """The model of the best checkpoint, beside the one that was trained."""
    module = make_module(job.run.config, job.data)
    load_weights(job.directory / "checkpoints" / "best.ckpt", module)
    return module


def make_record(job: Job, samples: int, test: Mapping[str, float], started: datetime) -> Record:
    """All that is to be known of a run that has just ended."""
    config, module, curve = job.run.config, job.module, job.history.points()
    best = curve[job.history.best(module.selected_by)]
    solved = job.module.samples_to_threshold.reached
    commit, modified = provenance.commit()
    device = job.trainer.strategy.root_device
    seconds, devices = job.history.seconds, job.trainer.world_size
    return Record(
        identifier=job.run.identifier,
        experiment=config.experiment.name,
        scale=config.scale.name,
        task=task_label(config),
        model=config.model.name,
        label=config.model.label,
        depth=config.model.depth,
        channels=config.model.channels,
        seed=config.seed,
        parameters=sum(parameter.numel() for parameter in job.module.parameters()),
        samples=samples,
        samples_to_threshold=solved,
        threshold=config.training.threshold,
        best=metrics_at(best, module) | {"samples": best.samples},
        last=metrics_at(curve[-1], module),
        test={name.removeprefix("test/"): value for name, value in test.items()},
        selected_by=SELECTED_BY[module.selected_by],
        milliseconds_per_timestep=job.runtime.milliseconds,
        wall_seconds=seconds,
        device_seconds=seconds * devices,
        outcome=how_it_ended(job),
        curve=curve,
        started=started,
        finished=datetime.now(UTC),
        commit=commit,
        modified=modified,
        versions=provenance.versions(cuda=torch.version.cuda),
        hardware=provenance.hardware(gpu_name(device), devices, torch.get_num_threads()),
        overrides=job.run.overrides,
        config=plain(config),
    )


def how_it_ended(job: Job) -> Outcome:
    """The outcome of a run that has just ended."""
    if job.module.samples_to_threshold.reached is not None:
        return "solved"
    if job.stopping.diverged:
        return "diverged"
    if job.stopping.no_better(job.module.selected_by):
        return "stopped early"
    return "budget spent"


def metrics_at(point: CurvePoint, module: SequenceModule) -> dict[str, float | None]:
    """The validation metrics at a point of the curve; None for those that were not finite."""
    loss = math.nan if point.loss is None else point.loss
    return {"accuracy": point.accuracy, "loss": loss, **module.metrics_of_loss(loss)}


def results_by_name(record: Record) -> dict[str, float | None]:
    """A record's results under the names that dashboards show."""
    moments = {"best": record.best, "test": record.test}
    return {
        f"{moment}/{name}": metrics[name]
        for moment, metrics in moments.items()
        for name in ("accuracy", "bits_per_character")
        if name in metrics
    } | {
        "samples_to_threshold": record.samples_to_threshold,
        "milliseconds_per_timestep": record.milliseconds_per_timestep,
        "parameters": record.parameters,
        "wall_seconds": record.wall_seconds,
    }
