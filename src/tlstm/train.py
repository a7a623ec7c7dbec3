"""Train one model on one task: python -m tlstm.train task=addition model=tlstm_3d_cn model.depth=7.

One process, one run, one record. A run that was interrupted goes on where its last checkpoint
was written; one that is finished is not run again (`resume=never` runs it anew beside the old).
"""

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from rich.console import Console

from tlstm import provenance
from tlstm.config import (
    CONFIGURATIONS,
    Run,
    compose,
    plain,
    samples_at_most,
    task_label,
    with_scale,
)
from tlstm.module import SequenceModule
from tlstm.record import CurvePoint, Outcome, Record, read_record, write_record
from tlstm.refusal import interruptions, refusals, refuse
from tlstm.training.checkpoints import load_weights
from tlstm.training.devices import fit
from tlstm.training.job import Job, agreed, make_module, make_trainer, prepared, quiet_lightning
from tlstm.training.loggers import log_result
from tlstm.training.processes import is_first_process
from tlstm.training.progress import Display

SELECTED_BY = {
    "accuracy": "highest validation accuracy, the earliest where equal",
    "loss": "lowest validation loss, the earliest where equal",
}


def main() -> None:
    """The command. Exit code 2, with one sentence that says why, for what cannot be run."""
    arguments = sys.argv[1:]
    if {"-m", "--multirun"} & set(arguments):
        refuse("one process is one run; python -m tlstm.sweep runs many")
    if any(argument.startswith("-") for argument in arguments):
        sys.argv[1:] = with_scale(arguments)
        _hydra_command()
    else:
        run_command(arguments)


@hydra.main(str(CONFIGURATIONS), "config", version_base="1.3")
def _hydra_command(config: DictConfig) -> None:
    """Hydra's own options: --help, --cfg job, --info and so on."""
    GlobalHydra.instance().clear()  # since the run is composed anew
    run_command(list(HydraConfig.get().overrides.task))


def run_command(overrides: list[str]) -> None:
    """Compose, say what will be done, train, say what came out."""
    console = Console(quiet=not is_first_process())
    with contextlib.ExitStack() as stack:
        with refusals(ValueError, OSError):
            run, record = begun(compose(overrides))
            if record is None:
                display = Display(title(run), samples_at_most(run.config), console)
                job = stack.enter_context(prepared(run, display.show))
        if record is None:
            console.print(introduction(job), soft_wrap=True)
            with (
                refusals(OSError, MisconfigurationException),
                interruptions(how_to_go_on(job)),
                display,
            ):
                if not is_first_process():
                    return fit(job)
                record = train(job)
        else:
            console.print("This run is finished; resume=never runs it anew, beside the old one.")
        console.print(summary(record, run), soft_wrap=True)


def begun(run: Run) -> tuple[Run, Record | None]:
    """A run with its record if it is finished, as its first process sees them."""
    overrides, record = agreed(run.config, (run.overrides, find_record(run)))
    return compose(overrides), record


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
        versions=provenance.versions(),
        hardware=provenance.hardware(job.trainer.strategy.root_device, devices),
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


def title(run: Run) -> str:
    """A run in a few words."""
    config = run.config
    return f"{task_label(config)}, {config.model.label}, L={config.model.depth}"


def introduction(job: Job) -> str:
    """What will be done, on what."""
    config = job.run.config
    parameters = sum(parameter.numel() for parameter in job.module.parameters())
    machine = provenance.hardware(job.trainer.strategy.root_device, job.trainer.world_size)
    smoke = config.scale.name == "smoke"
    start = f"going on from {job.checkpoint}" if job.checkpoint else "from the start"
    threshold = config.training.threshold
    goal = f"{threshold:.0%} or " if threshold < 1 else ""
    hint = " (the default without a GPU; scale=paper is the paper's)" if smoke else ""
    return (
        f"{title(job.run)}, M={config.model.channels}: {parameters:,} parameters, "
        f"seed {config.seed}, {config.scale.name} scale{hint}\n"
        f"{start}, to {goal}{samples_at_most(config):,} samples, "
        f"on {machine.devices} × {machine.device}\n"
        f"in {job.directory}{stand_in(config)}"
    )


def stand_in(config: DictConfig) -> str:
    """A line that says so where other data stand in for the task's own, else nothing."""
    name, label = config.task.name, task_label(config)
    if name == label:
        return ""
    return f"\nThe data are {label}, not {name}: see task.source and task.data_dir."


def how_to_go_on(job: Job) -> str:
    """What to do after an interruption."""
    how = {"auto": "the same command goes on", "never": "the same command starts anew"}
    return how.get(job.run.config.resume, "resume=auto goes on")


def summary(record: Record, run: Run) -> str:
    """What came out of a run."""
    return f"{title(run)}: {outcome(record)}"


def outcome(record: Record) -> str:
    """What came out, in a line."""
    return (
        f"{learnt(record)}; test accuracy {record.test['accuracy']:.1%}, "
        f"{record.milliseconds_per_timestep * 1e3:.1f} µs per timestep, "
        f"{record.wall_seconds / 60:.1f} min ({record.outcome})"
    )


def learnt(record: Record) -> str:
    """What came out of it in the task's own measure."""
    if "bits_per_character" in record.test:
        bits = record.test["bits_per_character"]
        return "diverged" if bits is None else f"{bits:.3f} bits per character on the test split"
    if record.samples_to_threshold:
        return f"passed {record.threshold:.0%} after {record.samples_to_threshold:,} samples"
    return f"did not pass {record.threshold:.0%} within {record.samples:,} samples"


if __name__ == "__main__":
    main()
