"""Train one model on one task: python -m tlstm.train task=addition model=tlstm_3d_cn model.depth=7.

One process, one run, one record. A run that was interrupted goes on where its last checkpoint
was written; one that is finished is not run again (`resume=never` runs it anew beside the old).
"""

import contextlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from rich.console import Console

from tlstm import provenance
from tlstm.config import CONFIGURATIONS, Run, compose, plain, task_label, with_scale
from tlstm.job import Job, make_module, prepared
from tlstm.loggers import log_result
from tlstm.module import SequenceModule
from tlstm.processes import is_first_process
from tlstm.progress import Display
from tlstm.record import Record, read_record, write_record
from tlstm.refusal import interruptions, refusals, refuse

SELECTED_BY = "highest validation accuracy, the earliest where equal"


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
            run = compose(overrides)
            record = find_record(run)
            if record is None:
                display = Display(title(run), run.config.training.max_samples, console)
                job = stack.enter_context(prepared(run, display.show))
        if record is None:
            console.print(introduction(job), soft_wrap=True)
            with (
                refusals(OSError, MisconfigurationException),
                interruptions(how_to_go_on(job)),
                display,
            ):
                record = train(job)
        else:
            console.print("This run is finished; resume=never runs it anew, beside the old one.")
        console.print(summary(record, run), soft_wrap=True)


def find_record(run: Run) -> Record | None:
    """The record of a run that is finished, unless it shall be run anew."""
    path = run.directory / "record.json"
    return read_record(path) if run.config.resume != "never" and path.exists() else None


def train(job: Job) -> Record:
    """Fit, test the best checkpoint, write the record."""
    started = datetime.now(UTC)
    job.trainer.fit(job.module, job.data, ckpt_path=job.checkpoint, weights_only=True)
    samples = job.module.samples_seen
    (test,) = job.trainer.test(best_module(job), job.data, verbose=False)
    record = make_record(job, samples, test, started)
    if job.trainer.is_global_zero:
        write_record(record, job.directory / "record.json")
        log_result(job.trainer.loggers, job.run.config, results_by_name(record))
    return record


def best_module(job: Job) -> SequenceModule:
    """The model of the best checkpoint, beside the one that was trained."""
    module = make_module(job.run.config, job.data)
    best = torch.load(
        job.directory / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True
    )
    module.load_state_dict(best["state_dict"])
    return module


def make_record(job: Job, samples: int, test: Mapping[str, float], started: datetime) -> Record:
    """All that is to be known of a run that has just ended."""
    config, curve = job.run.config, job.history.points()
    best = max(curve, key=lambda point: point.accuracy)
    solved = job.module.samples_to_threshold.reached
    commit, modified = provenance.commit()
    seconds, devices = job.history.seconds, job.trainer.num_devices
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
        best={"accuracy": best.accuracy, "loss": best.loss, "samples": best.samples},
        last={"accuracy": curve[-1].accuracy, "loss": curve[-1].loss},
        test={name.removeprefix("test/"): value for name, value in test.items()},
        selected_by=SELECTED_BY,
        milliseconds_per_timestep=job.runtime.milliseconds,
        wall_seconds=seconds,
        device_seconds=seconds * devices,
        outcome="solved" if solved else "diverged" if job.stopping.diverged else "budget spent",
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


def results_by_name(record: Record) -> dict[str, float | None]:
    """A record's results under the names that dashboards show."""
    return {
        "best/accuracy": record.best["accuracy"],
        "test/accuracy": record.test["accuracy"],
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
    machine = provenance.hardware(job.trainer.strategy.root_device, job.trainer.num_devices)
    smoke = config.scale.name == "smoke"
    start = f"going on from {job.checkpoint}" if job.checkpoint else "from the start"
    hint = " (the default without a GPU; scale=paper is the paper's)" if smoke else ""
    return (
        f"{title(job.run)}, M={config.model.channels}: {parameters:,} parameters, "
        f"seed {config.seed}, {config.scale.name} scale{hint}\n"
        f"{start}, to {config.training.threshold:.0%} or {config.training.max_samples:,} samples, "
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
    solved = (
        f"passed {record.threshold:.0%} after {record.samples_to_threshold:,} samples"
        if record.samples_to_threshold
        else f"did not pass {record.threshold:.0%} within {record.samples:,} samples"
    )
    return (
        f"{solved}; test accuracy {record.test['accuracy']:.1%}, "
        f"{record.milliseconds_per_timestep * 1e3:.1f} µs per timestep, "
        f"{record.wall_seconds / 60:.1f} min ({record.outcome})"
    )


if __name__ == "__main__":
    main()
