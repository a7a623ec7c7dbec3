"""Train one model on one task: python -m tlstm.train task=addition model=tlstm_3d_cn model.depth=7.

One process, one run, one record. A run that was interrupted goes on where its last checkpoint
was written; one that is finished is not run again (`resume=never` runs it anew beside the old).
"""

import contextlib
import shlex
import sys
from typing import TYPE_CHECKING

from tlstm.training.settings import help_text
from tlstm.utils import interruptions, leaving_at_once, refusals, refuse, run_main

if TYPE_CHECKING:  # they take seconds to import, and --help takes none of them
    from tlstm.records.schema import Record
    from tlstm.training.config import Run
    from tlstm.training.run import Job


def main() -> None:
    """Run the command line; exit with 2 and one sentence if it cannot be run."""
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    if {"-h", "--help"} & {*options}:
        print(f"{__doc__.strip()}\n\n{help_text()}")
    elif {"-m", "--multirun"} & {*options}:
        refuse("one process is one run; python -m tlstm.sweep runs many")
    elif options:
        refuse(f"{options[0]}: there are no options, but settings as key=value; --help lists them")
    else:
        run_command(sys.argv[1:])


def run_command(overrides: list[str]) -> None:
    """Compose, say what will be done, train, say what came out."""
    with leaving_at_once():
        from lightning.fabric.utilities.exceptions import MisconfigurationException
        from rich.console import Console

        from tlstm.training.config import compose, samples_at_most
        from tlstm.training.display import Display
        from tlstm.training.distributed import is_first_process
        from tlstm.training.recording import fit, train
        from tlstm.training.run import setup_run

    console = Console(quiet=not is_first_process(), markup=False, emoji=False)
    with contextlib.ExitStack() as stack:
        with refusals(ValueError, OSError):
            run, record = resolve_run(compose(overrides))
            if record is None:
                shown = console if run.config.trainer.progress else Console(quiet=True)
                display = Display(title(run), samples_at_most(run.config), shown)
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


def resolve_run(run: "Run") -> "tuple[Run, Record | None]":
    """Return a run with its record if it is finished, as its first process sees them."""
    from tlstm.training.config import compose
    from tlstm.training.recording import find_record
    from tlstm.training.run import broadcast

    overrides, record = broadcast(run.config, (run.overrides, find_record(run)))
    return compose(overrides), record


def title(run: "Run") -> str:
    """Return a run in a few words."""
    config = run.config
    return f"{config.task.name}, {config.model.label}, L={config.model.depth}"


def introduction(job: "Job") -> str:
    """Return the run, its directory and its machine in words."""
    from tlstm.training.config import samples_at_most

    config = job.run.config
    hardware = job.blank.hardware
    smoke = config.scale.name == "smoke"
    start = f"going on from {job.checkpoint}" if job.checkpoint else "from the start"
    threshold = config.training.threshold
    goal = f"{threshold:.0%} or " if threshold < 1 else ""
    hint = " (the default without a GPU; scale=paper is the paper's)" if smoke else ""
    return (
        f"{title(job.run)}, M={config.model.channels}: {job.blank.parameters:,} parameters, "
        f"seed {config.seed}, {config.scale.name} scale{hint}\n"
        f"{start}, to {goal}{samples_at_most(config):,} samples, "
        f"on {hardware.devices} × {hardware.device}\n"
        f"in {job.directory}"
    )


def how_to_go_on(job: "Job") -> str:
    """Return the way to go on after an interruption."""
    how = {"auto": "the same command goes on", "never": "the same command starts anew"}
    return how.get(job.run.config.resume, "resume=auto goes on")


def summary(record: "Record", run: "Run") -> str:
    """Return a run and its result in a line."""
    return f"{title(run)}: {outcome(record)}"


def next_steps(run: "Run") -> str:
    """Return where a finished run lies, and what may be done with it."""
    directory = shlex.quote(str(run.directory))
    return (
        f"It lies in {run.directory}:\n"
        f"  python -m tlstm.evaluate {directory}    # tests it again\n"
        f"  python -m tlstm.export {directory} model.safetensors    # its layer in a file"
    )


def outcome(record: "Record") -> str:
    """Return the result in a line."""
    return (
        f"{learnt(record)}; test accuracy {record.test['accuracy']:.1%}, "
        f"{record.milliseconds_per_timestep * 1e3:.1f} µs per timestep, "
        f"{record.wall_seconds / 60:.1f} min ({record.outcome})"
    )


def learnt(record: "Record") -> str:
    """Return the result in the task's own measure."""
    if "bits_per_character" in record.test:
        bits = record.test["bits_per_character"]
        return "diverged" if bits is None else f"{bits:.3f} bits per character on the test split"
    if record.samples_to_threshold:
        return f"passed {record.threshold:.0%} after {record.samples_to_threshold:,} samples"
    return f"did not pass {record.threshold:.0%} within {record.samples:,} samples"


if __name__ == "__main__":
    sys.exit(run_main(main))
