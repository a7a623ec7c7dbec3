"""The committed measurements, from which the page of the benchmark is made.

The benchmark writes files `runs/runtime/<time>.jsonl`; `python -m tlstm.results collect` takes
their lines into `results/runtime/records.jsonl`. Lines are only ever added.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock

from tlstm.records.measurement import Measurement, read, write

EXPERIMENT = "runtime"
LOCK_SECONDS = 120.0


def store(results_dir: Path) -> Path:
    """Where the committed measurements are."""
    return results_dir / EXPERIMENT / "records.jsonl"


def load(results_dir: Path) -> list[Measurement]:
    """The committed measurements in the order in which they were taken in; [] if none.

    Raises:
        ValueError: a line is not a valid measurement; the message names file and line.
    """
    path = store(results_dir)
    return read(path) if path.exists() else []


def files(source: Path) -> list[Path]:
    """The files of a directory of runs, or the one file .jsonl that it is."""
    return [source] if is_file(source) else sorted((source / EXPERIMENT).glob("*.jsonl"))


def is_file(source: Path) -> bool:
    """Whether this is a file of measurements, to go by its name, and no directory of runs."""
    return source.suffix == ".jsonl"


def read_all(source: Path) -> list[Measurement]:
    """All measurements of a directory of runs or of one file; [] if there are none.

    Raises:
        OSError: a file could not be read.
        ValueError: a line is not a valid measurement; the message names file and line.
    """
    return [each for path in files(source) for each in read(path)]


def append(measurements: Iterable[Measurement], results_dir: Path) -> int:
    """Adds measurements to the store, leaving out those already there.

    Returns:
        The number of measurements that were new.

    Raises:
        OSError: the store could not be locked or written.
        ValueError: a line of the store is not a valid measurement; nothing is written.
    """
    path = store(results_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_SECONDS):
        there = load(results_dir)
        known = {each.key for each in there}
        new = {each.key: each for each in measurements if each.key not in known}
        if new:
            write([*there, *new.values()], path)
    return len(new)


def latest(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Of every case, machine and scale the measurements of its last run, side by side.

    Sequences of another length are another case.
    """

    def place(each: Measurement) -> tuple[object, ...]:
        case = each.case
        return each.hardware.device, each.quick, case.suite, case.name, case.timesteps

    last = {place(each): each.run for each in sorted(measurements, key=lambda m: m.run)}
    return [each for each in measurements if each.run == last[place(each)]]
