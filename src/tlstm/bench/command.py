"""The command line of the benchmark.

Measures the layer beside its peers, case by case, and records the numbers: microseconds per
timestep of the whole batch forward and forward plus backward, memory, kernels, compile and
capture time, errors against float64 and the share of the floor.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console

from tlstm.bench import display
from tlstm.bench.arithmetic import floor, multiplication_rate
from tlstm.bench.cases import TIMESTEPS, chosen
from tlstm.bench.competitors import competitors
from tlstm.bench.expectation import expected_seconds
from tlstm.bench.passes import Kind
from tlstm.bench.rounds import (
    DeviceLostError,
    Entry,
    free_memory,
    kernels_per_timestep,
    kinds,
    measure,
)
from tlstm.ops.device import gpu_name
from tlstm.records import provenance
from tlstm.records.measurement import (
    IMPLEMENTATIONS,
    SUITES,
    Case,
    Competitor,
    Measurement,
    Pass,
    read,
    write,
)
from tlstm.utils import (
    interruptions,
    refusals,
)

COUNTED = ("targets", "step")  # suites whose kernels are counted
LINE_WIDTH = 132  # where there is no terminal
NOT_BY_DEFAULT_ON_CPU = ("torch.compile",)  # its compiler takes minutes there


class Work(NamedTuple):
    """One case and who computes it."""

    case: Case
    competitors: list[Competitor]


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    found = argparse.ArgumentParser(
        prog="python -m tlstm.bench",
        description=__doc__,
        epilog="exit code: 0 measured; 1 something failed, which is recorded; 2 refused. "
        "Take the records in with `python -m tlstm.results collect --runs FILE`.",
    )
    found.add_argument("--suite", nargs="+", default=["all"], choices=[*SUITES, "all"])
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    found.add_argument(
        "--quick",
        action=argparse.BooleanOptionalAction,
        help="short sequences and no large cases (default: without a GPU)",
    )
    found.add_argument(
        "--case", nargs="+", default=[], metavar="PATTERN", help="cases whose names match"
    )
    found.add_argument(
        "--implementation", nargs="+", choices=IMPLEMENTATIONS, help="only these competitors"
    )
    found.add_argument(
        "--timesteps",
        type=_positive,
        help=f"of a sequence, at most the task's own (default: {TIMESTEPS}, quick 5 or 10)",
    )
    found.add_argument(
        "--seconds", type=float, default=0.3, help="of timing per number (default: 0.3)"
    )
    found.add_argument(
        "--output",
        type=Path,
        help="file, whose lines stay if it is there (default: runs/runtime/<time>.jsonl)",
    )
    found.add_argument(
        "--kernels",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="count kernels, on a GPU, after all timing",
    )
    found.add_argument(
        "--dry-run", action="store_true", help="say what would be measured and for how long"
    )
    return found


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = parser().parse_args(arguments)
    with (
        refusals(ValueError, OSError, DeviceLostError),
        interruptions("what was measured is recorded"),
        torch.random.fork_rng(devices=[]),
    ):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    device = _device(options.device)
    quick = device.type != "cuda" if options.quick is None else options.quick
    works = [
        Work(case, _wanted(case, device, options.implementation))
        for case in chosen(tuple(options.suite), tuple(options.case), options.timesteps, quick)
    ]
    works = [work for work in works if work.competitors]
    if not works:
        raise ValueError("none of the chosen competitors computes any of the chosen cases")
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console.width = LINE_WIDTH
    started = datetime.now(UTC)
    output = options.output or Path(f"runs/runtime/{started:%Y%m%d-%H%M%S-%f}.jsonl")
    rate = multiplication_rate(device)
    expected = sum(
        expected_seconds(*work, rate, options.seconds, device.type == "cuda") for work in works
    )
    console.print(display.announcement(works, quick, device, rate, expected))
    if options.dry_run:
        return 0
    record = Recorder(output, started, quick, device)
    _measure_all(works, record, rate, options.seconds, console)
    if options.kernels and device.type == "cuda":
        _count_kernels(record, console)
    console.print(display.outcome(record.measurements, output))
    return 1 if any(each.failure for each in record.measurements) else 0


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be cpu or cuda, got {name}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {name}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and there is no NVIDIA GPU that PyTorch can use")
    return device


def _wanted(
    case: Case, device: torch.device, implementations: Sequence[str] | None
) -> list[Competitor]:
    every = competitors(case, device)
    if implementations:
        return [each for each in every if each.implementation in implementations]
    if device.type == "cpu":
        return [each for each in every if each.implementation not in NOT_BY_DEFAULT_ON_CPU]
    return every


class Recorder:
    """Keeps measurements in a file, whole after every case, behind those that it already holds.

    Attributes:
        measurements: those of this run, in the order in which they were made.

    Raises:
        OSError: the file is there and could not be read.
        ValueError: a line of it is not a valid measurement; the message names file and line.
    """

    def __init__(self, path: Path, started: datetime, quick: bool, device: torch.device) -> None:
        self.measurements: list[Measurement] = []
        self.path, self.device = path, device
        self._earlier = read(path) if path.exists() else []
        self._same = _provenance(device) | {"run": started, "quick": quick}

    def add(self, case: Case, entries: Sequence[Entry], floors: object) -> list[Measurement]:
        """Record one case."""
        new = [
            Measurement.model_validate(
                self._same
                | {
                    "case": case,
                    "competitor": entry.competitor,
                    "forward": entry.result("forward", case),
                    "training": entry.result("training", case)
                    if "training" in kinds(case)
                    else None,
                    "errors": entry.errors,
                    "floor": floors,
                    "failure": entry.failure,
                    "measured": datetime.now(UTC),
                }
            )
            for entry in entries
        ]
        self.measurements += new
        self._write()
        return new

    def add_kernels(self, case: Case, like: Competitor, kernels: dict[Kind, float]) -> None:
        """Record how many kernels a competitor takes for a case, captured or not."""
        self.measurements = [
            _with_kernels(each, kernels)
            if each.case == case
            and each.competitor.model_copy(update={"captured": like.captured}) == like
            else each
            for each in self.measurements
        ]
        self._write()

    def _write(self) -> None:
        write([*self._earlier, *self.measurements], self.path)


def _with_kernels(measurement: Measurement, kernels: dict[Kind, float]) -> Measurement:
    passes: dict[Kind, Pass | None] = {
        "forward": measurement.forward,
        "training": measurement.training,
    }
    return measurement.model_copy(
        update={
            kind: found.model_copy(update={"kernels": kernels.get(kind)})
            for kind, found in passes.items()
            if found is not None and found.timing is not None
        }
    )


def _provenance(device: torch.device) -> dict[str, object]:
    commit, modified = provenance.commit()
    versions = provenance.versions(cuda=torch.version.cuda)
    if torch.backends.cudnn.is_available():
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return {
        "commit": commit,
        "modified": modified,
        "versions": versions,
        "hardware": provenance.hardware(gpu_name(device), 1, torch.get_num_threads()),
    }


def _measure_all(
    works: Sequence[Work], record: Recorder, rate: float, seconds: float, console: Console
) -> None:
    with display.progress(console, len(works)) as progress:
        for case, contestants in works:
            tell = progress.begin(case)
            tell("the matrix products alone")
            floors = floor(case, rate, record.device, with_products=case.suite == "targets")
            free_memory(record.device)
            entries = measure(case, contestants, record.device, seconds, tell)
            progress.end(display.case_table(record.add(case, entries, floors)))


def _count_kernels(record: Recorder, console: Console) -> None:
    """Of every implementation in the first of its precisions.

    After all timing, since the profiler may leave something behind in the driver.
    """
    done: set[tuple[str, str]] = set()
    console.print("counting kernels")
    for measurement in list(record.measurements):
        case, who = measurement.case, measurement.competitor
        key = f"{case.suite} {case.name}", who.implementation
        if case.suite not in COUNTED or measurement.failure or key in done:
            continue
        done.add(key)
        try:
            kernels = kernels_per_timestep(case, who, record.device)
        except Exception as error:  # all timings are recorded; only the numbers of kernels lack
            console.print(f"no more kernels are counted: {type(error).__name__}: {error}")
            return
        record.add_kernels(case, who, kernels)
        free_memory(record.device)
