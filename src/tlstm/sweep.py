"""Run sweep files here, with no server: python -m tlstm.sweep sweeps/depth.yaml task=memorization.

A recorded run is not trained again, an interrupted one goes on, and one that fails does not stop
the others.
"""

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from tlstm.records import provenance
from tlstm.sweeping.display import RunRow, SweepDisplay, Throughput, failures_table, hours
from tlstm.sweeping.estimates import estimate_all
from tlstm.sweeping.gpus import (
    cores,
    most_devices,
    number_of_jobs,
    side_by_side,
    visible_gpus,
)
from tlstm.sweeping.grid import read_runs, with_threads
from tlstm.sweeping.pool import RunRequest, run_all
from tlstm.train import outcome, title
from tlstm.training.config import Run, samples_at_most, with_scale
from tlstm.training.display import Status
from tlstm.training.recording import find_record
from tlstm.utils import refusals

SHARING = {
    True: "Runs on the same GPU run side by side, through NVIDIA's Multi-Process Service.",
    False: "Runs on the same GPU take turns: NVIDIA's Multi-Process Service does not run here.",
}


class Plan(NamedTuple):
    """The runs of a sweep and the devices for them.

    Attributes:
        runs: the ones to train, the longest first.
        seconds: the time of each at the most; None where it cannot be measured.
        recorded: the finished ones.
        jobs: the number at a time.
        devices: GPUs to spread them over; empty for the CPU.
        devices_per_run: the GPUs, or the processes on the CPU, of the run that takes the most.
    """

    runs: list[Run]
    seconds: list[float | None]
    recorded: list[Run]
    jobs: int
    devices: list[str]
    devices_per_run: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 when every run is recorded, 1 when some failed, 130 when interrupted.
        A sweep that cannot be run ends the process with exit code 2.
    """
    options = parse(arguments)
    console = Console()
    with refusals(ValueError, OSError):
        plan = make_plan(options.files, options.overrides, options.jobs, options.jobs_per_device)
        console.print(announcement(plan), soft_wrap=True)
    if options.dry_run or not plan.runs:
        return 0
    try:
        failed = carry_out(plan, console)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on where the runs stopped.")
        return 130
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line: files, `key=value` for all runs, options."""
    parser = argparse.ArgumentParser(prog="python -m tlstm.sweep", description=__doc__)
    parser.add_argument(
        "files", nargs="+", metavar="FILE|key=value", help="sweep files, and settings of every run"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time, over all GPUs together, each on those with the fewest "
        "(as many as there are GPUs for, or else processor cores)",
    )
    parser.add_argument(
        "--jobs-per-device",
        type=int,
        help="runs at a time on each GPU: small ones that leave it idle are trained faster "
        "together, but the runtimes in their records are then those of a shared GPU (1, unless "
        "--jobs is more than there are GPUs; given both, --jobs is the most of all together)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_intermixed_args(arguments)
    options.overrides = [text for text in options.files if "=" in text]
    options.files = [Path(text) for text in options.files if "=" not in text]
    if not options.files:
        parser.error("name a sweep file, such as sweeps/depth.yaml")
    for name, value in (
        ("--jobs", options.jobs),
        ("--jobs-per-device", options.jobs_per_device),
    ):
        if value is not None and value < 1:
            parser.error(f"{name} must be at least 1, got {value}")
    return options


def make_plan(
    files: Sequence[Path],
    overrides: Sequence[str],
    jobs: int | None,
    jobs_per_device: int | None,
) -> Plan:
    """Read the sweep files, find the runs without a record and estimate their time.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no sweep file, a point of it cannot be run, or there are too few
            devices.
    """
    devices = visible_gpus()
    runs = [run for file in files for run in read_runs(file, with_scale(overrides))]
    unique = list({run.directory: run for run in runs}.values())
    missing = [run for run in unique if find_record(run) is None]
    devices_per_run = most_devices(missing, devices)
    jobs = number_of_jobs(jobs, jobs_per_device, devices, devices_per_run)
    if not devices:
        processes = min(jobs, len(missing) or 1) * devices_per_run
        missing = [with_threads(run, max(1, cores() // processes)) for run in missing]
    seconds = estimate_all(missing, jobs, devices)
    order = sorted(range(len(missing)), key=lambda i: seconds[i] or 0.0, reverse=True)
    return Plan(
        runs=[missing[i] for i in order],
        seconds=[seconds[i] for i in order],
        recorded=[run for run in unique if find_record(run) is not None],
        jobs=min(jobs, len(missing) or 1),
        devices=devices,
        devices_per_run=devices_per_run,
    )


def announcement(plan: Plan) -> str:
    """Return the number of runs, the machine and the time at the most as a sentence."""
    total = len(plan.runs) + len(plan.recorded)
    said = f"{total} runs, {len(plan.recorded)} of them recorded already"
    if not plan.runs:
        return f"{said}; nothing to train."
    scales = {run.config.scale.name for run in plan.runs}
    threads = {run.config.trainer.threads for run in plan.runs}
    machine = (
        f"{len(plan.devices)} GPU(s), {torch.cuda.get_device_name()}"
        if plan.devices
        else f"{provenance.processor()}, {cores()} cores, {max(threads)} thread(s) a process"
    )
    # The gain of runs that share a GPU is not known beforehand
    together = min(plan.jobs, len(plan.devices) // plan.devices_per_run or plan.jobs)
    known = [seconds for seconds in plan.seconds if seconds is not None]
    unknown = len(plan.seconds) - len(known)
    wall = max(sum(known) / together, max(known, default=0.0))
    at_a_time = f"{plan.jobs} at a time" + sharing(plan)
    return (
        f"{said}; {len(plan.runs)} to train at {' and '.join(sorted(scales))} scale, "
        f"{at_a_time}, on {machine}: {hours(wall)} at the most "
        "(runs end early where the task is solved)."
        + (f" {unknown} could not be measured and take a time of their own." if unknown else "")
    )


def sharing(plan: Plan) -> str:
    """Return a clause on runs that take several devices or share one, if there are any."""
    several, shared = plan.devices_per_run, runs_per_device(plan)
    words = f", {several} devices each" if several > 1 else ""
    return words + (f", {shared} on a GPU" if shared > 1 else "")


def runs_per_device(plan: Plan) -> int:
    """Return the number of runs on each GPU at a time, at the most."""
    return math.ceil(plan.jobs * plan.devices_per_run / (len(plan.devices) or math.inf))


def carry_out(plan: Plan, console: Console) -> int:
    """Train the runs of a plan under one display, and print which failed.

    Returns:
        The number of runs that failed.
    """
    rows = [
        RunRow(title(run), samples_at_most(run.config), seconds or 0.0, str(log_file(run)))
        for run, seconds in zip(plan.runs, plan.seconds, strict=True)
    ]
    display, failures = SweepDisplay(rows, console), dict[int, str]()
    throughput = Throughput()

    def show(index: int, status: Status) -> None:
        throughput.note(index, status)
        display.show(index, status)

    def ended(index: int, failure: str | None) -> None:
        if failure is not None:
            failures[index] = failure
        record = find_record(plan.runs[index])
        display.ended(index, failure, outcome(record) if record else "no record")

    with contextlib.ExitStack() as stack:
        if runs_per_device(plan) > 1:
            console.print(SHARING[stack.enter_context(side_by_side())])
        stack.enter_context(display)
        requests = [
            RunRequest(run.overrides, log_file(run), run.config.trainer.devices)
            for run in plan.runs
        ]
        run_all(requests, plan.jobs, plan.devices, show, ended)
    console.print(f"{throughput.in_words()}, {plan.jobs} at a time.", soft_wrap=True)
    if failures:
        console.print(failures_table(rows, failures))
        console.print("The same command tries them again, and only them.")
    return len(failures)


def log_file(run: Run) -> Path:
    """Return the file for the output of a run of a sweep."""
    return run.directory / "output.log"


if __name__ == "__main__":
    sys.exit(main())
