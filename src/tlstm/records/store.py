"""The committed store of records, from which every figure and table is made.

`results/<experiment>/records.jsonl` holds a record a line. Lines are only ever added.
"""

import gzip
import io
import shlex
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from tlstm.records.schema import CurvePoint, Record, parse_record
from tlstm.utils import replace_file, sentence

CURVE_POINTS = 120
LOCK_SECONDS = 120.0
MOMENTS = ("best", "last", "test")
NESTED = (  # what no row of a frame holds
    *("format", "former_identifiers", "curve"),
    *("config", "versions", "hardware", "overrides"),
)


def thin(
    curve: Sequence[CurvePoint], threshold: float, limit: int = CURVE_POINTS
) -> list[CurvePoint]:
    """Thin a curve to `limit` points, spread evenly over its points and over their logarithm.

    The first point, the last, the best accuracy, the lowest loss and the first to reach the
    threshold and to pass it always stay.

    Args:
        curve: validations in the order of their samples.
        threshold: accuracy that counts as solved, a fraction.
        limit: 8 or more.
    """
    if limit < 8:
        raise ValueError(f"limit must be 8 or more, got {limit}")
    count = len(curve)
    if count <= limit:
        return list(curve)
    accuracy = np.array([point.accuracy for point in curve])
    loss = np.array([np.inf if point.loss is None else point.loss for point in curve])
    passes = [(accuracy >= threshold).argmax(), (accuracy > threshold).argmax()]
    marks = [accuracy.argmax(), loss.argmin(), *passes]
    each = (limit - len(marks)) // 2
    even = np.linspace(0, count - 1, each)
    early = np.geomspace(1, count, each) - 1
    kept = np.unique(np.concatenate([even, early, marks]).round().astype(int))
    return [curve[index] for index in kept]


def append(records: Iterable[Record], results_dir: Path) -> int:
    """Append records to results/<experiment>/records.jsonl, leaving out those already there.

    Safe with many writers: one at a time holds the store's lock. A failure leaves the store as
    it was. The lines that were there keep every byte.

    Args:
        records: of any experiments; their curves are thinned.
        results_dir: the directory of all results.

    Returns:
        The number of records that were new.

    Raises:
        OSError: the store could not be locked or written.
        ValueError: a line of the store is not a valid record; nothing is written to that store.
    """
    stores: dict[str, list[Record]] = {}
    for record in records:
        stores.setdefault(record.experiment, []).append(record)
    return sum(
        _append_to(results_dir / experiment / "records.jsonl", group)
        for experiment, group in stores.items()
    )


def _append_to(store: Path, records: list[Record]) -> int:
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.with_name(f"{store.name}.lock"), timeout=LOCK_SECONDS):
        there = {record.key for record in _read_store(store)}
        new = {record.key: record for record in records if record.key not in there}
        if new:
            old = store.read_bytes() if store.exists() else b""
            ends = b"" if old.endswith(b"\n") or not old else b"\n"
            lines = "".join(f"{_thinned(record).model_dump_json()}\n" for record in new.values())
            replace_file(store, old + ends + lines.encode())
    return len(new)


def _thinned(record: Record) -> Record:
    return record.model_copy(update={"curve": thin(record.curve, record.threshold)})


def _read_store(store: Path) -> list[Record]:
    lines = store.read_bytes().split(b"\n") if store.exists() else []
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    return [parse_record(line, f"line {number} of {store}") for number, line in numbered]


def load(results_dir: Path, experiment: str) -> list[Record]:
    """Return the committed records of an experiment in the order they were taken in; [] if none.

    Raises:
        ValueError: a line is not a valid record; the message names the file and the line.
    """
    return _read_store(results_dir / experiment / "records.jsonl")


def latest(records: Iterable[Record]) -> list[Record]:
    """Return the record that finished last for every identifier."""
    newest: dict[str, Record] = {}
    for record in records:
        other = newest.get(record.identifier)
        if other is None or record.finished >= other.finished:
            newest[record.identifier] = record
    return list(newest.values())


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return one flat row per run, without its curve, configuration and versions.

    Metrics become columns best_accuracy, test_loss, ...; `command` repeats the run.
    """
    table = pd.DataFrame([_row(record) for record in records])
    kinds = {"samples_to_threshold": "Int64"} | {f"{moment}_accuracy": float for moment in MOMENTS}
    return table if table.empty else table.astype(kinds)


def _row(record: Record) -> dict[str, Any]:
    row = record.model_dump(exclude={*NESTED, *MOMENTS})
    for moment in MOMENTS:
        metrics: dict[str, float | None] = {"accuracy": None, **getattr(record, moment)}
        row |= {f"{moment}_{name}": value for name, value in metrics.items()}
    row |= {name: row[name].astimezone(UTC) for name in ("started", "finished")}
    command = shlex.join(["python", "-m", "tlstm.train", *record.overrides])
    return row | record.hardware.model_dump() | {"command": command}


def _record_files(source: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Yield experiment, place and reader of every run's record below a directory of runs."""
    for path in sorted(source.glob("*/*/record.json")):
        yield path.parent.parent.name, str(path), path.read_bytes


def _archived_files(source: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Yield the same for an archive of such a directory, which is never unpacked."""
    with tarfile.open(source) as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) >= 3 and parts[-1] == "record.json":
                file = archive.extractfile(member)
                content = io.BytesIO(file.read() if file else b"")
                yield parts[-3], f"{member.name} in {source}", content.getvalue


def read_runs(source: Path, experiments: Sequence[str] = ()) -> tuple[list[Record], list[str]]:
    """Read the records of finished runs.

    Args:
        source: directory of runs, <experiment>/<run>/record.json, or a .tar.gz of one.
        experiments: those to read; all but "scratch" if empty.

    Returns:
        The records, and one sentence for each file that is not a valid record.

    Raises:
        OSError, ValueError: the source itself cannot be read, or an experiment is not in it.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist: no run has been recorded there")
    files = _record_files(source) if source.is_dir() else _archived_files(source)
    records, problems, seen = [], [], set()
    try:
        for experiment, place, read in files:
            seen.add(experiment)
            if experiment not in experiments if experiments else experiment == "scratch":
                continue
            try:
                records.append(_of_experiment(parse_record(read(), place), experiment, place))
            except (OSError, ValueError) as error:
                problems.append(sentence(error))
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{source} is not a readable archive, or not a whole one") from error
    for name in experiments:
        if name not in seen:
            raise ValueError(f"{source} holds no record of {name}; it has {sorted(seen)}")
    return records, problems


def _of_experiment(record: Record, experiment: str, place: str) -> Record:
    if record.experiment != experiment:
        raise ValueError(f"{place} is a record of {record.experiment}, not of {experiment}")
    return record
