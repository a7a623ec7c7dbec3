"""Train one model on one task: python -m tlstm.train task=addition model=tlstm_3d_cn model.depth=7.

One process, one run, one record. A run that was interrupted goes on where its last checkpoint
was written; one that is finished is not run again (`resume=never` runs it anew beside the old).
"""

import contextlib
import shlex
import sys

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from rich.console import Console

from tlstm.ops.device import gpu_name
from tlstm.records import provenance
from tlstm.records.schema import (
    Record,
)
from tlstm.training.config import (
    CONFIGURATIONS,
    Run,
    compose,
    samples_at_most,
    with_scale,
)
from tlstm.training.display import Display
from tlstm.training.distributed import is_first_process
from tlstm.training.recording import find_record, fit, train
from tlstm.training.run import Job, broadcast, setup_run
from tlstm.utils import interruptions, refusals, refuse, run_main


def main() -> None:
    """Run the command line; exit with 2 and one sentence if it cannot be run."""
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
    """Serve Hydra's own options: --help, --cfg job, --info and so on."""
    GlobalHydra.instance().clear()  # since the run is composed anew
    run_command(list(HydraConfig.get().overrides.task))


def run_command(overrides: list[str]) -> None:
    """Compose, say what will be done, train, say what came out."""
    console = Console(quiet=not is_first_process())
    with contextlib.ExitStack() as stack:
        with refusals(ValueError, OSError):
            run, record = resolve_run(compose(overrides))
            if record is None:
                display = Display(title(run), samples_at_most(run.config), console)
                job = stack.enter_context(setup_run(run, display.show))
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
            run = run._replace(directory=job.directory)
        else:
            console.print("This run is finished; resume=never runs it anew, beside the old one.")
        console.print(summary(record, run), soft_wrap=True)
        console.print(next_steps(run), soft_wrap=True)


def resolve_run(run: Run) -> tuple[Run, Record | None]:
    """Return a run with its record if it is finished, as its first process sees them."""
    overrides, record = broadcast(run.config, (run.overrides, find_record(run)))
    return compose(overrides), record


def title(run: Run) -> str:
    """Return a run in a few words."""
    config = run.config
    return f"{config.task.name}, {config.model.label}, L={config.model.depth}"


def introduction(job: Job) -> str:
    """Return the run, its directory and its machine in words."""
    config = job.run.config
    parameters = sum(parameter.numel() for parameter in job.module.parameters())
    machine = gpu_name(job.trainer.strategy.root_device) or provenance.processor()
    smoke = config.scale.name == "smoke"
    start = f"going on from {job.checkpoint}" if job.checkpoint else "from the start"
    threshold = config.training.threshold
    goal = f"{threshold:.0%} or " if threshold < 1 else ""
    hint = " (the default without a GPU; scale=paper is the paper's)" if smoke else ""
    return (
        f"{title(job.run)}, M={config.model.channels}: {parameters:,} parameters, "
        f"seed {config.seed}, {config.scale.name} scale{hint}\n"
        f"{start}, to {goal}{samples_at_most(config):,} samples, "
        f"on {job.trainer.world_size} × {machine}\n"
        f"in {job.directory}"
    )


def how_to_go_on(job: Job) -> str:
    """Return the way to go on after an interruption."""
    how = {"auto": "the same command goes on", "never": "the same command starts anew"}
    return how.get(job.run.config.resume, "resume=auto goes on")


def summary(record: Record, run: Run) -> str:
    """Return a run and its result in a line."""
    return f"{title(run)}: {outcome(record)}"


def next_steps(run: Run) -> str:
    """Return where a finished run lies, and what may be done with it."""
    directory = shlex.quote(str(run.directory))
    return (
        f"It lies in {run.directory}:\n"
        f"  python -m tlstm.evaluate {directory}    # tests it again\n"
        f"  python -m tlstm.export {directory} model.safetensors    # its layer in a file"
    )


def outcome(record: Record) -> str:
    """Return the result in a line."""
    return (
        f"{learnt(record)}; test accuracy {record.test['accuracy']:.1%}, "
        f"{record.milliseconds_per_timestep * 1e3:.1f} µs per timestep, "
        f"{record.wall_seconds / 60:.1f} min ({record.outcome})"
    )


def learnt(record: Record) -> str:
    """Return the result in the task's own measure."""
    if "bits_per_character" in record.test:
        bits = record.test["bits_per_character"]
        return "diverged" if bits is None else f"{bits:.3f} bits per character on the test split"
    if record.samples_to_threshold:
        return f"passed {record.threshold:.0%} after {record.samples_to_threshold:,} samples"
    return f"did not pass {record.threshold:.0%} within {record.samples:,} samples"


if __name__ == "__main__":
    sys.exit(run_main(main))
