"""The plan of a sweep: the runs to train, the devices for them, the time; and carrying it out."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from tlstm.records import provenance
from tlstm.records.schema import Record, read_record
from tlstm.sweeping.display import RunRow, SweepDisplay, failures_text, next_steps
from tlstm.sweeping.estimates import estimate_all
from tlstm.sweeping.gpus import most_devices, number_of_jobs, side_by_side, visible_gpus
from tlstm.sweeping.grid import read_runs, with_threads
from tlstm.sweeping.pool import Failure, Request, run_all
from tlstm.training.config import Run, samples_at_most, with_scale
from tlstm.training.cores import cores, threads_each
from tlstm.training.recording import find_record
from tlstm.training.run import LOG, fresh_directory
from tlstm.utils import time_range

SHARING = {
    True: "Runs on the same GPU run side by side, through NVIDIA's Multi-Process Service.",
    False: "Runs on the same GPU take turns: NVIDIA's Multi-Process Service does not run here.",
}


class Plan(NamedTuple):
    """The runs of a sweep and the devices for them.

    Attributes:
        runs: the ones to train, the longest first.
        seconds: the time of each at the most; None where it cannot be measured.
        recorded: the number of finished ones.
        jobs: the number at a time.
        devices: GPUs to spread them over; empty for the CPU.
        devices_per_run: the GPUs, or the processes on the CPU, of the run that takes the most.
    """

    runs: list[Run]
    seconds: list[float | None]
    recorded: int
    jobs: int
    devices: list[str]
    devices_per_run: int

    @property
    def runs_per_device(self) -> int:
        """The number of runs on each GPU at a time, at the most."""
        return math.ceil(self.jobs * self.devices_per_run / (len(self.devices) or math.inf))


def make_plan(
    files: Sequence[Path],
    overrides: Sequence[str],
    jobs: int | None,
    jobs_per_device: int | None,
    console: Console,
) -> Plan:
    """Read the sweep files, find the runs without a record and estimate their time.

    Args:
        files: the sweep files.
        overrides: `key=value` for all runs.
        jobs: runs at a time, None for as many as fit.
        jobs_per_device: the same for each GPU.
        console: to print to.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no sweep file, a point of it cannot be run, or there are too few
            devices.
    """
    devices = visible_gpus()
    runs = [run for file in files for run in read_runs(file, with_scale(overrides))]
    unique = list({run.directory: run for run in runs}.values())
    missing = [run for run in unique if not is_recorded(run)]
    devices_per_run = most_devices(missing, devices)
    jobs = number_of_jobs(jobs, jobs_per_device, devices, devices_per_run)
    jobs = min(jobs, len(missing) or 1)
    if not devices:
        threads = threads_each(jobs * devices_per_run)
        missing = [with_threads(run, threads) for run in missing]
    missing = [_with_own_directory(run) for run in missing]
    if missing:
        measured = f"a few passes of each of {len(missing)} runs"
        console.print(f"Measuring {measured}, to tell how long they will take.", soft_wrap=True)
    seconds = estimate_all(missing, jobs, devices)
    order = sorted(range(len(missing)), key=lambda i: seconds[i] or 0.0, reverse=True)
    return Plan(
        runs=[missing[i] for i in order],
        seconds=[seconds[i] for i in order],
        recorded=len(unique) - len(missing),
        jobs=jobs,
        devices=devices,
        devices_per_run=devices_per_run,
    )


def is_recorded(run: Run) -> bool:
    """Return True if a run is finished; one whose record is damaged will say so when it starts."""
    try:
        return find_record(run) is not None
    except (OSError, ValueError):
        return False


def _with_own_directory(run: Run) -> Run:
    """Return the run with the directory that it will make, which resume=never changes."""
    never = run.config.resume == "never"
    return run._replace(directory=fresh_directory(run.directory)) if never else run


def announcement(plan: Plan) -> str:
    """Return the number of runs, the machine and the time that they take as a sentence."""
    said = f"{len(plan.runs) + plan.recorded} runs, {plan.recorded} of them recorded already"
    if not plan.runs:
        return f"{said}; nothing to train."
    scales = {run.config.scale.name for run in plan.runs}
    threads = {run.config.trainer.threads for run in plan.runs}
    machine = (
        f"{len(plan.devices)} GPU(s), {torch.cuda.get_device_name()}"
        if plan.devices
        else f"{provenance.processor()}, {cores()} cores, {max(threads)} thread(s) a process"
    )
    several, shared = plan.devices_per_run, plan.runs_per_device
    sharing = f", {several} devices each" if several > 1 else ""
    sharing += f", {shared} on a GPU" if shared > 1 else ""
    return (
        f"{said}; {len(plan.runs)} to train at {' and '.join(sorted(scales))} scale, "
        f"{plan.jobs} at a time{sharing}, on {machine}: {time_in_words(plan)}"
    )


def time_in_words(plan: Plan) -> str:
    """Return the time of all runs as sentences."""
    # The gain of runs that share a GPU is not known beforehand
    together = min(plan.jobs, len(plan.devices) // plan.devices_per_run or plan.jobs)
    known = [seconds for seconds in plan.seconds if seconds is not None]
    unknown = len(plan.seconds) - len(known)
    wall = max(sum(known) / together, max(known, default=0.0))
    said = f"{time_range(wall)}, less where a task is solved early." if known else ""
    more = f" {unknown} could not be measured and take a time of their own." if unknown else ""
    return f"{said}{more}".strip()


def carry_out(
    plan: Plan,
    console: Console,
    title: Callable[[Run], str],
    outcome: Callable[[Record], str],
) -> int:
    """Train the runs of a plan under one display, and say which failed.

    Args:
        plan: the runs and their devices.
        console: to print to.
        title: a run in words.
        outcome: its result in words.

    Returns:
        The number of runs that failed.
    """
    rows = [
        RunRow(
            title=f"{title(run)}, seed {run.config.seed}",
            max_samples=samples_at_most(run.config),
            seconds=seconds or 0.0,
            log=run.directory / LOG,
        )
        for run, seconds in zip(plan.runs, plan.seconds, strict=True)
    ]
    display, failures = SweepDisplay(rows, console), dict[int, str]()

    def ended(index: int, failure: Failure | None) -> None:
        record = plan.runs[index].directory / "record.json"
        if failure is not None:
            failures[index] = failure.reason
        display.ended(index, failures.get(index) or outcome(read_record(record)), bool(failure))

    with contextlib.ExitStack() as stack:
        if plan.runs_per_device > 1:
            console.print(SHARING[stack.enter_context(side_by_side())])
        stack.enter_context(display)
        requests = [Request(run, run.config.trainer.devices) for run in plan.runs]
        run_all(requests, plan.jobs, plan.devices, display.show, ended)
    console.print(f"{display.throughput.in_words()}, {plan.jobs} at a time.", soft_wrap=True)
    console.print(failures_text(rows, failures) or next_steps(rows), soft_wrap=True)
    return len(failures)
