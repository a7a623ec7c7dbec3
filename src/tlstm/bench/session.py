"""A session of the benchmark: from the chosen cases to their records."""

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from tlstm.bench import format, timing
from tlstm.bench.cases import select_cases
from tlstm.bench.competitors import competitors
from tlstm.bench.cuda_graphs import Kind
from tlstm.bench.roofline import expected_seconds, multiplication_rate, roofline
from tlstm.ops.device import gpu_name, named_device
from tlstm.records import provenance
from tlstm.records.measurement import (
    IMPLEMENTATIONS,
    Case,
    Competitor,
    Measurement,
    Roofline,
    read,
    write,
)
from tlstm.utils import duration, time_range

COUNTED = ("targets", "step")  # suites whose kernels are counted
LINE_WIDTH = 132  # where there is no terminal
NOT_BY_DEFAULT_ON_CPU = ("torch.compile",)  # its compiler takes minutes there

Work = tuple[Case, list[Competitor]]


@torch.random.fork_rng(devices=[])
def run(options: argparse.Namespace) -> int:
    """Measure what the command line asks for; return the exit code.

    Raises:
        ValueError: it cannot be measured here.
        OSError: the records cannot be read or written.
        DeviceLostError: the device stopped working.
    """
    device = named_device(options.device)
    on_gpu = device.type == "cuda"
    quick = not on_gpu if options.quick is None else options.quick
    cases = select_cases(options.suite, options.case, options.timesteps, quick)
    works = [(case, _select(case, device, options.implementation)) for case in cases]
    works = [(case, chosen) for case, chosen in works if chosen]
    if not works:
        raise ValueError("none of the chosen competitors computes any of the chosen cases")
    console = Console(soft_wrap=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = LINE_WIDTH
    started = datetime.now(UTC)
    output = options.output or Path(f"runs/runtime/{started:%Y%m%d-%H%M%S-%f}.jsonl")
    rate = multiplication_rate(device)
    expected = sum(
        expected_seconds(case, each, rate, options.seconds, on_gpu)
        for case, chosen in works
        for each in chosen
    )
    name = gpu_name(device) or provenance.processor()
    pairs = sum(len(chosen) for _, chosen in works)
    console.print(
        f"{len(works)} cases, {pairs} measurements on {name}, which multiplies large matrices at "
        f"{rate / 1e12:.3g} TFLOP/s; {time_range(expected)}."
        + quick
        * " QUICK: short sequences, and without the large cases."
    )
    if options.dry_run:
        return 0
    record = Recorder(output, started, quick, device)
    _measure_all(works, record, rate, options.seconds, console)
    if options.kernels and on_gpu:
        _count_kernels(record, console)
    failed = sum(each.failure is not None for each in record.measurements)
    console.print(f"{len(record.measurements)} measurements, {failed} of them failed, in {output}")
    return 1 if failed else 0


def _select(case: Case, device: torch.device, only: Sequence[str] | None) -> list[Competitor]:
    default = [name for name in IMPLEMENTATIONS if name not in NOT_BY_DEFAULT_ON_CPU]
    wanted = only or (default if device.type == "cpu" else IMPLEMENTATIONS)
    return [each for each in competitors(case, device) if each.implementation in wanted]


class Recorder:
    """Appends measurements to a file, which is whole after every case.

    Attributes:
        measurements: those of this run, in the order in which they were made.

    Raises:
        OSError: the file could not be read or written.
        ValueError: a line of it is not a valid measurement; the message names file and line.
    """

    def __init__(self, path: Path, started: datetime, quick: bool, device: torch.device) -> None:
        self.measurements: list[Measurement] = []
        self.device = device
        self._path = path
        self._earlier = read(path) if path.is_file() else []
        self._same = _provenance(device) | {"run": started, "quick": quick}
        self._write([])  # where that fails, before anything is measured

    def add(self, case: Case, entry: timing.Entry, roof: Roofline) -> Measurement:
        """Record one competitor's measurement of a case."""
        training = entry.result("training", case) if "training" in timing.kinds(case) else None
        found = {
            "case": case,
            "competitor": entry.competitor,
            "forward": entry.result("forward", case),
            "training": training,
            "errors": entry.errors,
            "roofline": roof,
            "failure": entry.failure,
            "measured": datetime.now(UTC),
        }
        new = Measurement.model_validate(self._same | found)
        self._write([*self.measurements, new])
        return new

    def add_kernels(self, like: Measurement, kernels: dict[Kind, float]) -> None:
        """Record the kernels of a competitor for a case, with and without a CUDA graph."""

        def key(each: Measurement) -> tuple[object, ...]:
            return each.case, each.competitor.implementation, each.competitor.precision

        same = [_with_kernels(m, kernels) if key(m) == key(like) else m for m in self.measurements]
        self._write(same)

    def _write(self, measurements: list[Measurement]) -> None:
        self.measurements = measurements
        write([*self._earlier, *measurements], self._path)


def _with_kernels(measurement: Measurement, kernels: dict[Kind, float]) -> Measurement:
    update = {
        str(kind): found.model_copy(update={"kernels": count})
        for kind, count in kernels.items()
        if (found := getattr(measurement, kind)).timing is not None
    }
    return measurement.model_copy(update=update)


def _provenance(device: torch.device) -> dict[str, object]:
    commit, modified = provenance.commit()
    versions = provenance.versions(cuda=torch.version.cuda)
    if torch.backends.cudnn.is_available():
        versions["cudnn"] = str(torch.backends.cudnn.version())
    hardware = provenance.hardware(gpu_name(device), 1, torch.get_num_threads())
    return {"commit": commit, "modified": modified, "versions": versions, "hardware": hardware}


def _measure_all(
    works: Sequence[Work], record: Recorder, rate: float, seconds: float, console: Console
) -> None:
    hidden = not console.is_terminal
    started = time.perf_counter()
    with Progress(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("starting", total=len(works))
        for case, chosen in works:
            report = partial(_report, bar, f"{case.suite} {case.name}")
            report("the matrix products alone")
            roof = roofline(case, rate, record.device, with_products=case.suite == "targets")
            timing.free_memory(record.device)
            entries = timing.measure(case, chosen, record.device, seconds, report)
            bar.advance(task)
            console.print(format.case_table([record.add(case, each, roof) for each in entries]))
            console.print(f"{duration(time.perf_counter() - started)} so far")


def _report(bar: Progress, name: str, text: str) -> None:
    bar.update(bar.task_ids[0], description=f"{name}: {text}")


def _count_kernels(record: Recorder, console: Console) -> None:
    """Count those of every implementation in the first of its precisions.

    After all timing, since the profiler may leave something behind in the driver.
    """
    console.print("GPU kernels per timestep:")
    first: dict[tuple[str, str, str], Measurement] = {}
    for each in record.measurements:
        if each.case.suite in COUNTED and not each.failure:
            key = each.case.suite, each.case.name, each.competitor.implementation
            first.setdefault(key, each)
    for each in first.values():
        try:
            kernels = timing.kernels_per_timestep(each.case, each.competitor, record.device)
        except Exception as error:  # all timings are recorded; only the numbers of kernels lack
            console.print(f"no more kernels are counted: {type(error).__name__}: {error}")
            return
        record.add_kernels(each, kernels)
        counts = ", ".join(f"{kind} {count:.3g}" for kind, count in kernels.items())
        console.print(f"{each.case.suite} {each.case.name}, {each.competitor.name}: {counts}")
        timing.free_memory(record.device)
